"""`python -m housing_serving`: WEB_CONCURRENCY processes that answer on HOST and PORT.

Everything is set by the environment (and `.env`): see `.env.example`.
"""

import argparse
import os
import resource
import sys
import tempfile

import uvicorn
from pydantic import ValidationError

from housing_serving.log_format import configure_logging
from housing_serving.settings import ServingSettings

SHUTDOWN_SECONDS = 10
# Longer than proxies keep an idle connection (60 s), so that it is never the server who closes it first.
KEEP_ALIVE_SECONDS = 75


def main() -> None:
    """Serve until stopped; SIGTERM lets requests in flight finish."""
    argparse.ArgumentParser(prog="python -m housing_serving", description=__doc__).parse_args()
    try:
        settings = ServingSettings.load()
    except ValidationError as error:
        sys.exit("The service cannot start:" + "".join(f"\n  {line}" for line in _problems(error)))
    configure_logging(settings.housing_log_level)
    _allow_many_connections()
    # Every worker counts in files of this folder, so that each of them can report the sum.
    with tempfile.TemporaryDirectory(prefix="housing-metrics-") as folder:
        if settings.web_concurrency > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run(
            "housing_serving.app:from_environment",
            factory=True,
            host=settings.host,
            port=settings.port,
            http="housing_serving.connections:Connection",
            workers=settings.web_concurrency,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            # Requests are logged with their ids by the application itself.
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )


def _allow_many_connections() -> None:
    # Each connection is a file descriptor, and the usual limit of 1,024 is meant for interactive shells.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _problems(error: ValidationError) -> list[str]:
    # Fields are named as their variables, which are written in capitals.
    return [
        f"{'.'.join(map(str, problem['loc'])).upper()} {problem['msg'].removeprefix('Value error, ')}".strip()
        for problem in error.errors()
    ]


if __name__ == "__main__":
    main()
