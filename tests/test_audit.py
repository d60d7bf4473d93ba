"""`make audit` tells a weakness, none and no answer apart, by the real pip-audit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.listening import Handler, listening
from tests.places import ROOT
from tests.service.server import free_port

WEAK = {
    "id": "GHSA-weak",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "weak", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@contextmanager
def advisories() -> Iterator[str]:
    """The URL of a service that knows of one weakness, in the package `weak`."""

    class Advising(Handler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = {"vulns": [WEAK]} if asked["package"]["name"] == "weak" else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

    with listening(Advising) as port:
        yield f"http://127.0.0.1:{port}/v1/query"


def audit(directory: Path, url: str, *pins: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    file = directory / "pins.txt"
    file.write_text("\n".join(pins))
    service = ("--vulnerability-service", "osv", "--osv-url", url, "--timeout", "5")
    command = [sys.executable, ".ci/audit.py", str(file), *service]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("pins", "code", "told"),
    [
        (["sound==1.0"], 0, "nothing is known against 1 dependencies"),
        (["sound==1.0", "weak==1.0"], 1, "weak 1.0: GHSA-weak, fixed in 1.1"),
        (["sound==1.0", "odd @ https://example.invalid/odd.whl"], 3, "1 of 2 not audited"),
    ],
)
def test_an_audit_says_what_is_known(tmp_path: Path, pins: list[str], code: int, told: str) -> None:
    with advisories() as url:
        found, printed = audit(tmp_path, url, *pins)

    assert (found, told in printed) == (code, True), printed


def test_an_audit_that_gets_no_answer_is_no_audit(tmp_path: Path) -> None:
    code, printed = audit(tmp_path, f"http://127.0.0.1:{free_port()}/", "sound==1.0")

    assert code == 3
    assert "not audited, nothing is known" in printed
    assert "refused" in printed
