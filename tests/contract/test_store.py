import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import StoreError
from contract.store import KEPT_PREVIOUS, Channel, LocalStore, open_store
from tests.conftest import add_copy, live


@pytest.fixture
def versions(tmp_path: Path) -> LocalStore:
    """A store with bundles v1 to v4. Channels look no further than their names."""
    for n in range(1, 5):
        (tmp_path / "bundles" / f"v{n}").mkdir(parents=True)
    return LocalStore(tmp_path)


def test_an_empty_store_has_no_bundles_and_no_channels(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "nowhere")

    assert store.versions() == []
    assert store.channels() == {}
    assert store.channel("live") is None


def test_added_bundles_are_listed_oldest_first(store: LocalStore) -> None:
    first = live(store).name

    added = [add_copy(store), add_copy(store)]

    assert store.versions()[0] == first
    assert set(store.versions()) == {first, *added}
    assert store.channel("live") == Channel(version=first)
    assert store.bundle(added[1]) == store.root / "bundles" / added[1]


def test_what_is_still_being_written_is_not_listed(versions: LocalStore) -> None:
    (versions.root / "bundles" / ".staging-x").mkdir()

    assert versions.versions() == ["v1", "v2", "v3", "v4"]


@pytest.mark.parametrize(
    "stray", ["bundles/README.txt", "channels/._live.json", "channels/live (copy).json"]
)
def test_what_has_not_the_name_or_kind_of_its_place_is_ignored(
    versions: LocalStore, stray: str
) -> None:
    versions.point("live", "v1")
    (versions.root / stray).write_text("x")

    assert versions.versions() == ["v1", "v2", "v3", "v4"]
    assert versions.channels() == {"live": Channel(version="v1")}
    with pytest.raises(StoreError, match="the newest are v2, v3, v4"):
        versions.bundle("v9")


def test_a_channel_remembers_what_it_pointed_at(versions: LocalStore) -> None:
    versions.point("live", "v1")
    versions.point("live", "v2")
    versions.point("beta", "v4")

    assert versions.channels() == {
        "beta": Channel(version="v4"),
        "live": Channel(version="v2", previous=("v1",)),
    }
    written = json.loads((versions.root / "channels" / "live.json").read_text())
    assert written == {"version": "v2", "previous": ["v1"]}


def test_pointing_at_the_same_version_again_changes_nothing(versions: LocalStore) -> None:
    versions.point("live", "v1")
    versions.point("live", "v2")

    assert versions.point("live", "v2") == Channel(version="v2", previous=("v1",))
    assert versions.rollback("live").version == "v1"


def test_a_channel_keeps_only_so_many_previous_versions(versions: LocalStore) -> None:
    for n in range(KEPT_PREVIOUS + 10):
        channel = versions.point("live", f"v{1 + n % 2}")

    assert len(channel.previous) == KEPT_PREVIOUS
    assert channel.previous[-1] == "v1"


def test_rollback_goes_back_step_by_step_until_there_is_nothing(versions: LocalStore) -> None:
    for version in ("v1", "v2", "v3"):
        versions.point("live", version)

    assert versions.rollback("live") == Channel(version="v2", previous=("v1",))
    assert versions.rollback("live") == Channel(version="v1")
    with pytest.raises(StoreError, match=r"channel 'live' of .* has no version before v1"):
        versions.rollback("live")
    assert versions.channel("live") == Channel(version="v1")


def test_rollback_to_a_version_can_itself_be_rolled_back(versions: LocalStore) -> None:
    for version in ("v1", "v2", "v3"):
        versions.point("live", version)

    assert versions.rollback("live", to="v1").version == "v1"
    assert versions.rollback("live").version == "v3"


def test_rollback_of_a_channel_that_points_at_nothing_is_refused(versions: LocalStore) -> None:
    with pytest.raises(StoreError, match=r"channel 'live' of .* points at nothing yet"):
        versions.rollback("live", to="v1")


