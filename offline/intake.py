"""The arrays of a bundle with what a journal holds taken in.

Rows keep their place, so histories stay as they are; new items and users come after them. An item
that was posted is embedded by the bundle's own tower, with its own identity or, where it is new,
the unknown one: as the service has done it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from contract.arrays import F32, I32, I64, U8
from contract.attributes import Attributes, index_attributes
from contract.bundle import Bundle, ItemState, ids_arrays, texts_arrays
from contract.changes import Changes, Event, Posted, fold
from contract.errors import FeatureError
from contract.features import Encoded
from contract.ids import UNKNOWN, Ids, Texts
from contract.journal import Journal, Record
from contract.kinds import HISTORY, SEEN
from contract.popularity import popular_arrays
from offline.data.dataset import Touched
from offline.towers import Towers, item_vectors

Arrays = dict[str, npt.NDArray[Any]]


class Intake(NamedTuple):
    arrays: Arrays
    attributes: Attributes
    changes: Changes
    refused: int
    """Posts left out, because the schema of the bundle cannot encode them."""


def take_in(bundle: Bundle, journal: Journal) -> Intake:
    """Everything that the journal holds and the bundle lacks. Raises JournalError as `fold` does.

    An event whose item nobody has posted makes a deleted item that the user has seen: when the item
    comes, it is not recommended to them.
    """
    encoder = _Encoder(bundle)
    changes = fold(journal, bundle.manifest.seq, encoder.takes)
    kinds, histories = bundle.manifest.events, bundle.manifest.features.histories
    flags = [kinds.flags(event.kind, histories) for event in changes.events]
    events = [(e, f) for e, f in zip(changes.events, flags, strict=True) if f]
    unknown = _unknown(bundle, changes.items, (event for event, _ in events))
    posts = changes.items | dict.fromkeys(unknown, Posted({}, True))
    items = _grown(bundle.item_ids, posts)
    users = _grown(bundle.user_ids, (event.user_id for event, _ in events))
    done = _Touches(
        users=np.array([users.row(event.user_id) for event, _ in events], np.int64),
        items=np.array([items.row(event.item_id) for event, _ in events], np.int32),
        flags=np.array([f if e.item_id not in unknown else SEEN for e, f in events], np.uint8),
        times=np.array([event.timestamp for event, _ in events], np.int64),
    )
    posted = _posted(bundle, items, posts)
    attributes, postings = _attributes(bundle, posted)
    arrays = {
        **bundle.arrays,
        **posted,
        **postings,
        **_of_users(bundle, users),
        **_touched(bundle, len(users), done),
        "item_states": _states(bundle, items, posts, encoder.hidden, changes.deleted | unknown),
        "popularity": _popularity(bundle, len(items), done),
    }
    return Intake(arrays | _popular(bundle, arrays), attributes, changes, encoder.refused)


class _Encoder:
    """Which records the schema of a bundle takes."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.refused = 0
        self.hidden = set[str]()
        """The items whose last post it does not take. As in the service, what is known of them from
        before is not what they are now, and is not recommended."""

    def takes(self, record: Record) -> bool:
        if record.kind not in ("item", "delete"):
            return True
        item_id = record.body["item_id"]
        self.hidden.discard(item_id)
        if record.kind == "delete" or self._encodes(item_id, record.body.get("features", {})):
            return True
        self.refused += 1
        self.hidden.add(item_id)
        return False

    def _encodes(self, item_id: str, features: Mapping[str, Any]) -> bool:
        try:
            self._bundle.encode_items([(item_id, features)])
        except FeatureError:
            return False
        return True


class _Touches(NamedTuple):
    """n events by row, oldest first, with their flags (see contract.kinds)."""

    users: I64
    items: I32
    flags: U8
    times: I64
    """Seconds since 1970."""


def _unknown(bundle: Bundle, posted: Mapping[str, Posted], events: Iterable[Event]) -> set[str]:
    named = {event.item_id for event in events} - posted.keys()
    return {item_id for item_id in named if bundle.item_ids.row(item_id) == UNKNOWN}


def _grown(ids: Ids, named: Iterable[str]) -> Ids:
    """The ids, and after them those among `named` that are new, in their order."""
    new = [one for one in dict.fromkeys(named) if ids.row(one) == UNKNOWN]
    return Ids.of([*ids.of_rows(range(len(ids))), *new]) if new else ids


