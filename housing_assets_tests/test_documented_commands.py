"""Every command in README and the documentation is run by a test, or is marked as needing an account.

What costs minutes is run by the test that is named here for it; the rest is run here as it stands. A command
that is new, was changed, or whose test has gone fails: say in `RUN_BY` which test runs it, or mark its block
with the title "Needs a … account".
"""

import io
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dotenv import dotenv_values

from housing_assets.definitions import build_definitions
from housing_assets.instance import prepare_instance
from housing_assets.settings import Settings
from housing_assets_tests.command_line import REPOSITORY, clean_environment
from housing_assets_tests.documented import ADDRESS, Block, blocks, commands
from housing_serving.settings import ServingSettings

TESTS = REPOSITORY / "housing_assets_tests"


@dataclass(frozen=True)
class RunBy:
    """Where a command is run.

    Attributes:
        test: file below the tests, and function, as `file::function`.
        seen_in: a text by file (below the repository) that shows that it does.
    """

    test: str
    seen_in: Mapping[str, str]


def make(target: str, test: str, file: str, text: str) -> RunBy:
    """A target of the Makefile whose recipe is a command that a test runs."""
    return RunBy(test, {"Makefile": f"$(BIN)/{target}", f"housing_assets_tests/{file}": text})


_DEMO = "test_end_to_end.py::test_the_demo_ends_with_a_price_from_the_version_it_registered"
_SMALL = "test_end_to_end.py::test_every_value_lies_at_its_readable_name"
_UP = "stack/test_services.py::test_everything_answers_and_the_api_is_not_ready_without_a_model"
_DOWN = "stack/test_services.py::test_down_ends_every_process_even_those_of_a_killed_daemon"
_RELEASE = "test_release_cli.py::test_a_release_from_beginning_to_end"
_WORKFLOW = "shipping/test_release_workflow.py::test_a_version_that_does_well_is_promoted"
_SITE = "test_documentation_site.py::test_the_site_is_built_without_a_network"
_FORESTS = "test_benchmarks.py::test_the_published_forest_is_compared_on_both_splits_and_in_new_places"
_TRAINING = RunBy(
    _SMALL, {"housing_assets_tests/command_line.py": '"train", "--snapshot", SNAPSHOT, "--config"'}
)
_RELEASES = "housing_assets_tests/test_release_cli.py"
_ALERTS = "housing_assets_tests/alerts/test_alerts_cli.py"
_PREDICT = "housing_assets_tests/batch/test_predict_cli.py"
_DOCTOR = "housing_assets_tests/doctor/test_doctor.py"
_WORKFLOW = "shipping/test_release_workflow.py::test_a_version_that_does_well_is_promoted"
_RELEASE_WORKFLOW = "housing_assets_tests/shipping/test_release_workflow.py"
_PROMETHEUS = "housing_assets_tests/test_prometheus.py"
_BENCHMARKS = "housing_assets_tests/test_benchmarks.py"
RUN_BY: Mapping[str, RunBy] = {
    "make demo": make("housing demo", _DEMO, "test_end_to_end.py", 'housing("demo"'),
    "make up": make("housing up", _UP, "stack/conftest.py", 'stack.housing("up")'),
    "make down": make("housing down", _DOWN, "stack/test_services.py", 'other.housing("down")'),
    "make docs": RunBy(
        _SITE, {"Makefile": "-m mkdocs build", "housing_assets_tests/test_documentation_site.py": "mkdocs"}
    ),
    # What continuous integration runs is all of the tests.
    "make test": RunBy(_SITE, {".ci/run": "make test"}),
    # The demo trains by the same call, with the defaults.
    ".venv/bin/housing train": RunBy(
        _DEMO, {"housing_assets/demo.py": "outcome = run_training(settings, console)"}
    ),
    ".venv/bin/housing train --snapshot 2026-11-15": _TRAINING,
    ".venv/bin/housing train --config run.yaml": _TRAINING,
    ".venv/bin/dagster asset materialize -m housing_assets.definitions --select sweep_result+ "
    "--partition 2026-11-22": RunBy(
        "stack/test_selection.py::test_the_command_line_runs_the_selected_assets_alone",
        {"housing_assets_tests/stack/test_selection.py": '"--select", "sweep_result+"'},
    ),
    ".venv/bin/housing release status": RunBy(
        "test_release_cli.py::test_status_says_who_cannot_be_asked_and_fails", {_RELEASES: '"status"'}
    ),
    ".venv/bin/housing release history": RunBy(_RELEASE, {_RELEASES: '"history"'}),
    ".venv/bin/housing release rollback --reason prices too high in Fresno": RunBy(
        _RELEASE, {_RELEASES: '"rollback", "--reason", "prices too high in Fresno"'}
    ),
    ".venv/bin/housing release rollback --reason only trying": RunBy(
        _RELEASE, {_RELEASES: '"rollback", "--reason"'}
    ),
    ".venv/bin/housing release promote 7 --reason as agreed": RunBy(
        _RELEASE, {_RELEASES: '"promote", "1", "--reason"'}
    ),
    ".venv/bin/housing alerts test": RunBy(
        "alerts/test_alerts_cli.py::test_a_test_message_arrives_on_every_channel",
        {_ALERTS: '"alerts", "test"'},
    ),
    ".venv/bin/housing predict blocks.csv --output priced.csv": RunBy(
        "batch/test_predict_cli.py::test_bad_rows_are_told_counted_and_kept", {_PREDICT: '"--output"'}
    ),
    "zcat blocks.csv.gz | .venv/bin/housing predict > priced.csv": RunBy(
        "batch/test_predict_cli.py::test_a_pipe_carries_every_format", {_PREDICT: '"predict"'}
    ),
    ".venv/bin/housing predict blocks.parquet --version 3 --strict --output priced.jsonl": RunBy(
        "batch/test_predict_cli.py::test_strict_writes_everything_or_nothing", {_PREDICT: '"--strict"'}
    ),
    ".venv/bin/housing doctor": RunBy(
        "doctor/test_doctor.py::test_people_read_what_to_do", {_DOCTOR: '["doctor"]'}
    ),
    ".venv/bin/housing doctor --json": RunBy(
        "doctor/test_doctor.py::test_a_good_set_up_has_no_problem", {_DOCTOR: '["doctor", "--json"]'}
    ),
    ".venv/bin/housing release deploy": RunBy(
        _WORKFLOW, {"Makefile": "housing release deploy", _RELEASE_WORKFLOW: 'steps["deploy"].outputs'}
    ),
    ".venv/bin/housing release check": RunBy(
        _WORKFLOW, {"Makefile": "housing release check", _RELEASE_WORKFLOW: 'steps["check"].printed'}
    ),
    ".venv/bin/housing exporter": RunBy(
        "test_prometheus.py::test_the_exporter_says_what_monitoring_found", {_PROMETHEUS: '"exporter"'}
    ),
    "prometheus --config.file=deploy/monitoring/prometheus.yml": RunBy(
        "test_prometheus.py::test_all_rules_are_evaluated_without_a_problem", {_PROMETHEUS: "--config.file="}
    ),
    # Whether Grafana takes what is copied is asked of the files: a machine's own folder is left alone.
    "cp -r deploy/monitoring/grafana/. /etc/grafana/provisioning/": RunBy(
        "test_prometheus.py::test_the_dashboard_is_whole", {_PROMETHEUS: "grafana"}
    ),
    "HOUSING_API_URL=https://prices.example.org .venv/bin/python -m housing_serving.webapp": RunBy(
        "webapp/test_pages.py::test_the_first_page_is_usable_soon",
        {"housing_assets_tests/webapp/running_webapp.py": '"housing_serving.webapp"'},
    ),
    ".venv/bin/python -m benchmarks --only published --source ../housing.csv": RunBy(
        _FORESTS, {_BENCHMARKS: '"--only", "published"'}
    ),
    ".venv/bin/python -m benchmarks --only published --source ../housing.csv "
    "--save benchmarks/results": RunBy(_FORESTS, {_BENCHMARKS: '"--only", "published", "--save"'}),
}
# Blocks, as they stand, that are run here: they take seconds. The others of their blocks are run elsewhere.
RUN_HERE = (
    "make help",
    ".venv/bin/housing alerts",
    ".venv/bin/housing alerts history",
    "export DAGSTER_HOME=$PWD/.housing/dagster",
    ".venv/bin/dagster asset materialize -m housing_assets.definitions --select group:monitoring "
    "--partition 2026-03-01",
)
PYTEST = ".venv/bin/python -m pytest -q "


