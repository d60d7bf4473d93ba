import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.errors import DataError
from offline.data import movielens
from offline.data.movielens import download, read_movielens
from offline.data.tables import Tables, write_tables
from tests.places import shared_data

RATINGS = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
MOVIES = (
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "1193::Misérables, Les (1995)::Drama\n"
    "3::2001: A Space Odyssey::Sci-Fi\n"
)
USERS = "1::F::1::10::48067\n2::M::56::16::02460\n"


@pytest.fixture
def ml_100k() -> Path:
    return shared_data("ml-100k")


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text(RATINGS, "latin-1")
    (folder / "movies.dat").write_text(MOVIES, "latin-1")
    (folder / "users.dat").write_text(USERS, "latin-1")
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which its files are served."""
    root = tmp_path / "site"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def archive_of(folder: Path, *strangers: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        for path in folder.iterdir():
            files.write(path, f"{folder.name}/{path.name}")
        for stranger in strangers:
            files.writestr(stranger, "not wanted")
    return content.getvalue()


def test_ml_100k_is_read_whole(ml_100k: Path) -> None:
    tables = read_movielens("ml-100k", ml_100k)

    assert tables.items is not None
    assert tables.users is not None
    assert tables.interactions.height == 100_000
    assert tables.interactions["user_id"].n_unique() == 943
    assert tables.interactions["item_id"].n_unique() == 1682
    assert tables.interactions.row(0) == ("196", "242", 881250949, 3.0)
    assert tables.interactions["weight"].mean() == pytest.approx(3.52986)
    assert tables.items.height == 1682
    assert tables.items.row(0) == ("1", "Toy Story", 1995, ["Animation", "Children's", "Comedy"])
    assert tables.items.row(266) == ("267", "unknown", None, ["unknown"])
    assert tables.items["genres"].list.len().sum() == 2893
    assert tables.items.row(1411)[1:3] == (
        "Land Before Time III: The Time of the Great Giving",
        1995,
    )
    assert tables.users.height == 943
    assert tables.users.row(0) == ("1", "M", 24, "technician", "85711")


def test_the_parent_of_the_folder_reads_the_same(ml_100k: Path) -> None:
    inside = read_movielens("ml-100k", ml_100k)
    above = read_movielens("ml-100k", ml_100k.parent)

    assert above.interactions.equals(inside.interactions)


def test_ml_1m_in_its_original_layout(ml_1m: Path) -> None:
    tables = read_movielens("ml-1m", ml_1m)

    assert tables.items is not None
    assert tables.users is not None
    assert tables.interactions.to_dict(as_series=False) == {
        "user_id": ["1", "1", "2"],
        "item_id": ["1193", "661", "1193"],
        "timestamp": [978300760, 978302109, 978298413],
        "weight": [5.0, 3.0, 4.0],
    }
    assert tables.items.rows() == [
        ("661", "James and the Giant Peach", 1996, ["Animation", "Children's", "Musical"]),
        ("1193", "Misérables, Les", 1995, ["Drama"]),
        ("3", "2001: A Space Odyssey", None, ["Sci-Fi"]),
    ]
    assert tables.users.rows() == [("1", "F", 1, "10", "48067"), ("2", "M", 56, "16", "02460")]


def test_a_folder_in_the_layout_of_tandem_is_read_as_it_is(ml_1m: Path, tmp_path: Path) -> None:
    original = read_movielens("ml-1m", ml_1m)
    write_tables(Tables(original.interactions.drop("weight"), None, None), tmp_path / "own")

    tables = read_movielens("ml-1m", tmp_path / "own")

    assert tables.interactions.equals(original.interactions.drop("weight"))
    assert tables.items is None


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'ml-25m'; choose one of ml-1m, ml-100k"):
        read_movielens("ml-25m", tmp_path)


def test_a_folder_without_the_data_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither u\.data nor interactions\.parquet"):
        read_movielens("ml-100k", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ratings.dat", "1::1193::5::978300760\n1::661::3\n", r"ratings\.dat, row 2: timestamp"),
        ("ratings.dat", "1::2::five::978300760\n", r"ratings\.dat, row 1: weight has 'five'"),
        ("ratings.dat", "1::2::3::4::5\n", r"ratings\.dat: cannot be read"),
        ("movies.dat", MOVIES + "3::Solaris (1972)::Sci-Fi\n", r"movies\.dat, row 4: item_id '3'"),
        ("users.dat", "1::F::young::10::48067\n", r"users\.dat, row 1: age has 'young'"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    ml_1m: Path, file: str, content: str, message: str
) -> None:
    (ml_1m / file).write_text(content, "latin-1")

    with pytest.raises(DataError, match=message):
        read_movielens("ml-1m", ml_1m)


def test_a_missing_file_is_named(ml_1m: Path) -> None:
    (ml_1m / "movies.dat").unlink()

    with pytest.raises(DataError, match=r"movies\.dat: cannot be read"):
        read_movielens("ml-1m", ml_1m)


def test_download_unpacks_the_data_files_and_nothing_else(
    ml_1m: Path, site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = site
    archive = archive_of(ml_1m, "../outside.txt", "ml-1m/README")
    (root / "ml-1m.zip").write_bytes(archive)
    monkeypatch.setitem(movielens.MD5, "ml-1m", hashlib.md5(archive).hexdigest())
    steps: list[tuple[int, int | None]] = []

    folder = download(
        "ml-1m",
        tmp_path / "out",
        url=f"{address}/ml-1m.zip",
        progress=lambda done, total: steps.append((done, total)),
    )

    assert folder == tmp_path / "out" / "ml-1m"
    assert sorted(path.name for path in folder.iterdir()) == [
        "movies.dat",
        "ratings.dat",
        "users.dat",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ml-1m"]
    assert read_movielens("ml-1m", tmp_path / "out").interactions.height == 3
    assert steps[-1] == (len(archive), len(archive))


def test_download_refuses_another_checksum_with_both_and_writes_nothing(
    ml_1m: Path, site: tuple[Path, str], tmp_path: Path
) -> None:
    root, address = site
    archive = archive_of(ml_1m)
    (root / "ml-1m.zip").write_bytes(archive)

    with pytest.raises(DataError) as caught:
        download("ml-1m", tmp_path / "out", url=f"{address}/ml-1m.zip")

    assert hashlib.md5(archive).hexdigest() in str(caught.value)
    assert "c4d9eecfca2ab87c1945afe126590906" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_download_says_that_the_file_is_not_there(site: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched \(HTTP Error 404"):
        download("ml-1m", tmp_path, url=f"{site[1]}/ml-1m.zip")


def test_download_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: a connection is refused, and no one else can take the port.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/ml-100k.zip"

        with pytest.raises(DataError, match=r"cannot be fetched .*refused.*use --from DIR"):
            download("ml-100k", tmp_path, url=url)
