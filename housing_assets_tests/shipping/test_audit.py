"""The audit of the locks passes where nothing is known of their packages, and fails where something is."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from housing_assets_tests.shipping.make import REPOSITORY, make


def asking(url: str) -> str:
    """The variable that points the audit to another service."""
    return f"AUDIT_OPTIONS=--vulnerability-service osv --osv-url {url} --progress-spinner off"


class AdvisoriesStandIn(ThreadingHTTPServer):
    """The query of the OSV API, as far as pip-audit needs it: the real one is not within reach of a test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Query)
        self.vulnerable: set[str] = set()
        self.asked: set[str] = set()

    @property
    def variable(self) -> str:
        """What points pip-audit here."""
        port = self.server_address[1]
        return asking(f"http://127.0.0.1:{port}/v1/query")


class _Query(BaseHTTPRequestHandler):
    server: AdvisoriesStandIn

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        self.server.asked.add(name)
        known = name in self.server.vulnerable
        affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [query["version"]]}
        advisory = {"id": "PYSEC-2026-1", "details": "Planted.", "aliases": [], "affected": [affected]}
        body = json.dumps({"vulns": [advisory]} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is kept."""


@pytest.fixture
def advisories() -> Iterator[AdvisoriesStandIn]:
    with AdvisoriesStandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The locks of the service, as those of development and of the only image."""
    lock = REPOSITORY / "deploy" / "requirements" / "serving.lock"
    (tmp_path / "deploy" / "requirements").mkdir(parents=True)
    shutil.copy(lock, tmp_path / "deploy" / "requirements")
    shutil.copy(lock, tmp_path / "requirements.lock")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    return tmp_path


def test_dependencies_of_which_nothing_is_known_pass(copy: Path, advisories: AdvisoriesStandIn) -> None:
    audited = make("audit", advisories.variable, cwd=copy)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert {"fastapi", "onnxruntime", "numpy", "uvicorn"} <= advisories.asked


def test_a_vulnerable_dependency_fails_the_audit(copy: Path, advisories: AdvisoriesStandIn) -> None:
    advisories.vulnerable.add("onnxruntime")
    audited = make("audit", advisories.variable, cwd=copy)
    assert audited.returncode != 0
    assert "onnxruntime" in audited.stdout
    assert "PYSEC-2026-1" in audited.stdout


def test_a_service_that_cannot_be_asked_fails_the_audit(copy: Path) -> None:
    audited = make("audit", asking("http://127.0.0.1:9/v1/query"), cwd=copy)
    assert audited.returncode != 0
    assert "127.0.0.1" in audited.stdout + audited.stderr
