"""Where tests find data that the repository must not hold."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data(name: str) -> Path:
    """The folder `name` under TANDEM_DATA (default: ../shared/data). Call it in a fixture: where
    the folder is absent the test is skipped, and under CI it fails."""
    base = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    folder = base / name
    if not folder.is_dir():
        reason = f"{folder} is absent; set TANDEM_DATA to the directory that holds {name}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