def test_an_unknown_version_is_refused_and_the_newest_are_named(versions: LocalStore) -> None:
    versions.point("live", "v1")

    with pytest.raises(StoreError, match="no bundle 'v9'; the newest are v2, v3, v4"):
        versions.point("live", "v9")
    with pytest.raises(StoreError, match="no bundle 'v9'"):
        versions.rollback("live", to="v9")
    assert versions.channel("live") == Channel(version="v1")


def test_rollback_to_a_bundle_that_was_deleted_changes_nothing(versions: LocalStore) -> None:
    versions.point("live", "v1")
    versions.point("live", "v2")
    (versions.root / "bundles" / "v1").rmdir()

    with pytest.raises(StoreError, match="no bundle 'v1'"):
        versions.rollback("live")
    assert versions.channel("live") == Channel(version="v2", previous=("v1",))


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a b", "x" * 101, "é"])
def test_names_that_are_no_plain_names_are_refused(versions: LocalStore, name: str) -> None:
    with pytest.raises(StoreError, match=r"^channel '.*': expected letters, digits"):
        versions.point(name, "v1")
    with pytest.raises(StoreError, match=r"^version '.*': expected letters, digits"):
        versions.point("live", name)
    assert versions.channels() == {}


@pytest.mark.parametrize("text", ["", "{", '{"version": 3}', '{"version": "v1", "extra": 1}'])
def test_a_damaged_channel_file_is_named(versions: LocalStore, text: str) -> None:
    versions.point("live", "v1")
    path = versions.root / "channels" / "live.json"
    path.write_text(text)

    with pytest.raises(StoreError, match=r"live\.json: not a channel file"):
        versions.channel("live")


def test_a_reader_never_sees_half_a_channel(versions: LocalStore) -> None:
    versions.point("live", "v1")
    seen: set[str] = set()

    def write(version: str) -> None:
        for _ in range(25):
            versions.point("live", version)

    writers = [threading.Thread(target=write, args=(f"v{n}",)) for n in range(1, 5)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        channel = versions.channel("live")
        assert channel is not None
        seen.add(channel.version)

    assert seen <= {"v1", "v2", "v3", "v4"}
    assert len(seen) > 1
    assert [p.name for p in (versions.root / "channels").iterdir()] == ["live.json"]


MOVES: dict[str, tuple[Callable[[LocalStore], Channel], Channel]] = {
    "point": (
        lambda store: store.point("live", "v4"),
        Channel(version="v3", previous=("v1", "v2", "v4")),
    ),
    "rollback": (lambda store: store.rollback("live"), Channel(version="v3", previous=("v1",))),
    "rollback to": (
        lambda store: store.rollback("live", to="v4"),
        Channel(version="v3", previous=("v1", "v2", "v4")),
    ),
    "retreat": (
        lambda store: store.retreat("live", "v1"),
        Channel(version="v3", previous=("v1",)),
    ),
}
"""A move -> where the channel is when it and then a publish of v3 are done."""


class Interrupted(LocalStore):
    """Another one points the channel at v3 as soon as this one has read it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.other = threading.Thread(target=LocalStore(root).point, args=("live", "v3"))

    def channel(self, name: str) -> Channel | None:
        found = super().channel(name)
        self.other.start()
        self.other.join(timeout=0.5)
        return found


@pytest.mark.parametrize("move", MOVES)
def test_no_move_undoes_one_that_came_between(versions: LocalStore, move: str) -> None:
    for version in ("v1", "v2"):
        versions.point("live", version)
    moved, expected = MOVES[move]
    store = Interrupted(versions.root)

    moved(store)
    store.other.join()

    assert versions.channel("live") == expected


def test_a_store_is_a_path_or_a_file_uri(tmp_path: Path) -> None:
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        store = open_store(uri)
        assert isinstance(store, LocalStore)
        assert store.root == tmp_path


def test_another_scheme_is_refused() -> None:
    with pytest.raises(StoreError, match="store 'gs://bucket/x': scheme 'gs' is not supported"):
        open_store("gs://bucket/x")
