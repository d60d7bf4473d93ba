"""Who may do what, what every answer carries, and what neither an answer nor the log gives away."""

import asyncio
import json
import logging
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.errors import BundleError, Forbidden, SettingsError, Unauthorized
from contract.store import LocalStore
from service.access import REREAD_SECONDS, Access, Level, require_safe, required
from service.app import create_api
from service.front import Front
from service.logs import JsonLines
from service.metrics import Metrics
from service.outward import outward
from service.settings import Settings
from tests.documents import table
from tests.service.server import Server
from tests.service.test_api import EVENT, EVENTS, ITEM, ITEMS, RECALL, ROUTES, assert_error
from tests.service.test_settings import tandem

READ, WRITE, ADMIN, NEXT = (f"{name}-{'k' * 16}" for name in ("read", "write", "admin", "next"))
WRONG = (
    "",
    "Bearer",
    "Bearer " + "x" * 30,
    f"Basic {ADMIN}",
    ADMIN,
    f"Bearer {READ[:-1]}",
)
EXTRA = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "write").write_text(f"{WRITE}\n")
    subprocess.run(
        [
            *[
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ],
            *[
                "-days",
                "1",
                "-subj",
                "/CN=localhost",
                "-keyout",
                "key.pem",
                "-out",
                "certificate.pem",
            ],
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def guarded(
    shelf: LocalStore, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """All keys, TLS, every request logged."""
    options = {
        "read_key": READ,
        "write_key_file": files / "write",
        "admin_key": f"{ADMIN} {NEXT}",
        "tls_certificate": files / "certificate.pem",
        "tls_key": files / "key.pem",
        "access_log": "true",
    }
    server = Server(shelf.root, tmp_path_factory.mktemp("guarded"), channels="exact", **options)
    server.url = server.url.replace("http://", "https://")
    server.start()
    try:
        server.client.headers = httpx.Headers(bearer(READ))
        server.wait_ready()
        yield server
    finally:
        server.stop()


def test_every_route_needs_the_level_that_its_documentation_says() -> None:
    documented = table("docs/http-api.md", "route", "answers", "key")

    for route, _, key, _ in documented.rows:
        method, _, path = route.partition(" ")
        filled = re.sub(r"\{\w+\}", "some/id", path)
        assert required(method, filled).name.lower() == (key or "public"), route
    assert len(documented.rows) > len(ROUTES)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/recommendations/"),
        ("POST", "//v1/recommendations"),
        ("POST", "/v1/recommendations:batch/"),
        ("GRAB", "/v1/recommendations"),
        ("PUT", "/healthz"),
        ("OPTIONS", "/v1/items"),
        ("DELETE", "/healthz"),
    ],
)
def test_what_is_near_to_a_reading_route_needs_the_write_key(method: str, path: str) -> None:
    assert required(method, path) is Level.WRITE


def test_what_is_near_to_a_public_route_needs_the_read_key() -> None:
    paths = ("/healthz/", "//healthz", "/docs/", "/openapi.jsonl", "/", "/consolee", "/metrics")

    assert {required("GET", path) for path in paths} == {Level.READ}
    assert required("POST", "/v1/bundle/anything") is Level.ADMIN


def test_each_key_opens_its_level_and_those_below(guarded: Server) -> None:
    reading = guarded.client.get(f"{RECALL}/u1", headers=bearer(READ))
    also = guarded.client.post(RECALL, json={"k": 1}, headers=bearer(READ))
    batch = guarded.client.post(f"{RECALL}:batch", json={"requests": [{}]}, headers=bearer(READ))
    written = guarded.client.post(EVENTS, json=EVENT, headers=bearer(WRITE))
    read = guarded.client.get("/metrics", headers=bearer(WRITE))
    by_admin = guarded.client.post(EVENTS, json=EVENT, headers=bearer(ADMIN))
    reloads = [guarded.client.post("/v1/bundle/reload", headers=bearer(k)) for k in (ADMIN, NEXT)]

    statuses = [a.status_code for a in (reading, also, batch, written, read, by_admin, *reloads)]
    assert statuses == [200, 200, 200, 201, 200, 201, 200, 200]


def test_a_key_of_a_lower_level_is_refused_and_nothing_is_done(guarded: Server) -> None:
    before = len(guarded.journal())
    refusals = [
        (guarded.client.post(ITEMS, json=ITEM, headers=bearer(READ)), "write", "read"),
        (guarded.client.delete("/v1/items/i1", headers=bearer(READ)), "write", "read"),
        (guarded.client.post("/v1/bundle/rollback", headers=bearer(WRITE)), "admin", "write"),
    ]

    for answer, needed, found in refusals:
        message = assert_error(answer, 403, "forbidden")
        assert message == f"this needs the {needed} key, found the {found} key"
    assert len(guarded.journal()) == before


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_key_is_refused_everywhere_and_is_in_no_answer_and_no_log(
    guarded: Server, given: str
) -> None:
    for method, path in sorted(ROUTES):
        if required(method.upper(), path) is not Level.PUBLIC:
            answer = guarded.client.request(method, path, headers={"Authorization": given})
            message = assert_error(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert message == "the key is missing or unknown: 'Authorization: Bearer KEY'"
    assert [key for key in (READ, WRITE, ADMIN, NEXT, "x" * 30) if key in guarded.log] == []


def test_probes_and_pages_need_no_key(guarded: Server) -> None:
    with guarded.new_client() as anyone:
        paths = ("/healthz", "/readyz", "/console", "/docs")
        assert {anyone.get(path).status_code for path in paths} == {200}


def test_a_file_of_keys_is_read_again_when_it_changes(files: Path, tmp_path: Path) -> None:
    file = tmp_path / "write"
    file.write_text(WRITE)
    access = Access(Settings(write_key_file=str(file)))

    def opens(key: str, now: float) -> bool:
        try:
            access.check("POST", ITEMS, f"Bearer {key}".encode(), now)
        except Unauthorized:
            return False
        return True

    assert opens(WRITE, 10.0)
    file.write_text(f"{WRITE}\n{NEXT}\n")
    assert not opens(NEXT, 10.0 + 0.9 * REREAD_SECONDS)
    assert (opens(NEXT, 12.0), opens(WRITE, 12.0)) == (True, True)
    file.write_text(NEXT)
    assert (opens(NEXT, 14.0), opens(WRITE, 14.0)) == (True, False)
    # What is no key, or cannot be read, neither opens nor closes anything.
    for spoil in (lambda: file.write_text(" \n"), lambda: file.write_text("short"), file.unlink):
        spoil()
        assert (opens(NEXT, 20.0), opens(WRITE, 30.0), opens("short", 40.0)) == (True, False, False)


def test_without_keys_reading_and_writing_are_open_and_administration_is_off() -> None:
    access = Access(Settings())

    for method, path in (("GET", RECALL), ("POST", ITEMS), ("DELETE", "/v1/items/x")):
        access.check(method, path, b"Bearer whatever", 0.0)
    with pytest.raises(Forbidden, match=r"administration is off; .* TANDEM_ADMIN_KEY"):
        access.check("POST", "/v1/bundle/reload", b"", 0.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"host": "0.0.0.0"},
            "--host 0.0.0.0: whoever reaches it could write; set TANDEM_WRITE_KEY",
        ),
        ({"host": "::"}, "--host ::: whoever"),
        ({"host": "10.1.2.3", "admin_key": ADMIN}, "or say --open-writes true"),
        ({"host": "example.org", "read_key": READ}, "--host example.org: whoever"),
        ({"read_key": READ}, "--read-key: reading needs a key, and writing would need none"),
        ({"write_key": "short"}, "TANDEM_WRITE_KEY: key 1 of 1 has 5 characters; expected 16 to"),
        ({"admin_key": f"{ADMIN} hush"}, "TANDEM_ADMIN_KEY: key 2 of 2 has 4 characters"),
        ({"read_key": " "}, "TANDEM_READ_KEY: holds no key"),
        ({"read_key": ""}, "TANDEM_READ_KEY: holds no key"),
        ({"write_key": ""}, "TANDEM_WRITE_KEY: holds no key"),
        ({"admin_key": ""}, "TANDEM_ADMIN_KEY: holds no key"),
        ({"read_key": "geheimnisträger-sein"}, "TANDEM_READ_KEY: key 1 of 1"),
        ({"write_key_file": "/nowhere"}, "--write-key-file: /nowhere cannot be read (No such file"),
    ],
)
def test_settings_that_are_not_safe_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        require_safe(Settings(**options))

    assert named in str(caught.value)
    keys = [value for name, value in options.items() if name.endswith("_key") and value.strip()]
    assert [key for key in keys if key in str(caught.value)] == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "localhost"},
        {"host": "127.0.0.9"},
        {"host": "::1"},
        {"host": "0.0.0.0", "write_key": WRITE},
        {"host": "0.0.0.0", "open_writes": True},
        {"read_key": READ, "open_writes": True},
        {"host": "::", "read_key": READ, "write_key": WRITE},
    ],
)
def test_settings_that_are_safe_or_said_are_taken(options: dict[str, Any]) -> None:
    require_safe(Settings(**options))


