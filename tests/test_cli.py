"""The command line: what it prints, how it ends, and that its errors are one line."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

import tandem
from contract.bundle import open_bundle
from contract.journal import Entry, open_journal
from contract.manifest import read_manifest
from contract.store import LocalStore
from offline.data.dataset import Dataset
from offline.run import Run
from tests.conftest import add_copy, live
from tests.contract.test_bundle import edit_manifest
from tests.places import ROOT
from tests.service.bundles import derive
from tests.service.server import Server, wait_until

SMALL = (
    "training.epochs=1",
    "parameters.dim=8",
    "parameters.hidden=16",
    "parameters.history_dim=8",
)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(tandem.main, [str(a) for a in arguments])


def error_of(result: Result) -> str:
    """The one line of an error."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small"
    result = invoke(
        "data", "synthetic", "--out", path, "--users", 80, "--items", 60, "--interactions", 2000
    )
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize("verb", sorted(tandem.main.commands))
def test_every_verb_explains_itself(verb: str) -> None:
    result = invoke(verb, "--help")

    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 6


def test_the_overview_names_every_verb_and_a_way_to_begin() -> None:
    result = invoke("--help")

    assert all(f"  {verb} " in result.output for verb in tandem.main.commands)
    assert "tandem demo" in result.output


def test_data_train_publish_and_bundles_make_a_live_bundle(tables: Path, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    changes = [part for change in SMALL for part in ("--set", change)]

    trained = invoke("train", "recipes/demo.toml", "--data", tables, "--out", run, *changes)
    published = invoke("publish", run, "--to", store, "--backend", "exact")
    listed = invoke("bundles", "--store", store, "--json")

    assert trained.exit_code == 0, trained.output
    assert "epoch   1" in trained.output
    assert published.exit_code == 0, published.output
    (bundle,) = json.loads(listed.stdout)
    assert bundle["channels"] == ["live"]
    assert bundle["backend"] == "exact"
    assert bundle["items"] == 60
    assert bundle["version"] in published.output


def test_bundles_shows_the_gate_and_what_was_forced_past_it(
    store: LocalStore,
) -> None:
    forced = derive(store, live(store), forced=True)

    rows = {
        row["version"]: row
        for row in json.loads(invoke("bundles", "--store", store.root, "--json").stdout)
    }
    shown = invoke("bundles", "--store", store.root).stdout

    assert [row["forced"] for row in rows.values()] == [False, True]
    gate = {check["check"]: check for check in rows[forced]["gate"]}
    recall = gate["index recall@50 against exact"]
    assert (recall["wanted"], recall["found"], recall["passed"]) == (
        "at least 0.95",
        "1.0000",
        True,
    )
    (line,) = (line for line in shown.splitlines() if "forced" in line)
    assert forced in line
    assert max(map(len, shown.splitlines())) <= 130


def test_bundles_lists_what_it_can_read_and_names_what_it_cannot(store: LocalStore) -> None:
    sound = live(store).name
    newer, damaged = add_copy(store), add_copy(store)
    edit_manifest(store.bundle(newer), lambda document: document.update(format=99))
    edit_manifest(store.bundle(damaged), lambda document: document.pop("dims"))
    (store.root / "bundles" / "coming").mkdir()
    (store.root / "bundles" / "README.txt").write_text("x")

    listed = invoke("bundles", "--store", store.root, "--json")
    shown = invoke("bundles", "--store", store.root)

    rows = {row["version"]: row for row in json.loads(listed.stdout)}
    assert set(rows) == {sound, newer, damaged, "coming"}
    assert rows[sound]["items"] == 210
    assert rows[newer]["problem"].endswith("reads format 1; upgrade the service")
    assert "dims: Field required" in rows[damaged]["problem"]
    assert "coming/manifest.json: cannot be read" in rows["coming"]["problem"]
    assert (shown.exit_code, listed.exit_code) == (0, 0)
    assert all(version in shown.stdout for version in rows)


def test_evaluate_writes_figures_and_rankings(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    figures, ranked = tmp_path / "figures.json", tmp_path / "ranked.parquet"

    result = invoke(
        "evaluate", run.path, "--k", "10,50", "--backend", "exact", "--json", figures,
        "--ranked", ranked,
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    report = json.loads(figures.read_text())
    assert report["exact"]["HR@10"] == run.description.metrics["HR@10"]
    table = pl.read_parquet(ranked)
    assert set(table["user_id"]) == set(dataset.user_ids)
    assert set(table["ranked"].list.len()) <= set(range(1, 51))


def test_integer_ids_come_back_as_integers(tmp_path: Path) -> None:
    log = {"user_id": [u for u in range(30) for _ in range(5)], "timestamp": [0, 1, 2, 3, 4] * 30}
    items = [(u + 3 * n) % 20 for u in range(30) for n in range(5)]
    (tmp_path / "data").mkdir()
    pl.DataFrame(log | {"item_id": items}).write_parquet(tmp_path / "data" / "interactions.parquet")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "dssm"\n[training]\nepochs = 1\n')
    ranked = tmp_path / "ranked.parquet"

    invoke("train", recipe, "--data", tmp_path / "data", "--out", tmp_path / "run")
    result = invoke("evaluate", tmp_path / "run", "--backend", "exact", "--ranked", ranked)

    assert result.exit_code == 0, result.output
    table = pl.read_parquet(ranked)
    assert table.schema == {"user_id": pl.Int64, "ranked": pl.List(pl.Int64)}
    assert sorted(table["user_id"]) == list(range(30))
    assert sorted(table["ranked"][0]) == sorted(set(range(20)) - set(items[:4]))


def test_rollback_goes_back_to_the_bundle_before(store: LocalStore) -> None:
    first = store.versions()[0]
    copied = store.root / "bundles" / "copy"
    copied.symlink_to(store.bundle(first))
    store.point("live", "copy")

    result = invoke("rollback", "--store", store.root)

    assert result.exit_code == 0
    assert f"points at {first}" in result.stdout
    again = invoke("rollback", "--store", store.root)
    assert again.exit_code == 1
    assert "no version before" in error_of(again)


def test_doctor_lists_every_backend() -> None:
    found = {row["what"] for row in json.loads(invoke("doctor", "--json").stdout)}

    assert {"backend exact", "backend faiss_hnsw", "backend annoy", "torch", "cores"} <= found


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "recipes/none.toml", "--data", "x", "--out", "y"), "recipes/none.toml"),
        (("evaluate", "no-run"), "no-run: not a run"),
        (("publish", "no-run", "--to", "store"), "no-run: not a run"),
        (("rollback", "--store", "no-store"), "points at nothing"),
        (("bundles", "--store", "ftp://x"), "scheme 'ftp'"),
        (("data", "ml-100k", "--from", "nowhere", "--out", "z"), "nowhere"),
        (("serve", "--port", "70000"), "--port (TANDEM_PORT)"),
        (("serve", "--workers", "many"), "--workers (TANDEM_WORKERS)"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    arguments: tuple[str, ...], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `serve` hands its options to the workers through the environment.
    for name in ("TANDEM_PORT", "TANDEM_WORKERS"):
        monkeypatch.setenv(name, "1")

    result = invoke(*arguments)

    assert result.exit_code == 1
    assert error_of(result).startswith("Error: ")
    assert named in error_of(result)


def test_a_service_does_not_start_on_a_damaged_journal(
    published: LocalStore, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    with closing(open_journal(str(path))) as journal:
        journal.append([Entry("item", {"item_id": f"x{n}"}) for n in range(9)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET body = CAST(x'7bff7d' AS TEXT) WHERE seq = 4")
    server = Server(published.root, tmp_path)

    assert server.exit_code_of_start() == 1
    assert f"journal {path}: damaged (entry 4: " in server.log


def test_an_unknown_recipe_key_is_named_with_the_nearest(tables: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "recipes/demo.toml", "--data", tables, "--out", tmp_path / "run",
        "--set", "training.epoch=3",
    )  # fmt: skip

    assert result.exit_code == 1
    assert "'training.epoch'; did you mean 'epochs'?" in error_of(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("data", "netflix", "--out", "x"),
        ("evaluate", "run", "--k", "ten"),
        ("nothing",),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_missing_extra_is_one_line_with_the_pip_command() -> None:
    hide = "import sys; sys.modules['polars'] = None; import tandem; tandem.main()"

    result = subprocess.run(
        [sys.executable, "-c", hide, "data", "synthetic", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert "tandem data needs polars: pip install -c constraints.txt '.[offline]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_listing_and_serving_need_no_torch() -> None:
    loaded = "import sys, tandem, contract.store, service.server; print('torch' in sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False"


def test_export_and_compact_take_in_what_came_in_online(
    published: LocalStore, tmp_path: Path
) -> None:
    store, journal = LocalStore(tmp_path / "store"), tmp_path / "journal.db"
    version = derive(store, live(published), seq=0)
    store.point("live", version)
    opened = open_journal(str(journal))
    opened.append([Entry("item", {"item_id": "new"}), Entry("delete", {"item_id": "i1"})])
    opened.append([Entry("event", {"user_id": "u1", "item_id": "new"})])
    compacting = ("compact", "--store", store.root, "--journal", journal)

    exported = invoke("export", "--journal", journal, "--out", tmp_path / "out")
    waiting = invoke(*compacting, "--least", "4")
    done = invoke(*compacting, "--keep", "0", "--json")

    assert exported.output == (
        f"{tmp_path / 'out'}: 1 events, 1 items posted, 1 deleted; "
        "includes the journal up to seq 3\n"
    )
    assert waiting.output == "nothing to compact\n"
    found = json.loads(done.stdout)
    assert found == {
        "version": live(store).name,
        "parent": version,
        "seq": 3,
        "items": 1,
        "refused": 0,
        "deleted": 1,
        "events": 1,
        "trimmed": 3,
    }
    assert opened.read(0) == []
    opened.close()
    nowhere = invoke("export", "--journal", tmp_path / "no.db", "--out", tmp_path / "other")
    assert nowhere.exit_code == 1
    assert "there is none; give journal.db of the state directory" in error_of(nowhere)


def test_compact_goes_on_until_it_is_asked_to_stop(published: LocalStore, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.point("live", derive(store, live(published), seq=0))
    journal = open_journal(str(tmp_path / "journal.db"))
    journal.append([Entry("item", {"item_id": "new-0"})])
    where = ["--store", str(store.root), "--journal", str(tmp_path / "journal.db")]
    loop = subprocess.Popen(
        [sys.executable, "-m", "tandem", "compact", *where, "--every", "0.05"], cwd=ROOT
    )
    try:
        for n in range(1, 4):
            wait_until(lambda: _seq(store) == journal.last_seq(), "a round")
            journal.append([Entry("item", {"item_id": f"new-{n}"})])
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(60) == 0
    finally:
        loop.kill()
        loop.wait()
    journal.close()
    assert open_bundle(live(store)).manifest.dims.items >= 213


def _seq(store: LocalStore) -> int:
    """The journal position that the live bundle includes."""
    return read_manifest(live(store)).seq
