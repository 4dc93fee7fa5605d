"""A fleet as operators run it: real processes that follow the release record of a real storage root."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from onnx import TensorProto, helper, numpy_helper

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.deployment.fleet_metrics import FleetMetrics
from housing_assets.storage import open_store
from housing_assets_tests.serving.bundles import INSTANCE, MEDIAN_INCOME, PREPROCESSING, bundle_files
from housing_assets_tests.serving.running_service import running_service
from housing_serving.bundle import sha256_hex
from housing_serving.releases import ReleaseRecord

PROCESSES = 4
PATIENCE_SECONDS = 60.0
MODEL = "housing_price_model"
PREDICT = "/api/v1/predict"


@dataclass(frozen=True)
class Fleet:
    """Some API processes behind one address, and the storage root that they share.

    Attributes:
        root: The storage root.
        url: Where they answer.
        pid: Of their common parent.
    """

    root: Path
    url: str
    pid: int

    def target(self) -> FleetTarget:
        """A target of its own, as each program that deploys has one."""
        return FleetTarget(open_store(str(self.root)), [self.url])

    def versions(self) -> Mapping[int, float]:
        """Processes by the version they serve."""
        return FleetMetrics([self.url]).serving()[0]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        children = psutil.Process(self.pid).children()
        # One of them tracks shared resources for Python.
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]

    def wait_for(self, versions: Mapping[int, float]) -> None:
        """Return once so many processes serve these versions."""
        wait_until(lambda: self.versions() == versions, f"{versions}, not {self.versions()}")

    def ask(self, request_id: str | None = None, rows: int = 1, **changes: object) -> requests.Response:
        """Ask for prices on a connection of its own."""
        headers = {"X-Request-ID": request_id} if request_id else {}
        body = {"instances": [{**INSTANCE, **changes}] * rows}
        return requests.post(f"{self.url}{PREDICT}", json=body, headers=headers, timeout=30)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def running_fleet(folder: Path, *, processes: int = PROCESSES, **variables: str) -> Iterator[Fleet]:
    """A fleet that answers, with version 1 to begin with; version n prices at n million and a bit."""
    root = folder / "home" / "storage"
    add_version(root, 1)
    settings = {"LOCAL_MODEL_PATH": "", "WEB_CONCURRENCY": str(processes), **variables}
    with running_service(folder, **settings) as service:
        fleet = Fleet(root, service.url, service.pid)
        fleet.wait_for({1: processes})
        yield fleet


def add_version(root: Path, version: int, files: Mapping[str, bytes] | None = None) -> None:
    """Store a bundle as registration does: its manifest last."""
    store = open_store(str(root))
    found = files or bundle_files(kind="compiled", version=version, stumps=stumps_of(version))
    for name in sorted(found, key=lambda name: name == "bundle.json"):
        store.write(f"models/{MODEL}/{version}/{name}", found[name])


def stumps_of(version: int) -> list[tuple[int, float, float, float]]:
    """Whose price tells the version: so many millions, and a dollar above an income of 4."""
    return [(MEDIAN_INCOME, 4.0, version * 1e6, version * 1e6 + 1.0)]


def price_of(version: int) -> float:
    """What such a version answers to the example."""
    return version * 1e6 + 1.0


def like_version(version: int, factor: float = 1.0) -> dict[str, bytes]:
    """A bundle that prices as version 1 does, or so many times that."""
    stumps = [(MEDIAN_INCOME, 4.0, 1e6 * factor, (1e6 + 1.0) * factor)]
    return bundle_files(kind="compiled", version=version, stumps=stumps)


def failing_bundle(version: int) -> dict[str, bytes]:
    """A bundle that passes every check, and fails for incomes around 20.

    There it looks up a place that its table does not have, which ends the run with an error.
    """
    nodes = [
        helper.make_node("Gather", ["features", "income"], ["column"], axis=1),
        helper.make_node("Sub", ["column", "twenty"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Sub", ["size", "distance"], ["position"]),
        helper.make_node("Cast", ["position"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["prediction"], axis=0),
    ]
    constants = [
        numpy_helper.from_array(np.full(119, price_of(1)), "table"),
        numpy_helper.from_array(np.array([MEDIAN_INCOME]), "income"),
        numpy_helper.from_array(np.array(20.0), "twenty"),
        numpy_helper.from_array(np.array(120.0), "size"),
    ]
    return with_model(version, nodes, constants)


def slow_bundle(version: int, size: int = 1200) -> dict[str, bytes]:
    """A bundle that prices right, after multiplying large matrices: a quarter of a second and more."""
    nodes = [
        helper.make_node("Gather", ["features", "income"], ["column"], axis=1),
        helper.make_node("ReduceSum", ["column"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["large", "sum"], ["first"]),
        *(
            helper.make_node("MatMul", [left, "large"], [right])
            for left, right in (("first", "second"), ("second", "third"), ("third", "fourth"))
        ),
        helper.make_node("ReduceMax", ["fourth"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Mul", ["column", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "nothing"], ["still_zeros"]),
        helper.make_node("Add", ["still_zeros", "price"], ["prediction"]),
    ]
    constants = [
        numpy_helper.from_array(np.full((size, size), 1e-3), "large"),
        numpy_helper.from_array(np.array([MEDIAN_INCOME]), "income"),
        numpy_helper.from_array(np.array(0.0), "zero"),
        numpy_helper.from_array(np.array(price_of(1)), "price"),
    ]
    return with_model(version, nodes, constants)


def with_model(version: int, nodes: list[Any], constants: list[Any]) -> dict[str, bytes]:
    """A valid bundle around a graph from `features` to `prediction`."""
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, PREPROCESSING.spec().size])],
        [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, [None, 1])],
        constants,
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    files = bundle_files(kind="compiled", version=version)
    digests = {name: sha256_hex(data) for name, data in files.items() if name != "bundle.json"}
    rewritten = bundle_files(
        kind="compiled", version=version, files={**digests, "model.onnx": sha256_hex(model)}
    )
    return {**rewritten, "model.onnx": model}


def record_of(root: Path) -> ReleaseRecord:
    """The release record as it lies in the storage root."""
    return ReleaseRecord.model_validate(json.loads((root / "releases/housing-price-api.json").read_bytes()))
