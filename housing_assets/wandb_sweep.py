"""The sweep in W&B: its server chooses settings and stops trials, agents on this machine score them.

Before each trial the client ends whatever its process has open at W&B. So agents run in processes of their
own, and the tracked step of the asset stays open beside them.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_assets.ml.child_process import start_child
from housing_assets.ml.families import Params
from housing_assets.ml.search_spaces import SearchSpace
from housing_assets.ml.selection import Fold, Progress, mean_metrics, score_folds
from housing_assets.ml.sweep_results import (
    SweepFailed,
    SweepPlan,
    SweepResult,
    SweepTrial,
    TrialFold,
    conclude,
    counted,
    describe,
)
from housing_assets.wandb_runs import quiet_settings, unavailable

if TYPE_CHECKING:
    from wandb import Run

logger = logging.getLogger(__name__)

ENGINE = "wandb"
# How often an agent asks what to do, and a run sends its steps. With the client's 5 and 15 seconds a short
# trial is over before the server can stop it, and every trial starts seconds late.
EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class WandbTarget:
    """Where sweeps go: project, entity (W&B's default without one), and the folder of local files."""

    project: str
    entity: str | None
    folder: Path


@dataclass(frozen=True)
class _Ended:
    """A trial that has ended; its number is given by whoever collects them."""

    trial: SweepTrial
    project_url: str


@dataclass(eq=False)
class _Run:
    """A trial under way."""

    run_id: str
    name: str
    project_url: str
    params: Params
    scores: list[TrialFold] = field(default_factory=list)


def run_wandb_sweep(
    folds: Sequence[Fold],
    family: str,
    space: SearchSpace,
    *,
    n_trials: int,
    seed: int,
    study_name: str,
    progress: Progress | None = None,
    start_from: Mapping[str, Any] | None = None,
    target: WandbTarget,
    n_processes: int = 1,
) -> SweepResult:
    """Search a family's space with W&B; which settings are tried is up to its server.

    Args:
        folds: From `prepare_folds`.
        family: Model family.
        space: What to search, how, and when to stop trials.
        n_trials: Trials to end, completed and stopped ones alike; fewer when the sweep is ended in W&B.
        seed: Seed of the models.
        study_name: What the sweep is called in W&B.
        progress: Told about every trial that ends.
        start_from: A setting to try first, as a run that the sweep is given; passed over when it lies outside
            the space.
        target: Where the sweep goes.
        n_processes: Agents that share the trials.

    Raises:
        WandbUnavailable: the server cannot be reached or refuses the key.
        SweepFailed: a trial failed, or none was scored on all folds.
    """
    plan = SweepPlan.of(folds, family, space, n_trials, seed, study_name, start_from)
    agents = _Agents(plan, target)
    try:
        sweep_id = agents.open_sweep(_shares(plan, n_processes))
        ended: list[_Ended] = []
        for one in agents.ended():
            ended.append(replace(one, trial=replace(one.trial, number=len(ended))))
            if progress is not None:
                progress(describe(ended[-1].trial, plan))
    finally:
        agents.stop()
    url = f"{ended[0].project_url}/sweeps/{sweep_id}" if ended else None
    return conclude(plan, [one.trial for one in ended], engine=ENGINE, sweep_id=sweep_id, sweep_url=url)


def _shares(plan: SweepPlan, n_processes: int) -> list[int]:
    """How many trials each agent runs; the first one also runs the trial to start from."""
    trials = plan.n_trials - (plan.start_from is not None)
    return [len(range(agent, trials, n_processes)) for agent in range(n_processes)]


class _Agents:
    """The processes that run the trials, and what they tell."""

    def __init__(self, plan: SweepPlan, target: WandbTarget) -> None:
        self._plan = plan
        self._target = target
        self._processes: list[BaseProcess] = []
        self._messages: list[Connection] = []
        self._early: list[_Ended] = []

    def open_sweep(self, shares: Sequence[int]) -> str:
        """Start the agents; the first one creates the sweep."""
        self._start(None, shares[0])
        while not isinstance(message := self._receive(self._messages[0]), str):
            if message is None:
                raise SweepFailed("the agent ended before there was a sweep")
            self._early.append(message)
        for share in shares[1:]:
            if share:
                self._start(message, share)
        return message

    def ended(self) -> Iterator[_Ended]:
        """Trials as they end, until all agents are done."""
        yield from self._early
        running: list[Any] = list(self._messages)
        while running:
            for messages in wait(running):
                message = self._receive(messages)
                if message is None:
                    running.remove(messages)
                else:
                    yield message
        for process in self._processes:
            process.join()
            if process.exitcode:
                raise SweepFailed(f"an agent ended with exit code {process.exitcode}")

    def stop(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _start(self, sweep_id: str | None, share: int) -> None:
        receiver, sender = Pipe(duplex=False)
        self._messages.append(receiver)
        self._processes.append(start_child(_run_agent, self._plan, self._target, sweep_id, share, sender))
        # Only the agent holds it now, so its end is seen here.
        sender.close()

    @staticmethod
    def _receive(messages: Any) -> Any:  # noqa: ANN401  (whatever an agent tells)
        """The next message of an agent; None when it has ended."""
        try:
            message = messages.recv()
        except EOFError:
            return None
        if isinstance(message, Exception):
            raise message
        return message


def _run_agent(
    plan: SweepPlan, target: WandbTarget, sweep_id: str | None, share: int, messages: Connection
) -> None:
    """The whole life of an agent's process."""
    target.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(WANDB_DIR=str(target.folder), WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    import wandb  # noqa: PLC0415  (a second to import)

    threading.excepthook = _pass_over_finalizers
    agent = _Agent(plan, target, messages)
    try:
        # The client prints where the sweep is.
        with redirect_stdout(StringIO()):
            agent.run(sweep_id, share)
    except wandb.errors.Error as error:
        messages.send(unavailable(target.project, f"the sweep ({error})"))
    except Exception as error:  # whatever it is, the process that waits for the trials has to know
        messages.send(SweepFailed(f"{type(error).__name__}: {error}"))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Work that the agent may stop: its way to do so is to raise just `Exception` in the trial's thread."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise


def _pass_over_finalizers(failure: threading.ExceptHookArgs) -> None:
    """Keep one thread of the client quiet: it releases what the client itself has closed before a trial."""
    if failure.thread is not None and failure.thread.name == "wandb-ServiceFinalizer":
        logger.debug("not released: %s", failure.exc_value)
    else:
        threading.__excepthook__(failure)


class _Agent:
    """Creates the sweep if there is none, and runs trials of it."""

    def __init__(self, plan: SweepPlan, target: WandbTarget, messages: Connection) -> None:
        self._plan = plan
        self._target = target
        self._messages = messages
        self._untold: list[_Run] = []
        self._errors: list[Exception] = []

    def run(self, sweep_id: str | None, share: int) -> None:
        """Run a share of the sweep's trials; tell its id if it is created here."""
        import wandb  # noqa: PLC0415
        from wandb.agents.pyagent import Agent  # noqa: PLC0415

        if sweep_id is None:
            sweep_id = self._create()
            self._messages.send(sweep_id)
        if share:
            Agent.HEARTBEAT_SLEEP_SECONDS = EVERY_SECONDS
            place = self._target
            wandb.agent(sweep_id, self._trial, entity=place.entity, project=place.project, count=share)
        self._tell()
        if self._errors:
            raise self._errors[0]

    def _create(self) -> str:
        """Create the sweep, with the run of the setting to start from in it."""
        import wandb  # noqa: PLC0415

        place = {"entity": self._target.entity, "project": self._target.project}
        prior = []
        if self._plan.start_from is not None:
            self._trial(config=self._plan.start_from, **place)
            prior = [self._untold[0].run_id]
            self._tell()
        config = {"name": self._plan.study_name, **self._plan.space.as_sweep_config()}
        sweep_id: str = wandb.sweep(config, prior_runs=prior, **place)
        return sweep_id

    def _trial(self, **options: Any) -> None:  # noqa: ANN401  (passed on to wandb.init)
        """One trial, in a run of its own; of a sweep's trials, the client knows the setting."""
        import wandb  # noqa: PLC0415

        # Not at the end of the trial: the agent may stop that at any line.
        self._tell()
        settings = quiet_settings(x_file_stream_transmit_interval=EVERY_SECONDS)
        start = partial(wandb.init, dir=self._target.folder, job_type="sweep-trial", settings=settings)
        try:
            # Twice: a trial may be stopped while its run is closed, when it is over anyway.
            with _stoppable(), start(**options) as run, _stoppable():
                self._score(run)
        except Exception as error:
            self._errors.append(error)
            raise

    def _score(self, run: "Run") -> None:
        params = self._plan.space.settle(dict(run.config))
        under_way = _Run(run.id, run.name or run.id, run.project_url, params)
        self._untold.append(under_way)
        for part, share in enumerate(self._plan.shares):
            [score] = score_folds(self._plan.family, [self._plan.task(params, part)], self._plan.seed)
            under_way.scores.append(TrialFold.of(score, share))
            # A step per part: what the server compares trials by when it decides which to stop.
            judged = counted(under_way.scores)
            said = {"folds": len(judged) if share == 1.0 else 0, "share": share, **mean_metrics(judged)}
            run.log(said, step=len(under_way.scores))
        ended = self._ended(under_way)
        run.summary.update({"seconds": ended.seconds, "importances": ended.importances(self._plan.features)})

    def _tell(self) -> None:
        """Pass on the trials that have ended; one that was stopped before its first fold has no outcome."""
        while self._untold:
            run = self._untold.pop(0)
            if run.scores:
                self._messages.send(_Ended(self._ended(run), run.project_url))

    def _ended(self, run: _Run) -> SweepTrial:
        complete = len(run.scores) == len(self._plan.parts)
        reason = "complete" if complete else f"stopped by W&B after {self._plan.done(run.scores)}"
        return SweepTrial(0, run.run_id, run.name, run.params, tuple(run.scores), complete, reason)
