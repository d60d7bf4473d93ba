"""`tandem bench serve --against`: a real service, as one who does not run it measures it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contract.store import LocalStore
from offline.local import free_port
from tandem import main
from tests.conftest import live
from tests.listening import Handler, listening
from tests.places import program
from tests.service.bundles import derive
from tests.service.server import Server

KEY = "a-key-of-reading"
QUANTILES, LOADS = ("p50", "p90", "p99", "p99.9"), ("10%", "30%", "50%", "70%", "90%")


@pytest.fixture(scope="module")
def service(published: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    store.point("live", derive(store, live(published), seq=0))
    state = tmp_path_factory.mktemp("state")
    with Server(store.root, state, read_key=KEY, open_writes=True) as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A server that answers whatever it is asked."""

    class Elsewhere(Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with listening(Elsewhere) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Of three users of four the model knows nothing."""
    path = tmp_path / "users.txt"
    path.write_text("u1\nnobody\nno/body\nÜ 1\n")
    return path


def measure(url: str, users: Path, *options: str) -> Result:
    given = ["--against", url, "--users", str(users), "--seconds", "1", *options]
    return CliRunner().invoke(main, ["bench", "serve", *given])


def test_a_service_is_measured_by_who_does_not_run_it(
    service: Server, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("wrk", "wrk")
    monkeypatch.setenv("TANDEM_READ_KEY", KEY)
    picture, file = tmp_path / "load.svg", tmp_path / "rows.json"

    result = measure(service.url, users, "--picture", str(picture), "--json", str(file), "--check")

    assert result.exit_code == 0, result.output
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    found = {what.removeprefix(f"{service.url}: "): row["measured"] for what, row in rows.items()}
    least, most = rows[f"{service.url}: recall"]["spread"]
    assert {row["bar"] for row in rows.values()} == {""}
    assert found["of 4 users, answered by the model"] == 0.25
    assert found["answers other than 2xx"] == 0
    assert found["answers other than 2xx at a fixed rate"] == 0
    assert 0 < least <= found["recall"] <= most
    for load in LOADS:
        latencies = [found[f"{name} at {load} load"] for name in QUANTILES]
        assert latencies == sorted(latencies)
        assert latencies[0] > 0
    assert f"{service.url}: latency over load" in picture.read_text()


def test_what_cannot_be_measured_is_told_in_one_line(
    service: Server, elsewhere: str, users: Path, tmp_path: Path
) -> None:
    free, empty, latin = free_port(), tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.touch()
    latin.write_bytes(b"\xdc 1\n")
    refused = {
        (f"http://127.0.0.1:{free}", users): f":{free}/readyz is not answered: [Errno 111]",
        ("localhost:8000", users): "localhost:8000/readyz is not answered: unknown url type",
        (elsewhere, users): "k=50 answers b'{}', expected recommendations; is Tandem there?",
        (f"{service.url}/v1", users): "/v1/readyz answers 401 instead of 200",
        (service.url, users): 'k=50 answers 401 instead of 200: {"error": {"code": "unauthorized"',
        (service.url, empty): "empty.txt is empty; expected an id of a user in each line",
        (service.url, tmp_path / "no.txt"): "no.txt: No such file or directory; expected an id",
        (
            service.url,
            latin,
        ): "can't decode byte 0xdc in position 0",
    }

    results = [measure(*given) for given in refused]

    for result, told in zip(results, refused.values(), strict=True):
        assert result.exit_code == 1, result.output
        assert told in result.output
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1


def test_it_needs_users() -> None:
    result = CliRunner().invoke(main, ["bench", "serve", "--against", "http://localhost:8000"])

    assert result.exit_code == 2
    assert "--against needs --users" in result.output
