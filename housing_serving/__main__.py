"""`python -m housing_serving`: one process that answers on HOST and PORT."""

import sys

import uvicorn
from pydantic import ValidationError

from housing_serving.app import create_app
from housing_serving.log_format import configure_logging
from housing_serving.settings import ServingSettings

SHUTDOWN_SECONDS = 10


def main() -> None:
    """Serve until stopped; SIGTERM lets requests in flight finish."""
    try:
        settings = ServingSettings.load()
    except ValidationError as error:
        sys.exit("The service cannot start:" + "".join(f"\n  {line}" for line in _problems(error)))
    configure_logging()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        # Requests are logged with their ids by the application itself.
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _problems(error: ValidationError) -> list[str]:
    # Fields are named as their variables, which are written in capitals.
    return [
        f"{'.'.join(map(str, problem['loc'])).upper()} {problem['msg'].removeprefix('Value error, ')}".strip()
        for problem in error.errors()
    ]


if __name__ == "__main__":
    main()
