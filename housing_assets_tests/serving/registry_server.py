"""A real MLflow tracking server, and versions registered in it over REST as the pipeline registers them."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from housing_assets_tests.conftest import free_port

START_SECONDS = 120.0


class RegistryServer:
    """A `mlflow server` process on one port, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        command = [
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        values = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | values,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"the server ended, see {self.folder / 'mlflow.log'}"
            assert time.monotonic() < deadline, f"{self.url} did not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def stop(self) -> None:
        """Stop the server and its worker; the database stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None

    def new_model(self) -> str:
        """Register a model without versions under a name not used before."""
        name = f"housing_price_{next(self._numbers)}"
        self._post("registered-models/create", name=name)
        return name

    def new_version(self, name: str, *, alias: str | None = "production", **tags: str) -> int:
        """Register a version with tags; the alias then points to it."""
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        created = self._post("model-versions/create", name=name, source="gs://pipelines/model", tags=listed)
        version = created["model_version"]["version"]
        if alias is not None:
            self._post("registered-models/alias", name=name, alias=alias, version=version)
        return int(version)

    def _post(self, route: str, **fields: object) -> Any:
        response = requests.post(f"{self.url}/api/2.0/mlflow/{route}", json=fields, timeout=60)
        assert response.ok, response.text
        return response.json()
