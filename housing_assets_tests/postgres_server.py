"""A real PostgreSQL server for tests, on a free port, in a folder of its own, as a user who is not root."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from housing_assets_tests.conftest import free_port
from housing_assets_tests.running_stack import wait_for
from housing_assets_tests.system_programs import require

USER, PASSWORD, DATABASE = "housing", "s3cret-of-tests", "postgres"
# Debian's package makes it; PostgreSQL refuses to run as root.
ACCOUNT = "postgres"
START_SECONDS = 60.0


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database, user and password included."""
    programs = Path(require("initdb", "postgresql")).resolve().parent
    account = {"user": ACCOUNT, "group": pwd.getpwnam(ACCOUNT).pw_gid} if os.geteuid() == 0 else {}
    # Folders of pytest are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if account:
        shutil.chown(folder, ACCOUNT)
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [
                *(programs / "initdb", "--pgdata", folder / "data", "--username", USER, "--no-sync"),
                *("--auth", "scram-sha-256", "--pwfile", password),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **account,
        )
        port = str(free_port())
        command = [
            *(programs / "postgres", "-D", folder / "data", "-p", port, "-k", folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
        ]
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **account)
        try:
            ready = [programs / "pg_isready", "--quiet", "--host", "127.0.0.1", "--port", port]
            wait_for(
                "PostgreSQL",
                lambda: server.poll() or not subprocess.run(ready, check=False).returncode,
                START_SECONDS,
            )
            assert server.poll() is None, f"PostgreSQL ended with status {server.returncode}"
            yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}"
        finally:
            # SIGTERM would wait for every client, and this process keeps connections for later.
            server.send_signal(signal.SIGINT)
            server.wait()
    finally:
        shutil.rmtree(folder)
