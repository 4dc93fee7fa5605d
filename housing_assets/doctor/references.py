"""What the settings refer to: storage, source, tracking, models, the Dagster instance, channels of alerts."""

import re
import socket
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from housing_assets.doctor.findings import Finding, error, ok, or_ok, told, warning
from housing_assets.settings import Settings
from housing_assets.storage import (
    BucketForbidden,
    BucketMissing,
    CredentialsMissing,
    ObjectStore,
    StorageError,
    StorageUnavailable,
    open_store,
)

ANSWER_SECONDS = 5.0
WANDB_KEY = re.compile(r"[A-Za-z0-9_-]{40,}")


def check_storage(settings: Settings) -> Iterator[Finding]:
    """Whether the storage root answers."""
    root = settings.storage_root
    try:
        open_store(root, deadline=ANSWER_SECONDS).list("releases/")
    except StorageUnavailable as problem:
        mend = "check the network and STORAGE_EMULATOR_HOST, which names another server than Google's"
        yield error("storage", str(problem), mend)
    except (BucketMissing, BucketForbidden, CredentialsMissing) as problem:
        yield told("storage", str(problem), "set GCS_BUCKET_NAME")
    except StorageError as problem:
        yield error("storage", str(problem), f"check who may read {root}")
    else:
        yield ok("storage", root)


def check_source(settings: Settings) -> Iterator[Finding]:
    """Whether a source that is a path exists."""
    location = settings.source_uri
    if location is None:
        yield ok("source", "the table that ships with the package")
        return
    parts = urlsplit(location)
    if parts.scheme not in {"", "file"}:
        yield ok("source", f"{location} (is read when a run needs it)")
        return
    path = Path(unquote(parts.path) if parts.scheme else location).expanduser()
    fixed = (
        Path(str(path).partition("{snapshot}")[0].rpartition("/")[0]) if "{snapshot}" in location else path
    )
    wrong = []
    if not fixed.exists():
        mend = "set HOUSING_SOURCE_URI to where the rows are, or remove it for the packaged table"
        wrong.append(error("source", f"{fixed} does not exist", mend))
    yield from or_ok("source", wrong, location)


def check_tracking(settings: Settings) -> Iterator[Finding]:
    """Whether MLflow answers, or its database can be used by the installed MLflow."""
    uri = settings.tracking_uri
    if uri.startswith(("http://", "https://")):
        yield from _check_mlflow_server(uri)
    elif uri.startswith("sqlite:///"):
        yield from _check_mlflow_database(Path(uri.removeprefix("sqlite:///")), uri)
    else:
        yield ok("mlflow", f"{uri} (not looked at)")


def _check_mlflow_server(uri: str) -> Iterator[Finding]:
    mend = "start it (housing up starts one on MLFLOW_PORT), or set MLFLOW_TRACKING_URI to one that runs"
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except requests.RequestException as problem:
        yield error("mlflow", f"{uri} does not answer ({type(problem).__name__})", mend)
        return
    if answer.ok:
        yield ok("mlflow", f"{uri} answers")
    else:
        yield error("mlflow", f"{uri}/health answers {answer.status_code}: it is no MLflow server", mend)


def _check_mlflow_database(path: Path, uri: str) -> Iterator[Finding]:
    if not path.exists():
        yield ok("mlflow", f"{path} (is made by the first training)")
        return
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found = [
                str(version) for (version,) in database.execute("SELECT version_num FROM alembic_version")
            ]
    except sqlite3.Error as problem:
        mend = f"restore {path} from a copy, or move it away: the next training makes one without versions"
        yield error("mlflow", f"{path} is no MLflow database ({problem})", mend)
        return
    older, newest = _mlflow_revisions()
    if found == [newest]:
        yield ok("mlflow", str(path))
    elif set(found) <= older:
        text = f"{path} has the schema {', '.join(found)} of an older MLflow"
        yield error("mlflow", text, f"housing down, copy it, then: mlflow db upgrade {uri}")
    else:
        text = f"{path} has the schema {', '.join(found)}, which the installed MLflow does not know"
        yield error("mlflow", text, "install the MLflow that wrote it (pip install --upgrade mlflow)")


