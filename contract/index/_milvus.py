"""One collection of a Milvus server, one kind of error.

A path that ends in `.db` is a server too: milvus-lite, inside of this process. It lets no second
process in.
"""

import fcntl
import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.exceptions import ConnectionConfigException

from contract.arrays import F32, I64
from contract.errors import BackendError, ExtraMissing
from contract.index.base import Answer

# Seconds. A search holds up its worker, so it gives up soon.
CONNECTING, SEARCHING, WRITING, BUILDING = 2.0, 2.0, 10.0, 3600.0

BATCH_BYTES = 8 * 2**20
NOT_LOADED = 101
"""Code of the error of a collection that a restarted server has not loaded yet."""

LEFT = "tandem.left"
"""Property of a collection: since when no channel leads to it, seconds since the epoch."""

SERVER = "milvus-lite server --data-dir {} --host 127.0.0.1 --port 19530 --max-workers 1"


class Collection:
    """`row` is the key, an integer; `vector` is searched by inner product."""

    def __init__(self, uri: str, name: str) -> None:
        """Connects. Raises BackendError, and ExtraMissing where a file needs milvus-lite."""
        self.uri, self.name = uri, name
        self._client = _connect(uri)

    def create(self, vectors: F32, m: int, ef_construction: int) -> None:
        """With the keys 0 to N - 1; all or nothing."""
        try:
            with self._explained():
                self._create(vectors, m, ef_construction)
        except BaseException:
            self.drop()
            raise

    def _create(self, vectors: F32, m: int, ef_construction: int) -> None:
        count, dim = vectors.shape
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        self._client.create_collection(
            self.name, schema=schema, consistency_level="Strong", timeout=WRITING
        )
        size = max(1, BATCH_BYTES // (4 * dim))
        for start in range(0, count, size):
            batch = range(start, min(start + size, count))
            self._client.insert(self.name, _records(batch, vectors[start:]), timeout=BUILDING)
        self._client.flush(self.name, timeout=BUILDING)
        index = MilvusClient.prepare_index_params()
        index.add_index(
            "vector",
            index_type="HNSW",
            metric_type="IP",
            params={"M": m, "efConstruction": ef_construction},
        )
        self._client.create_index(self.name, index, timeout=BUILDING)
        self._client.load_collection(self.name, timeout=BUILDING)

    def exists(self) -> bool:
        with self._explained():
            return bool(self._client.has_collection(self.name, timeout=WRITING))

    def shape(self, rows: int) -> tuple[int, int]:
        """How many keys there are below `rows`, and the dimension of the vectors. Loads."""
        with self._explained():
            self._client.load_collection(self.name, timeout=BUILDING)
            found = self._client.query(
                self.name, f"row < {rows}", output_fields=["count(*)"], timeout=BUILDING
            )
            described = self._client.describe_collection(self.name, timeout=WRITING)
        fields = {field["name"]: field["params"] for field in described["fields"]}
        return int(found[0]["count(*)"]), int(fields["vector"]["dim"])

    def search(self, queries: F32, k: int, ef: int, condition: str) -> Answer:
        """Keys and inner products, descending, padded. It sees all that was written before."""
        with self._explained():
            try:
                hits = self._search(queries, k, ef, condition)
            except MilvusException as exc:
                if exc.code != NOT_LOADED:
                    raise
                self._client.load_collection(self.name, timeout=BUILDING)
                hits = self._search(queries, k, ef, condition)
        keys = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for query, found in enumerate(hits):
            keys[query, : len(found)] = found.ids
            scores[query, : len(found)] = found.distances
        return keys, scores

    def _search(self, queries: F32, k: int, ef: int, condition: str) -> Any:
        return self._client.search(
            self.name,
            list(queries),
            filter=condition,
            limit=k,
            output_fields=["row"],
            search_params={"metric_type": "IP", "params": {"ef": ef}},
            anns_field="vector",
            consistency_level="Strong",
            timeout=SEARCHING,
        )

    def upsert(self, keys: I64, vectors: F32) -> None:
        with self._explained():
            self._client.upsert(self.name, _records(keys.tolist(), vectors), timeout=WRITING)

    def delete(self, keys: I64) -> None:
        """Keys that are not there are no error."""
        with self._explained():
            self._client.delete(self.name, ids=keys.tolist(), timeout=WRITING)

    def alias(self, alias: str) -> None:
        """Let the name `alias` lead here, whatever it led to."""
        with self._explained():
            known = self._client.list_aliases(timeout=WRITING)["aliases"]
            change = self._client.alter_alias if alias in known else self._client.create_alias
            change(self.name, alias, timeout=WRITING)

    def left(self) -> float | None:
        """Since when no channel leads here."""
        with self._explained():
            described = self._client.describe_collection(self.name, timeout=WRITING)
        since = described["properties"].get(LEFT)
        return float(since) if since else None

    def leave(self, since: float | None) -> None:
        value = "" if since is None else str(since)
        with self._explained():
            self._client.alter_collection_properties(self.name, {LEFT: value}, timeout=WRITING)

    def drop(self) -> None:
        with self._explained():
            self._client.drop_collection(self.name, timeout=WRITING)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError) as exc:
            raise BackendError(
                f"Milvus at {self.uri}, collection {self.name}: {_cause(exc)}; look at the server, "
                "or tell where it is by TANDEM_MILVUS_URI"
            ) from exc


def is_file(uri: str) -> bool:
    return uri.endswith(".db")


def sharing(uri: str) -> str:
    """How several processes get at what is in a file."""
    return (
        f"run '{SERVER.format(uri)}' and set TANDEM_MILVUS_URI=http://127.0.0.1:19530 for all that "
        "use it"
    )


def _connect(uri: str) -> MilvusClient:
    # What fails is told once, by the error; pymilvus tells it first, with a traceback.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        token = os.environ.get("TANDEM_MILVUS_TOKEN", "")
        return MilvusClient(uri, token=token, timeout=CONNECTING)
    except ConnectionConfigException as exc:
        if not is_file(uri):
            raise BackendError(f"Milvus at {uri}: {_cause(exc)}; expected a URI or a path") from exc
        if importlib.util.find_spec("milvus_lite") is None:
            raise ExtraMissing(
                f"Milvus at {uri}: a file needs milvus-lite: pip install 'tandem-recall[milvus]'"
            ) from exc
        why = "another process has it open" if _locked(Path(uri)) else _cause(exc)
        raise BackendError(f"Milvus at {uri}: {why}; {sharing(uri)}") from exc
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as exc:
        raise BackendError(
            f"Milvus at {uri}: {_cause(exc)}; start it, or tell where it is by TANDEM_MILVUS_URI"
        ) from exc


def _locked(database: Path) -> bool:
    try:
        with (database / "LOCK").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _records(keys: Iterable[int], vectors: F32) -> list[dict[str, Any]]:
    """As many as there are keys."""
    return [{"row": key, "vector": vector} for key, vector in zip(keys, vectors, strict=False)]


def _cause(exc: Exception) -> str:
    """On one line, without gRPC's own account of the connection."""
    text = str(getattr(exc, "message", "") or exc) or type(exc).__name__
    return " ".join(text.partition(", channel_state=")[0].split())[:300]