def documented() -> list[tuple[str, str]]:
    """Page and text of every command that needs no account and does not ask the service."""
    return [
        (block.page, command)
        for block in blocks("bash", "console", "sh", "shell")
        if not block.needs_account and ADDRESS not in block.text
        for command in commands(block.text)
    ]


def test_every_command_is_run_by_a_test_or_marked() -> None:
    unknown = [
        f"{page}: {command}"
        for page, command in documented()
        if command not in RUN_BY and command not in RUN_HERE and not command.startswith(PYTEST)
    ]
    assert unknown == [], __doc__


def test_nothing_is_listed_that_no_page_says() -> None:
    said = {command for _, command in documented()}
    assert sorted({*RUN_BY, *RUN_HERE} - said) == []


@pytest.mark.parametrize("command", RUN_BY)
def test_the_named_test_exists_and_runs_it(command: str) -> None:
    found = RUN_BY[command]
    file, _, function = found.test.partition("::")
    assert re.search(rf"^def {function}\(", (TESTS / file).read_text(), re.MULTILINE), found.test
    for place, text in found.seen_in.items():
        assert text in (REPOSITORY / place).read_text(), f"{place} does not say {text}"


def test_tests_that_pages_name_are_there() -> None:
    named = [
        name for _, command in documented() if command.startswith(PYTEST) for name in command.split()[4:]
    ]
    assert named
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `.venv`, the Makefile and an empty `.housing` are where people have them."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "Makefile").symlink_to(REPOSITORY / "Makefile")
    prepare_instance(Settings(_env_file=None, HOUSING_HOME=folder / ".housing"))  # type: ignore[call-arg]
    return folder


