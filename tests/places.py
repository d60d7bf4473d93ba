"""Where tests find what the repository must not or cannot hold: data, programs."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data(name: str) -> Path:
    """The folder `name` under TANDEM_DATA (default: ../shared/data). Call it in a fixture."""
    base = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    folder = base / name
    if not folder.is_dir():
        missing(f"{folder} is absent; set TANDEM_DATA to the directory that holds {name}")
    return folder


def program(name: str, package: str) -> str:
    """The path of a program of the Debian package `package`. Call it in a fixture."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed; on Debian: apt-get install {package}")
    return path


def missing(reason: str) -> NoReturn:
    """Skips the test; under CI, where everything is to be there, fails it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