def test_serve_refuses_what_is_not_safe_in_one_line(shelf: LocalStore, files: Path) -> None:
    refused = [
        (["--host=0.0.0.0"], "--host 0.0.0.0: whoever reaches it could write"),
        ([f"--tls-key={files / 'key.pem'}"], "--tls-certificate and --tls-key: only one is given"),
        (
            [f"--tls-key={files / 'write'}", f"--tls-certificate={files / 'certificate.pem'}"],
            "not a certificate with its key",
        ),
    ]
    for flags, words in refused:
        done = tandem("serve", f"--store={shelf.root}", *flags)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr


def test_every_answer_carries_the_headers_and_a_request_id(guarded: Server) -> None:
    answers = [
        guarded.client.get(f"{RECALL}/u1"),
        guarded.client.get("/v1/items/unknown"),
        guarded.client.get("/no/such/route"),
        guarded.client.post(ITEMS, json=ITEM),
        guarded.client.get("/metrics"),
        guarded.client.get("/console"),
    ]

    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    for answer in answers:
        assert answer.headers.items() >= EXTRA.items()
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    assert "script-src" not in answers[0].headers["content-security-policy"]
    assert "script-src 'sha256-" in answers[-1].headers["content-security-policy"]


def test_a_request_id_that_is_given_is_kept_unless_it_could_mislead(metrics: Metrics) -> None:
    front = Front(create_api(Settings(), metrics), Settings(), metrics, "0")

    def answered(given: bytes) -> str:
        answer = get(front, "/healthz", headers={b"X-Request-ID": given})
        return str(answer.headers["x-request-id"])

    for kept in (b"a", b"0af7651916cd43dd8448eb211c80319c", b"A.b_c-" + b"9" * 58):
        assert answered(kept) == kept.decode()
    for other in (b"", b"a b", b"x" * 65, b'a"}', b"\xc3\xa9", b"a\tb", b"a\n", b"\x1b[31m"):
        assert re.fullmatch(r"[0-9a-f]{12}-\d+", answered(other)), other


