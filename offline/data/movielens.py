"""MovieLens-1M and MovieLens-100K in their original layouts, and their official archives.

The licence forbids redistribution, so the data come from where a user has put them or from
GroupLens.
"""

import hashlib
import http.client
import io
import os
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from contract.errors import DataError
from offline.data.tables import FORMATS, Tables, check_entities, check_interactions, read_tables

NAMES = ("ml-1m", "ml-100k")
URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
# As GroupLens publishes them, in {name}.zip.md5 beside each archive.
MD5 = {
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
}
# The first file is the one by which the layout is recognised.
FILES = {
    "ml-1m": ("ratings.dat", "movies.dat", "users.dat"),
    "ml-100k": ("u.data", "u.item", "u.user", "u.genre"),
}
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 16

RATINGS = ["user_id", "item_id", "weight", "timestamp"]


def read_movielens(name: str, directory: Path) -> Tables:
    """The data set `name`, one of NAMES, from its folder or the parent of it.

    Interactions are in file order with the rating as weight. Items have title (without its year),
    year (null if unknown) and genres (list of strings); users have gender, age, occupation and
    zip_code. A folder in Tandem's own layout is read as it is. Raises DataError.
    """
    _check_name(name)
    for folder in (directory, directory / name):
        if any((folder / f"interactions.{format_}").is_file() for format_ in FORMATS):
            return read_tables(folder)
        if (folder / FILES[name][0]).is_file():
            return READERS[name](folder)
    raise DataError(
        f"{directory}: found neither {FILES[name][0]} nor interactions.parquet, there or in "
        f"{name}/; give the folder of the unpacked {name}.zip"
    )


def download(
    name: str,
    directory: Path,
    *,
    url: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetches the official archive and returns the folder `directory/name` of its data files.

    `progress` is called with the bytes so far and the bytes in all, None if the server does not
    say. Raises DataError if the archive cannot be fetched or is not the official one.
    """
    _check_name(name)
    url = url or URL.format(name=name)
    archive = _fetch(url, progress)
    found = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise DataError(
            f"{url}: MD5 {found}, but GroupLens publishes {MD5[name]}; fetch it again, or unpack a "
            "good copy and use --from DIR"
        )
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    _unpack(archive, name, folder)
    return folder


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise DataError(f"no MovieLens data set {name!r}; choose one of {', '.join(NAMES)}")


def _fetch(url: str, progress: Callable[[int, int | None], None] | None) -> bytes:
    received = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            total = response.length
            while chunk := response.read(CHUNK_BYTES):
                received += chunk
                if progress:
                    progress(len(received), total)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url}: cannot be fetched ({error}); check the network, or unpack a copy of the "
            "archive and use --from DIR"
        ) from error
    return bytes(received)


def _unpack(archive: bytes, name: str, folder: Path) -> None:
    # Only files that are named here are taken out: no path of the archive is trusted.
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as files,
        tempfile.TemporaryDirectory(dir=folder) as scratch,
    ):
        for file in FILES[name]:
            os.replace(files.extract(f"{name}/{file}", scratch), folder / file)


def _read_ml_1m(folder: Path) -> Tables:
    ratings = _rows(folder / "ratings.dat", "::", RATINGS)
    movies = _rows(folder / "movies.dat", "::", ["item_id", "title", "genres"])
    users = _rows(
        folder / "users.dat", "::", ["user_id", "gender", "age", "occupation", "zip_code"]
    )
    items = movies.select("item_id", *_title_and_year(), pl.col("genres").str.split("|"))
    return _tables(folder, "ml-1m", ratings, items, users)


def _read_ml_100k(folder: Path) -> Tables:
    ratings = _rows(folder / "u.data", "\t", RATINGS)
    genres = _rows(folder / "u.genre", "|", ["genre", "number"])["genre"].to_list()
    movies = _rows(
        folder / "u.item",
        "|",
        ["item_id", "title", "released", "released_on_video", "imdb", *genres],
    )
    users = _rows(folder / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    flagged = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in genres]
    items = movies.select(
        "item_id", *_title_and_year(), pl.concat_list(flagged).list.drop_nulls().alias("genres")
    )
    return _tables(folder, "ml-100k", ratings, items, users)


READERS = {"ml-1m": _read_ml_1m, "ml-100k": _read_ml_100k}


def _tables(
    folder: Path, name: str, ratings: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame
) -> Tables:
    ratings_file, items_file, users_file = (folder / file for file in FILES[name][:3])
    ages = users["age"].cast(pl.Int64, strict=False)
    if ages.null_count():
        row = ages.is_null().arg_true()[0]
        raise DataError(
            f"{users_file}, row {row + 1}: age has {users['age'][row]!r}, expected an integer; "
            "unpack the archive again"
        )
    return Tables(
        check_interactions(ratings, ratings_file),
        check_entities(items, "item_id", items_file),
        check_entities(
            users.select("user_id", "gender", ages, "occupation", "zip_code"), "user_id", users_file
        ),
    )


def _rows(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """Every value as a string. The files are Latin-1 without a header or quotes."""
    try:
        # Polars takes one byte as separator, and no file of the two has a tab within a value.
        text = path.read_bytes().decode("latin-1").replace(separator, "\t")
        return pl.read_csv(
            text.encode(),
            separator="\t",
            quote_char=None,
            has_header=False,
            schema=dict.fromkeys(columns, pl.String),
        ).filter(pl.any_horizontal(pl.all().is_not_null()))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read ({reason}); unpack the archive again") from error


def _title_and_year() -> tuple[pl.Expr, pl.Expr]:
    title = pl.col("title").str.strip_chars()
    # "Toy Story (1995)"; a film that went straight to video has " (V)" after it.
    ending = r"\s*\((\d{4})\)(?: \(V\))?$"
    year = title.str.extract(ending).cast(pl.Int64)
    return title.str.replace(ending, "").alias("title"), year.alias("year")
