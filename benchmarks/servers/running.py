"""How every server here runs: one worker of uvicorn, as the service does."""

import uvicorn
from fastapi import FastAPI


def run(app: FastAPI, port: int) -> None:
    """Serve until stopped, with the faster event loop and parser, and no access log."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
