"""Items of very many tags in the overlay: they are as good as others, and cost these nothing."""

import tracemalloc

import numpy as np

from contract.attributes import Attributes
from service.columns import Columns
from service.conditions import AnyOf
from service.routes.parts import MAX_VALUES
from tests.service.server import Server
from tests.service.shop import path

FEW, MANY = 5000, 100_000
RECALL = "/v1/recommendations"


def of_tags(*slots: list[str]) -> Columns:
    columns = Columns(Attributes(kinds={"tags": "tags"}))
    for slot, tags in enumerate(slots):
        columns.put(slot, {"tags": tags})
    return columns


def having(columns: Columns, slots: int, *tags: str) -> list[int]:
    found: list[int] = np.flatnonzero(columns.meet([AnyOf("tags", tags)], slots)).tolist()
    return found


def test_an_item_of_very_many_tags_takes_no_more_than_its_tags() -> None:
    columns = of_tags(*([["few"]] * FEW))
    tags = [f"t{n}" for n in range(MANY)]

    tracemalloc.start()
    try:
        columns.put(FEW, {"tags": tags})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2**26
    assert having(columns, FEW + 1, tags[-1]) == [FEW]
    assert having(columns, FEW + 1, "few", tags[0]) == list(range(FEW + 1))


def test_an_item_has_the_tags_that_were_put_last_however_many_they_are() -> None:
    columns = of_tags(["a"], ["b"], [])
    puts = [["a", "b", "c"], ["c"], [f"c{n}" for n in range(500)], ["b"], [], ["a", "c"]]

    for tags in puts:
        columns.put(1, {"tags": tags})
        for tag in ("a", "b", "c", "c499"):
            wanted = [0] * (tag == "a") + [1] * (tag in tags)
            assert having(columns, 3, tag) == wanted


def test_lists_of_features_are_bounded(server: Server) -> None:
    tags = [f"t{n}" for n in range(MAX_VALUES)]
    most, more = {"features": {"tags": tags}}, {"features": {"tags": [*tags, "one more"]}}
    client = server.client

    for answer, where in (
        (client.post("/v1/items", json={"item_id": "many"} | more), "item 'many': "),
        (client.patch(path("i3"), json=more), "item 'i3': "),
        (client.post(RECALL, json=more), ""),
    ):
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["code"] == "malformed_request"
        assert error["message"] == f"{where}values of feature 'tags': at most 10000, found 10001"
    assert client.post("/v1/items", json={"item_id": "many"} | most).status_code == 201
    asked = {"filters": {"tags": tags[-1]}}
    assert [i["item_id"] for i in client.post(RECALL, json=asked).json()["items"]] == ["many"]