def _posted(bundle: Bundle, items: Ids, posts: Mapping[str, Posted]) -> Arrays:
    count, added = len(items), len(items) - len(bundle.item_ids)
    identity = np.concatenate([bundle.item_identity, np.repeat(bundle.item_identity[:1], added, 0)])
    arrays: Arrays = {**ids_arrays("item_ids", items), "item_identity": identity}
    if not posts:
        return arrays
    rows = np.array([items.row(item_id) for item_id in posts], np.int64)
    features = [posted.features for posted in posts.values()]
    encoded = bundle.encode_items(list(zip(posts, features, strict=True)))
    vectors, history = item_vectors(Towers.open(bundle.path), identity[rows + 1], encoded)
    texts = dict(zip(rows.tolist(), (orjson.dumps(one).decode() for one in features), strict=True))
    return {
        **arrays,
        "item_vectors": _with(bundle.item_vectors, count, rows, vectors),
        "history_vectors": _with(bundle.history_vectors, count, rows, history),
        "item_codes": _with(bundle.items.codes, count, rows, encoded.codes),
        "item_numbers": _with(bundle.items.numbers, count, rows, encoded.numbers),
        **texts_arrays("attributes", _texts(bundle.attributes, count, texts)),
    }


def _attributes(bundle: Bundle, posted: Arrays) -> tuple[Attributes, Arrays]:
    """Of all items, out of their features as they are given."""
    arrays = {**bundle.arrays, **posted}
    texts = Texts(arrays["attributes_text"], arrays["attributes_offsets"])
    items = [orjson.loads(texts.raw(row)) for row in range(len(texts))]
    kinds = bundle.manifest.attributes.kinds
    columns = {name: [item.get(name) for item in items] for name in kinds}
    return index_attributes(kinds, columns, len(items))


def _states(
    bundle: Bundle,
    items: Ids,
    posts: Mapping[str, Posted],
    hidden: Iterable[str],
    gone: Iterable[str],
) -> U8:
    """Whoever is hidden or gone is so after the last post that was taken."""
    states = np.full(len(items), ItemState.AVAILABLE, np.uint8)
    states[: len(bundle.item_ids)] = bundle.item_states
    for item_id, posted in posts.items():
        state = ItemState.AVAILABLE if posted.available else ItemState.UNAVAILABLE
        states[items.row(item_id)] = state
    for ids, state in ((hidden, ItemState.UNAVAILABLE), (gone, ItemState.DELETED)):
        rows = [row for item_id in ids if (row := items.row(item_id)) != UNKNOWN]
        states[rows] = state
    return states


def _popularity(bundle: Bundle, items: int, done: _Touches) -> F32:
    counts = np.bincount(done.items[done.flags & HISTORY != 0], minlength=items).astype(np.float32)
    counts[: len(bundle.item_ids)] += bundle.popularity
    return counts


def _popular(bundle: Bundle, arrays: Arrays) -> Arrays:
    """Counted anew: what is older counts less than it did."""
    manifest = bundle.manifest
    touched = Touched(*(arrays[f"user_items_{p}"] for p in ("offsets", "rows", "flags", "times")))
    return popular_arrays(
        manifest.popularity,
        manifest.features.users,
        Encoded(arrays["user_codes"], arrays["user_numbers"]),
        touched.history()[:3],
        len(arrays["item_vectors"]),
    )


def _of_users(bundle: Bundle, users: Ids) -> Arrays:
    """A new user has the unknown identity and an empty profile, as a stranger has."""
    count, added = len(users), len(users) - len(bundle.user_ids)
    identity = bundle.user_identity
    return {
        **ids_arrays("user_ids", users),
        "user_identity": np.concatenate([identity, np.repeat(identity[:1], added, 0)]),
        "user_codes": _longer(bundle.users.codes, count),
        "user_numbers": _longer(bundle.users.numbers, count),
    }


def _touched(bundle: Bundle, users: int, done: _Touches) -> Arrays:
    """Each user's events come after what they had."""
    before = np.diff(bundle.arrays["user_items_offsets"])
    had = np.repeat(np.arange(len(before)), before)
    order = np.argsort(np.concatenate([had, done.users]), kind="stable")
    lengths = np.bincount(np.concatenate([had, done.users]), minlength=users)
    return {
        "user_items_offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "user_items_rows": np.concatenate([bundle.arrays["user_items_rows"], done.items])[order],
        "user_items_flags": np.concatenate([bundle.arrays["user_items_flags"], done.flags])[order],
        "user_items_times": np.concatenate([bundle.arrays["user_items_times"], done.times])[order],
    }


def _texts(texts: Texts, count: int, changed: Mapping[int, str]) -> Texts:
    """`count` texts: those that were there, but for the changed ones."""
    return Texts.of([changed[row] if row in changed else texts[row] for row in range(count)])


def _longer(array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The array (n, ..) with `count` rows, zeros where it ended."""
    longer = np.zeros((count, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _with(
    array: npt.NDArray[Any], count: int, rows: I64, values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The same with `values` at `rows`."""
    longer = _longer(array, count)
    longer[rows] = values
    return longer
