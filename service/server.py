"""The processes of one service: uvicorn's workers, started by spawn, around one socket."""

import os
from collections.abc import Mapping

import uvicorn

from service.metrics import prepare_directory
from service.settings import read_settings

# One worker is one process on one core; a library that starts threads of its own only adds
# switches, and OpenMP's threads hang after a fork.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(options: Mapping[str, str]) -> None:
    """Serve until stopped. Options override the environment, which is how workers get them too."""
    os.environ.update({f"TANDEM_{name.upper()}": value for name, value in options.items()})
    settings = read_settings()
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    prepare_directory(settings.runtime_directory())
    uvicorn.run(
        "service.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=10,
    )
