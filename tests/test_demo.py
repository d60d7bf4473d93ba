"""The demo is the whole story: it fails where any part of it does."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    result = subprocess.run(
        [sys.executable, "-m", "tandem", "demo", "--out", str(tmp_path / "demo")],
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    story = result.stdout
    assert result.returncode == 0, result.stderr
    assert "recommended (model)" in story
    assert "worker 0: rank" in story
    assert "worker 1: rank" in story
    assert "left out as seen at once" in story
    assert "failed: 0; 'brand-new' is still there" in story
    assert "recalls, source fallback" in story
    # ONNX Runtime keeps its telemetry there.
    assert not list(home.rglob("onnxruntime.db"))
