"""Options of the service: where they come from, what is refused, what is derived from them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import SettingsError
from contract.store import LocalStore
from service.settings import Settings, options, read_settings
from service.split import Split
from tests.places import ROOT
from tests.service.server import KEY, Server


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TANDEM_{name.upper()}", raising=False)


def tandem(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tandem", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_without_anything_the_defaults_hold() -> None:
    settings = read_settings()

    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.store, str(settings.channels), settings.admin_key) == ("store", "live", None)
    assert settings == Settings.model_construct(
        **{name: field.default for name, field in Settings.model_fields.items()}
    )


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("store", "/data/store", "/data/store"),
        ("channels", "canary", Split((("canary", 1),))),
        ("port", "8123", 8123),
        ("workers", "3", 3),
        ("watch_seconds", "0.5", 0.5),
        ("max_k", "10", 10),
        ("max_body", "1024", 1024),
    ],
)
def test_every_option_is_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, found: object
) -> None:
    monkeypatch.setenv(f"TANDEM_{name.upper()}", value)

    assert getattr(read_settings(), name) == found


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("port", "0", "greater than or equal to 1"),
        ("port", "65536", "less than or equal to 65535"),
        ("port", "http", "valid integer"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "1.5", "valid integer"),
        ("watch_seconds", "0", "greater than 0"),
        ("watch_seconds", "nan", "less than or equal to 3600"),
        ("max_k", "10001", "less than or equal to 10000"),
        ("max_history", "0", "greater than or equal to 1"),
        ("max_body", "1023", "greater than or equal to 1024"),
        ("max_admitted", "0", "greater than or equal to 1"),
        ("cache_entries", "-1", "greater than or equal to 0"),
        ("channels", "", "channel '': expected letters"),
        ("channels", "live:9,", "channel '': expected letters"),
        ("channels", "live:9,challenger:", "channel 'challenger' has weight ''"),
        ("channels", "live:9,challenger:-1", "channel 'challenger' has weight '-1'"),
        ("channels", "live:0.9", "has weight '0.9': expected a whole number up to 1,000,000"),
        ("channels", "live:1000001", "expected a whole number up to 1,000,000"),
        ("channels", "live,live:2", "channel 'live' stands twice"),
        ("channels", "live:0,next:1", "the main channel 'live' needs a weight of at least 1"),
        ("channels", "../live", "channel '../live': expected letters"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_option_bound_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, wanted: str
) -> None:
    monkeypatch.setenv(f"TANDEM_{name.upper()}", value)

    with pytest.raises(SettingsError) as caught:
        read_settings()

    message = str(caught.value)
    flag = name.replace("_", "-")
    assert message.startswith(f"--{flag} (TANDEM_{name.upper()}): ")
    assert wanted in message
    assert message.endswith(f"found '{value}'")
    assert "\n" not in message


def test_the_state_lies_beside_the_store_unless_it_is_named(tmp_path: Path) -> None:
    def found(store: str, state: str | None = None) -> Path:
        return Settings(store=store, state=state).state_directory()

    assert found(f"{tmp_path}/store") == tmp_path / "state"
    assert found(f"file://{tmp_path}/store") == tmp_path / "state"
    assert found("store") == Path.cwd() / "state"
    assert found("store", f"{tmp_path}/own") == tmp_path / "own"


def test_two_services_with_one_state_have_runtime_directories_of_their_own() -> None:
    first, second = (Settings(state="/s", port=port).runtime_directory() for port in (1, 2))

    assert first != second
    assert first.parent == second.parent == Path("/s")


def test_the_admin_key_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_ADMIN_KEY", "hush-hush")

    settings = read_settings()

    assert settings.admin_key
    assert settings.admin_key.get_secret_value() == "hush-hush"
    assert "hush-hush" not in f"{settings!r} {settings.model_dump_json()}"


def test_the_help_of_serve_shows_every_option_with_its_default() -> None:
    shown = " ".join(tandem("serve", "--help").stdout.split())

    assert len(options()) == len(Settings.model_fields)
    for option in options():
        default = Settings.model_fields[option.name].default
        start = shown.index(f"{option.flag} {option.type_name} ")
        assert " ".join(option.help.split()) in shown[start:]
        assert default is None or f"[default: {default}]" in option.help


def test_an_unknown_flag_is_wrong_use() -> None:
    done = tandem("serve", "--stor", "x")

    assert done.returncode == 2
    assert "--stor" in done.stderr


def test_flags_go_before_the_environment(
    shelf: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_CHANNELS", "live")
    monkeypatch.setenv("TANDEM_MAX_K", "7")

    with Server(shelf.root, tmp_path, channels="rolled", workers=2) as server:
        channel = shelf.channel("rolled")
        with server.client_of_each_worker() as clients:
            for client in clients.values():
                known = client.get("/v1/bundle").json()
                assert channel
                assert (known["channel"], known["version"]) == ("rolled", channel.version)
                answer = client.get("/v1/recommendations/u1", params={"k": 8})
                assert "at most 7 (max_k)" in answer.json()["error"]["message"]
                refused = client.post(
                    "/v1/bundle/rollback", headers={"Authorization": f"Bearer {KEY}"}
                )
                assert refused.status_code == 409


def test_a_port_in_use_is_told_in_one_line(shelf: LocalStore, tmp_path: Path) -> None:
    with Server(shelf.root, tmp_path, channels="exact") as server:
        done = tandem("serve", f"--store={shelf.root}", f"--port={server.port}", "--host=127.0.0.1")

    assert done.returncode == 1
    assert f"--port {server.port}: cannot listen" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert os.environ.get("TANDEM_PORT") is None
