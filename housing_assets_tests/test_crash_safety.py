"""A training that is killed at any moment tears nothing, and the next one succeeds.

`HOUSING_CRASH_KILLS` sets the number of kills and `HOUSING_CRASH_SEED` their moments; the log (pytest with
`--log-cli-level=INFO`) tells when each came.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from housing_assets.formats import decode
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.registration import load_bundle, stored_bundles
from housing_assets.registry import COMPLETE, INCOMPLETE, STAGING, STATE_TAG
from housing_assets.storage import LocalStore
from housing_assets.storage.local import TEMPORARY
from housing_assets_tests.command_line import (
    REPOSITORY,
    SMALL_BUDGET,
    SNAPSHOT,
    clean_environment,
    train_small,
)

MODEL = "housing_price_model"
STORED = ("data/", "artifacts/", "models/")
SWEEP_RESULT = f"models/06-sweep/{SNAPSHOT}/best_params.yaml"
POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


class Home:
    """The one home that every killed training works in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "storage")

    def train_and_kill(self, seconds: float) -> bool:
        """Kill a training after that long; whether it still ran."""
        process = self._start_training()
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            return True
        assert process.returncode == 0, output
        return False

    def train_and_kill_while_it_registers(self) -> int:
        """Kill a training as soon as its version is there but not complete; returns its number."""
        started = time.time()
        process = self._start_training()
        # Before its last step the registry may still be under construction, and is not to be opened.
        self._wait(process, lambda: SWEEP_RESULT in self.written_since(started))
        earlier = set(self.states())
        self._wait(process, lambda: set(self.states()) - earlier)
        [version] = set(self.states()) - earlier
        kill(process)
        assert self.states()[version] == INCOMPLETE
        return version

    def _wait(self, process: "subprocess.Popen[str]", condition: Callable[[], object]) -> None:
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(POLL_SECONDS)

    def _start_training(self) -> "subprocess.Popen[str]":
        environment = clean_environment(self.folder)
        # A process killed while it saves its coverage would leave a broken file of it.
        environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "housing_assets", "train"),
                *("--snapshot", SNAPSHOT, "--config", str(SMALL_BUDGET)),
            ],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def written_since(self, moment: float) -> list[str]:
        """Objects that were stored after a moment."""
        files = [(name, Path(self.store.uri(name))) for name in self.store.list() if name.startswith(STORED)]
        return [name for name, path in files if path.stat().st_mtime >= moment]

    def temporary_files(self) -> list[Path]:
        """What interrupted writes left."""
        return [path for path in self.folder.rglob(".*.tmp") if TEMPORARY.fullmatch(path.name)]

    def check_nothing_is_torn(self) -> None:
        """Every stored value decodes, every bundle loads, and `staging` is complete if it is set."""
        for name in self.store.list():
            if name.startswith(STORED) and not name.startswith(f"models/{MODEL}/"):
                decode(name, self.store.read(name))
        bundles = stored_bundles(self.store, MODEL)
        for version in bundles:
            load_bundle(self.store, MODEL, version)
        if (staging := self.staging()) is not None:
            assert staging.tags[STATE_TAG] == COMPLETE
            assert int(staging.version) in bundles

    def staging(self) -> Any:
        """The version that the alias points to, if it is set."""
        if not (self.folder / "mlflow" / "mlflow.db").exists():
            return None
        try:
            return self._client().get_model_version_by_alias(MODEL, STAGING)
        except MlflowException as error:
            assert error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}, error
            return None

    def states(self) -> dict[int, str]:
        """State of every registered version."""
        found = self._client().search_model_versions(f"name = '{MODEL}'")
        return {int(version.version): version.tags[STATE_TAG] for version in found}

    def open_runs(self) -> list[str]:
        """Names of MLflow runs that nobody has closed."""
        client = self._client()
        experiment = client.get_experiment_by_name("housing-price")
        found = client.search_runs([experiment.experiment_id])
        return [run.info.run_name for run in found if run.info.status == "RUNNING"]

    def _client(self) -> Any:
        return mlflow_client(f"sqlite:///{self.folder}/mlflow/mlflow.db")


def kill(process: "subprocess.Popen[str]") -> None:
    """End a process and all of its group without a chance to tidy up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def seconds_of_a_training(home: Path) -> float:
    started = time.monotonic()
    train_small(home)
    return time.monotonic() - started


def test_trainings_killed_at_random_moments_leave_nothing_torn_and_the_next_one_succeeds(
    tmp_path: Path,
) -> None:
    kills = int(os.environ.get("HOUSING_CRASH_KILLS", "1"))
    moments = random.Random(int(os.environ.get("HOUSING_CRASH_SEED", "2026")))
    duration = seconds_of_a_training(tmp_path / "measured")
    home = Home(tmp_path / "home")
    killed = after_a_write = 0
    while killed < kills:
        after, started = moments.uniform(0, duration), time.time()
        if not home.train_and_kill(after):
            # Later trainings are faster than the first, which has databases to create.
            duration = after
            continue
        written = home.written_since(started)
        killed += 1
        after_a_write += bool(written)
        home.check_nothing_is_torn()
        log.info(
            "kill %d of %d after %.1f of %.1f s: %d objects written, %d temporary files, staging %s",
            *(killed, kills, after, duration, len(written)),
            *(len(home.temporary_files()), getattr(home.staging(), "version", None)),
        )
    log.info("%d of %d kills came after the first write", after_a_write, kills)

    before, abandoned = home.staging(), home.train_and_kill_while_it_registers()
    home.check_nothing_is_torn()
    assert getattr(home.staging(), "version", None) == getattr(before, "version", None)

    train_small(home.folder)
    home.check_nothing_is_torn()
    states = home.states()
    assert set(states.values()) == {COMPLETE}
    assert abandoned not in states
    assert int(home.staging().version) == max(states)
    assert stored_bundles(home.store, MODEL) == set(states)
    assert home.temporary_files() == []
    assert home.open_runs() == []
    log.info("versions %s are complete", sorted(states))