def _mlflow_revisions() -> tuple[set[str], str | None]:
    """The schemas that the installed MLflow knows, and the one it uses."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    package = find_spec("mlflow")
    assert package is not None and package.origin is not None  # noqa: S101  (checked as a package before)
    scripts = ScriptDirectory(str(Path(package.origin).parent / "store" / "db_migrations"))
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()


def check_wandb(settings: Settings) -> Iterator[Finding]:
    """Whether the key can be one."""
    if settings.wandb_api_key is None:
        yield ok("wandb", "no key: runs are recorded offline")
        return
    key = settings.wandb_api_key.get_secret_value()
    wrong = []
    if not WANDB_KEY.fullmatch(key):
        text = f"WANDB_API_KEY is no key: {len(key)} characters, 40 or more letters and digits are expected"
        wrong.append(error("wandb", text, "copy it from https://wandb.ai/authorize, or remove it"))
    yield from or_ok("wandb", wrong, "a key is set")


def check_model(settings: Settings) -> Iterator[Finding]:
    """Whether there is a model to serve, and whether what rollback and trials need is whole."""
    from housing_serving.default_model import ModelUnavailable, NotRegistered, default_model  # noqa: PLC0415

    try:
        model = default_model()
    except NotRegistered as problem:
        yield warning("model", str(problem), "housing train makes the first version")
    except ModelUnavailable as problem:
        mend = "housing release rollback goes back to the version before; housing train makes a new one"
        yield error("model", str(problem), mend)
    else:
        yield ok("model", f"version {model.bundle.manifest.model_version} from {model.uri}")
    try:
        yield from _check_release(settings, open_store(settings.storage_root, deadline=ANSWER_SECONDS))
    except StorageError as problem:
        yield error("release", str(problem), "see the check `storage`")


def _check_release(settings: Settings, store: ObjectStore) -> Iterator[Finding]:
    from housing_assets.deployment.release_record import ReleaseStore  # noqa: PLC0415
    from housing_assets.deployment.target import DeploymentError  # noqa: PLC0415

    try:
        record = ReleaseStore(store).read().record
    except DeploymentError as problem:
        yield error("release", str(problem), "housing release promote VERSION writes it anew")
        return
    if record is None:
        yield ok("release", "nothing was released yet: the newest version serves")
        return
    named = {"canary": record.canary_version, "previous": record.previous_version}
    wrong = [
        finding
        for role, version in named.items()
        if version is not None
        for finding in _wrong_bundle(store, settings.mlflow_model_name, role, version)
    ]
    yield from or_ok("release", wrong, f"version {record.stable_version} is released")


def _wrong_bundle(store: ObjectStore, model_name: str, role: str, version: int) -> Iterator[Finding]:
    from housing_serving.bundle import MANIFEST_FILE, Bundle, BundleError, read_manifest  # noqa: PLC0415

    prefix = f"models/{model_name}/{version}"
    try:
        manifest = store.read(f"{prefix}/{MANIFEST_FILE}")
        names = read_manifest(manifest, store.uri(prefix)).files
        files = {name: store.read(f"{prefix}/{name}") for name in names}
        Bundle.from_files({**files, MANIFEST_FILE: manifest}, origin=store.uri(prefix))
    except (BundleError, StorageError) as problem:
        mends = {
            "canary": "housing release rollback ends the trial",
            "previous": "restore it from a copy: rollback cannot go there; promote another version meanwhile",
        }
        yield error("release", f"the {role} version {version} is unusable ({problem})", mends[role])


def check_dagster(settings: Settings) -> Iterator[Finding]:
    """Whether the instance can be loaded, and whether runs are left that nobody works on."""
    home = settings.dagster_home
    if not (home / "dagster.yaml").exists():
        yield ok("dagster", f"{home} (is made by the first run)")
        return
    import dagster as dg  # noqa: PLC0415  (seconds to import)

    from housing_assets.orphans import orphaned_runs  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with dg.DagsterInstance.from_config(str(home)) as instance:
                orphans = [run.run_id for run in orphaned_runs(instance)]
    except Exception as problem:  # its storage, its configuration and their libraries share no base
        what = str(problem).strip().splitlines()[0][:200]
        mend = f"housing down, then move {home} away: the next start makes one without past runs"
        yield error("dagster", f"the instance in {home} cannot be loaded ({what})", mend)
        return
    if orphans:
        text = f"runs are left whose process is gone: {', '.join(orphans)}"
        yield warning("dagster", text, "housing train, or housing up, reports them as failed")
    else:
        yield ok("dagster", str(home))


def check_alerts(settings: Settings) -> Iterator[Finding]:
    """Whether the servers that carry alerts can be reached."""
    yield from or_ok("alerts", _unreachable_channels(settings), "every channel that is set can be reached")


def _unreachable_channels(settings: Settings) -> Iterator[Finding]:
    if settings.alert_webhook_url is not None:
        url = urlsplit(settings.alert_webhook_url.get_secret_value())
        port = url.port or (443 if url.scheme == "https" else 80)
        yield from _unreachable(url.hostname or "", port, "HOUSING_ALERT_WEBHOOK_URL", "its address")
    if settings.smtp_host is not None:
        yield from _unreachable(settings.smtp_host, settings.smtp_port, "SMTP_HOST", "it and SMTP_PORT")


def _unreachable(host: str, port: int, setting: str, what: str) -> Iterator[Finding]:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return
    except OSError as problem:
        text = f"{host}:{port} ({setting}) cannot be reached ({problem.strerror or problem})"
        yield error("alerts", text, f"correct {what}, then try it: housing alerts test")
