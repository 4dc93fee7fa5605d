"""Signing in to a tracking server on Cloud Run, as a workflow does: Google's endpoints are played here."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.tracking.request_auth.registry import RequestAuthProviderRegistry

from housing_assets.google_auth import NAME, GoogleAuthProvider
from housing_assets_tests.scripted_http import scripted_server

PROVIDER = "projects/1/locations/global/workloadIdentityPools/github/providers/housing"
ISSUED = {"token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
ACCOUNT = "train@housing.iam.gserviceaccount.com"


def token() -> str:
    """An unsigned token that ends in an hour."""
    parts = ({"alg": "none"}, {"exp": int(time.time()) + 3600})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, base64.urlsafe_b64encode(b"signature").decode()])


@pytest.fixture
def federated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a workflow's sign-in leaves, without a metadata server to ask instead."""
    (tmp_path / "github.token").write_text("assertion")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "housing-test")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("GCE_METADATA_TIMEOUT", "1")
    monkeypatch.setenv("GCE_METADATA_DETECT_RETRIES", "1")
    return tmp_path / "credentials.json"


def test_a_workflow_asks_for_a_token_of_its_service_account(
    federated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = token()
    seen: list[Any] = []

    def play(handler: Any, body: bytes) -> None:
        kind = handler.path.rpartition(":")[2]
        if kind == "generateIdToken":
            seen.append(json.loads(body))
        elif kind == "mlflow":
            seen.append(handler.headers["Authorization"])
        answers = {
            "/token": {**ISSUED, "access_token": "federated", "expires_in": 3600},
            "generateAccessToken": {"accessToken": "own", "expireTime": "2099-01-01T00:00:00Z"},
            "generateIdToken": {"token": made},
        }
        handler.reply(200, [], json.dumps(answers.get(kind, {})).encode())

    with scripted_server() as server:
        server.afterwards = play
        account = f"{server.url}/v1/projects/-/serviceAccounts/{ACCOUNT}"
        monkeypatch.setattr("google.auth.iam._IAM_IDTOKEN_ENDPOINT", f"{account}:generateIdToken")
        credentials = {
            "type": "external_account",
            "audience": f"//iam.googleapis.com/{PROVIDER}",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{server.url}/token",
            "service_account_impersonation_url": f"{account}:generateAccessToken",
            "credential_source": {"file": str(federated.with_name("github.token"))},
        }
        federated.write_text(json.dumps(credentials))
        auth = GoogleAuthProvider().get_auth()
        for _ in range(2):
            requests.get(f"{server.url}/api:mlflow", auth=auth, timeout=30)
        asked = {"audience": server.url, "delegates": None, "includeEmail": True}
    assert seen == [asked, f"Bearer {made}", f"Bearer {made}"]


def test_without_credentials_the_request_goes_without_a_token(federated: Path) -> None:
    request = requests.Request("GET", "https://mlflow.example.org/api").prepare()
    assert "Authorization" not in GoogleAuthProvider().get_auth()(request).headers


def test_mlflow_takes_it_as_a_provider() -> None:
    registry = RequestAuthProviderRegistry()
    registry.register(GoogleAuthProvider)
    assert [provider.get_name() for provider in registry] == [NAME]
