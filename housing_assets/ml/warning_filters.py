"""Forests leave this process's warning filters alone.

scikit-learn gives each task of its `Parallel` a copy of the warning filters by `warnings.catch_warnings`,
which is not safe in threads: of two trees that grow at once, the one that ends last may leave the process
without any filter. Then every further tree prints a warning, and so does whatever else had been filtered
(scikit-learn's issue 32631). Threads share the filters anyhow, so a tree needs no copy.
"""

from sklearn import config_context
from sklearn.utils import parallel


def _call(task: parallel._FuncWrapper, *args: object, **kwargs: object) -> object:
    with config_context(**getattr(task, "config", {})):
        return task.function(*args, **kwargs)


def keep_warning_filters() -> None:
    """Let tasks of scikit-learn's `Parallel` run with the process's own filters from now on."""
    parallel._FuncWrapper.__call__ = _call
