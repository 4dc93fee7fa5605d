"""Who works on the parts of a job: the processors of this machine, or the workers of a Dask cluster.

Pieces of work are functions of their item alone that store what they make under the same name each time, so
that a piece can be repeated by somebody else when a worker dies.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from joblib import Parallel, delayed

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
DASK_SCHEME = "dask://"
# How long a cluster may take to answer, and to have its first worker.
CONNECT_SECONDS = 30
WORKERS_SECONDS = 120


class EngineUnavailable(Exception):
    """The cluster is not there, or it has nobody to work; the message says what to start."""


class Engine(Protocol):
    """Somebody who does many pieces of work."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The result of the work for every item, in the order of the items; `work` has to be picklable."""
        ...


class LocalEngine:
    """One process for each processor of this machine."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results, in order; a single item is worked on in this process."""
        results: list[Result] = Parallel(n_jobs=1 if len(items) == 1 else -1)(
            delayed(work)(item) for item in items
        )
        return results


class DaskEngine:
    """The workers of a Dask cluster, which have this package installed and reach the storage root.

    Args:
        address: `host:port` of the scheduler.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results, in order; what a worker was at when it died is done by another one.

        Raises:
            EngineUnavailable: the scheduler does not answer, or has no worker.
        """
        from distributed import Client  # noqa: PLC0415  (an optional dependency)

        try:
            client = Client(f"tcp://{self._address}", timeout=CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            raise EngineUnavailable(
                f"no Dask scheduler answers at {self._address}: start one (`dask scheduler`), "
                "or set HOUSING_COMPUTE to its address or to local"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKERS_SECONDS)
            except TimeoutError as error:
                raise EngineUnavailable(
                    f"the Dask scheduler at {self._address} has no worker: start some "
                    f"(`dask worker {self._address} --nworkers auto --nthreads 1`)"
                ) from error
            results: list[Result] = client.gather(client.map(work, items, pure=False))
        return results


def engine_at(address: str) -> Engine:
    """The engine of that address: `local`, or `dask://host:port`.

    Raises:
        ValueError: it is neither.
    """
    if address == LOCAL:
        return LocalEngine()
    scheduler = address.removeprefix(DASK_SCHEME)
    host, _, port = scheduler.rpartition(":")
    if not address.startswith(DASK_SCHEME) or not host or not port.isdigit():
        raise ValueError(f"HOUSING_COMPUTE is {address!r}: set it to local or to dask://host:port")
    return DaskEngine(scheduler)