@pytest.mark.parametrize("command", [command for command in RUN_HERE if not command.startswith("export ")])
def test_commands_work_as_they_stand(checkout: Path, command: str) -> None:
    environment = clean_environment(checkout / ".housing", PYTHONPATH=str(REPOSITORY))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"export DAGSTER_HOME=$PWD/.housing/dagster\n{command}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(Settings.model_construct())


@pytest.mark.parametrize("block", [pytest.param(one, id=one.page) for one in blocks("yaml")])
def test_run_configuration_in_pages_is_accepted(definitions: dg.Definitions, block: Block) -> None:
    config = yaml.safe_load(block.text)
    daily = {"prediction_log", "drift_report", "performance_report"} & config.get("ops", {}).keys()
    job = definitions.resolve_job_def("monitoring_job" if daily else "training_job")
    assert dg.validate_run_config(job, config)


def environment_values(block: Block) -> dict[str, str]:
    return {name: str(value) for name, value in dotenv_values(stream=io.StringIO(block.text)).items()}


@pytest.mark.parametrize("block", [pytest.param(one, id=one.page) for one in blocks("ini")])
def test_settings_in_pages_are_accepted(block: Block) -> None:
    values = environment_values(block)
    pipeline = {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert values.keys() <= pipeline | {name.upper() for name in ServingSettings.model_fields}
    if values.get("HOUSING_DEPLOYMENT") == "gcp":
        [google] = [one for one in blocks("ini") if one.page == "docs/running.md"]
        values = {**environment_values(google), **values}
    Settings(_env_file=None, **values)  # type: ignore[arg-type]