def test_every_line_of_the_log_is_one_object_and_tells_of_no_user(guarded: Server) -> None:
    asked = guarded.client.get(f"{RECALL}/someone", headers={"X-Request-ID": "the-one"})

    lines = [json.loads(line) for line in guarded.log.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "the-one"]
    assert asked.status_code == 200
    assert line["message"] == "answered"
    assert (line["method"], line["status"]) == ("GET", 200)
    assert line["route"] == "/v1/recommendations/{user_id}"
    assert 0 < line["milliseconds"] < 60_000
    assert "someone" not in guarded.log


@pytest.mark.parametrize(
    "evil", ["\n", "\r\n", "\x1b[2J", "\u2028", "\x85", "\x00", "\x7f", "\ud800"]
)
def test_nothing_that_is_logged_begins_a_line_or_steers_a_terminal(evil: str) -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "GET %s", (f"a{evil}b",), None)

    line = JsonLines().format(record)

    assert re.fullmatch(r"[ -~]+", line)
    assert json.loads(line)["message"] == f"GET a{evil}b"


def test_what_lies_where_is_told_to_operators_alone(tmp_path: Path) -> None:
    told = outward(Settings(store=f"{tmp_path}/a/store", state=f"{tmp_path}/a"))

    assert (
        told(f"{tmp_path}/a/store/bundles/v1/x.npy: missing") == "store/bundles/v1/x.npy: missing"
    )
    assert told(f"journal {tmp_path}/a/journal.db: full") == "journal state/journal.db: full"
    assert told("[Errno 2] No such file: '/usr/lib/x/y.so'") == "[Errno 2] No such file: 'y.so'"
    assert told("http://host:19530/a/b: 3/4 of it") == "http://host:19530/a/b: 3/4 of it"


def test_an_answer_names_no_directory(metrics: Metrics, tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store"))
    api = create_api(settings, metrics)

    async def fail() -> Any:
        raise BundleError(f"{tmp_path}/store/bundles/v1/golden.json: not a plain file")

    api.add_api_route("/fail", fail)
    message = get(Front(api, settings, metrics, "0"), "/fail").json()["error"]["message"]

    assert message == "store/bundles/v1/golden.json: not a plain file"


def test_a_method_that_is_none_gets_no_series_of_its_own(metrics: Metrics) -> None:
    front = Front(create_api(Settings(), metrics), Settings(), metrics, "0")

    for method in ("GRAB", "SEIZE"):
        assert get(front, "/healthz", method).status_code == 405
    found = {s.labels["method"] for m in metrics.requests.collect() for s in m.samples}

    assert found == {"other"}


def get(
    front: Front, path: str, method: str = "GET", headers: Mapping[bytes, bytes] | None = None
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())
