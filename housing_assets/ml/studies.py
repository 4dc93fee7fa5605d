"""Where a sweep's study is kept, so that it survives its process and several can work on it.

It holds the trials that have ended and every fold score, the ones of trials under way included. All of it is
in one journal to which whole lines are appended: what a killed process leaves is a journal that ends earlier.
Locks are the kernel's: they end with the process that holds them, so that no work has to be taken from a
process which only seems to be dead.
"""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from joblib import cpu_count
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial

from housing_assets.ml.families import Params
from housing_assets.ml.selection import ScoreFolds, score_folds
from housing_assets.ml.sweep_results import SweepPlan, TrialFold

JOURNAL = "study.journal"
# A trial's number, and that of a part of the plan.
Task = tuple[int, int]


class KernelLock:
    """Exclusive use of a file: a lock of Optuna's journal that a killed process cannot leave behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait until the file is free, and take it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self._descriptor)


class JournalLock(KernelLock):
    """The lock under which the journal is written; takes off what a killed process has half written."""

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_suffix(".lock"))
        self._journal = journal

    def acquire(self) -> bool:
        """Wait for the journal, and see to it that it ends with a whole line."""
        super().acquire()
        with self._journal.open("rb+") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
        return True


class KeptStudy:
    """A sweep's study in a folder of its own, on which several processes may work.

    Args:
        folder: Where it is kept; made if need be.
        plan: What is searched.
        n_processes: Processes that share this machine's processors.
        elsewhere: Who fits and scores, where it is not this machine; takes what `score_folds` takes.
    """

    def __init__(
        self, folder: Path, plan: SweepPlan, n_processes: int, elsewhere: ScoreFolds | None = None
    ) -> None:
        self._claims = folder / "claims"
        self._claims.mkdir(parents=True, exist_ok=True)
        self._record_lock = KernelLock(folder / "record.lock")
        self._plan = plan
        # No more than it can do side by side: what is left is for other processes.
        self._share = max(1, cpu_count() // n_processes) if elsewhere is None else sys.maxsize
        self._score_folds = elsewhere or score_folds
        journal = folder / JOURNAL
        journal.touch()
        storage = JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
        self._study = plan.space.new_study(plan.study_name, storage)

    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended, by number."""
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def record(self, number: int, trial: FrozenTrial) -> None:
        """Add a trial that has ended, unless another process has done so."""
        self._record_lock.acquire()
        try:
            if len(self.trials()) == number:
                self._study.add_trial(trial)
        finally:
            self._record_lock.release()

    def score(self, tasks: Mapping[Task, Params]) -> dict[Task, TrialFold]:
        """The score of every task: known already, worked out here, or by another process meanwhile."""
        while True:
            known = self._known()
            missing = [task for task in tasks if task not in known]
            if not missing:
                return {task: known[task] for task in tasks}
            with self._claimed(missing) as claimed:
                # Between the look and the claim another process may have finished some of them.
                known = self._known()
                self._work_out({task: tasks[task] for task in claimed if task not in known})
            if not claimed:
                self._wait_for(missing[0])

    def _work_out(self, tasks: Mapping[Task, Params]) -> None:
        if not tasks:
            return
        work = [self._plan.task(params, part) for (_, part), params in tasks.items()]
        scores = self._score_folds(self._plan.family, work, self._plan.seed)
        for task, score in zip(tasks, scores, strict=True):
            kept = TrialFold.of(score, self._plan.shares[task[1]])
            self._study.set_user_attr(_key(task), kept.to_json())

    def _known(self) -> dict[Task, TrialFold]:
        return {_task(key): TrialFold(**score) for key, score in self._study.user_attrs.items()}

    @contextmanager
    def _claimed(self, tasks: Sequence[Task]) -> Iterator[list[Task]]:
        """This process's share of the tasks that no living process works on."""
        with ExitStack() as held:
            claimed: list[Task] = []
            for task in tasks:
                if len(claimed) < self._share and self._claim(task, held):
                    claimed.append(task)
            yield claimed

    def _wait_for(self, task: Task) -> None:
        """Until the process that works on it has finished it, or has died."""
        claim = KernelLock(self._claims / _key(task))
        claim.acquire()
        claim.release()

    def _claim(self, task: Task, held: ExitStack) -> bool:
        descriptor = os.open(self._claims / _key(task), os.O_RDWR | os.O_CREAT, 0o644)
        held.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _key(task: Task) -> str:
    number, part = task
    return f"trial-{number:03d}-part-{part}"


def _task(key: str) -> Task:
    _, number, _, part = key.split("-")
    return int(number), int(part)
