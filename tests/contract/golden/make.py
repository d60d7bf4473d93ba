"""Makes the golden bundle and the golden journal of the formats of today, once for each format:

    python -m tests.contract.golden.make

What is in the repository is never made again: it stands for what users have published. Four items
and two users, and towers of two operators, so that every answer can be told by hand.
"""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import orjson
from onnx import TensorProto, helper

from contract import manifest
from contract.attributes import Attributes, default_kinds, index_attributes
from contract.bundle import (
    GOLDEN,
    ITEM_TOWER,
    USER_TOWER,
    ids_arrays,
    texts_arrays,
    write_arrays,
    write_bundle,
)
from contract.features import Category, Fields, Number, Schema
from contract.ids import Ids, Texts
from contract.journal import Entry, open_journal
from contract.journal.sqlite import FORMAT
from contract.manifest import Dims, Index, Manifest
from contract.popularity import Popularity, popular_arrays

HERE = Path(__file__).parent
BUNDLE = HERE / f"format-{manifest.FORMAT}"
JOURNAL = HERE / f"journal-{FORMAT}.db"

OPSET, IR = 17, 8
SCHEMA = Schema(
    users=Fields(fields=(Category(kind="category", name="country", values=("NO", "IS")),)),
    items=Fields(
        fields=(
            Category(kind="category", name="genre", values=("drama", "comedy")),
            Number(kind="number", name="year", mean=2000.0, deviation=10.0),
        )
    ),
    history_length=3,
)
ITEMS: dict[str, dict[str, Any]] = {
    "a": {"genre": "drama", "year": 2000},
    "b": {"genre": "comedy", "year": 2010},
    "c": {"genre": "drama", "year": 1990},
    "d": {"genre": "comedy"},
}
USERS = {"u": {"country": "NO"}, "v": {}}
IDENTITY = np.array([[0.5, 0.5], [1, 0], [0, 1], [0.5, 0.5], [-1, 0]], np.float32)
"""Of the unknown item, then of each."""
UNAVAILABLE = 1


def tower(inputs: dict[str, list[Any]], nodes: list[Any], outputs: dict[str, list[Any]]) -> bytes:
    def values(shapes: dict[str, list[Any]]) -> list[Any]:
        kinds = {"codes": TensorProto.INT32}
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("quarter", TensorProto.FLOAT, [], [0.25]),
    ]
    used = {name for node in nodes for name in node.input}
    constants = [constant for constant in constants if constant.name in used]
    graph = helper.make_graph(nodes, "tower", values(inputs), values(outputs), constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="")
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def user_tower() -> bytes:
    """The sum of the history."""
    return tower(
        {"history": ["B", 3, 2], "mask": ["B", 3]},
        [
            helper.make_node("Unsqueeze", ["mask", "one"], ["row"]),
            helper.make_node("MatMul", ["row", "history"], ["user_vectors"]),
        ],
        {"user_vectors": ["B", 1, 2]},
    )


def item_tower() -> bytes:
    """The identity and a quarter of the numbers; an item is to a history what it is to a search."""
    return tower(
        {"identity": ["n", 2], "numbers": ["n", 2]},
        [
            helper.make_node("Mul", ["numbers", "quarter"], ["part"]),
            helper.make_node("Add", ["identity", "part"], ["item_vectors"]),
            helper.make_node("Identity", ["item_vectors"], ["history_vectors"]),
        ],
        {"item_vectors": ["n", 2], "history_vectors": ["n", 2]},
    )


def arrays(attributes: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    items = SCHEMA.items.encode(list(ITEMS.values()))
    users = SCHEMA.users.encode(list(USERS.values()))
    vectors = IDENTITY[1:] + np.float32(0.25) * items.numbers
    offsets, rows, times = np.array([0, 2, 3]), np.array([0, 2, 1], np.int32), np.arange(3) * 86_400
    given = [orjson.dumps(item).decode() for item in ITEMS.values()]
    return {
        "item_vectors": vectors,
        "history_vectors": vectors,
        "item_codes": items.codes,
        "item_numbers": items.numbers,
        "item_identity": IDENTITY,
        **ids_arrays("item_ids", Ids.of(list(ITEMS))),
        **texts_arrays("attributes", Texts.of(given)),
        "item_states": np.array([0, 0, 0, UNAVAILABLE], np.uint8),
        **attributes,
        "popularity": np.array([5, 9, 7, 1], np.float32),
        **popular_arrays(Popularity(), SCHEMA.users, users, (offsets, rows, times), len(ITEMS)),
        "user_codes": users.codes,
        "user_numbers": users.numbers,
        "user_identity": np.zeros((3, 0), np.float32),
        **ids_arrays("user_ids", Ids.of(list(USERS))),
        "user_items_offsets": offsets,
        "user_items_rows": rows,
        "user_items_flags": np.full(3, 3, np.uint8),
        "user_items_times": times,
    }


def described() -> tuple[Attributes, dict[str, npt.NDArray[Any]]]:
    kinds = default_kinds(SCHEMA.items)
    columns = {name: [item.get(name) for item in ITEMS.values()] for name in kinds}
    return index_attributes(kinds, columns, len(ITEMS))


def fill(directory: Path) -> Manifest:
    attributes, postings = described()
    write_arrays(directory, arrays(postings))
    (directory / USER_TOWER).write_bytes(user_tower())
    (directory / ITEM_TOWER).write_bytes(item_tower())
    golden = [{"user_id": "v", "rows": [[1, 2]], "scores": [[1.625, 1.0]]}]
    (directory / GOLDEN).write_bytes(orjson.dumps(golden))
    return Manifest(
        format=manifest.FORMAT,
        version=BUNDLE.name,
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
        model="by hand",
        recipe={},
        dims=Dims(
            items=4, users=2, dim=2, interests=1, history=2, item_identity=2, user_identity=0
        ),
        index=Index(backend="exact"),
        features=SCHEMA,
        attributes=attributes,
        files={},
        metrics={"HR@10": 1.0},
        gate=(),
    )


def main() -> None:
    write_bundle(BUNDLE, fill)
    # Beside it, for a journal leaves more files while it is open.
    made = JOURNAL.with_suffix(".making")
    with closing(open_journal(str(made))) as journal:
        year = {"genre": "comedy", "year": 2020}
        journal.append([Entry("item", {"item_id": "e", "features": year, "available": True})])
        journal.append([Entry("event", {"user_id": "w", "item_id": "e"})])
        journal.append([Entry("delete", {"item_id": "b"})])
    os.replace(made, JOURNAL)


if __name__ == "__main__":
    main()
