"""Entries for tests."""

from typing import Any

from contract.journal import Entry, Record


def event(**body: Any) -> Entry:
    return Entry("event", body)


def item(item_id: str, n: int) -> Entry:
    return Entry("item", {"item_id": item_id, "n": n})


def bodies(records: list[Record]) -> list[dict[str, Any]]:
    return [record.body for record in records]
