"""Blended lists in the engine, against the plain reference: sources, caps, places, reasons."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.bundle import Bundle
from contract.journal import Record
from service.answer import Answer, Explained
from service.blend import POOL
from service.engine import recall
from service.request import Blend, Recall, SourceName
from service.snapshot import Snapshot
from service.sources import RECENT, SOURCES
from service.state import State
from tests.service.reference import TOLERANCE, Reference, assert_best

NEW = [f"new-{n}" for n in range(8)]
GONE = ("i0", "i5", "new-0")
"""Deleted after all else."""


class World:
    """A state and the reference, written to alike: new items, replaced ones, hidden, deleted."""

    def __init__(self, snapshot: Snapshot, bundle: Bundle) -> None:
        self.state, self.reference = State.of(snapshot, 1000, 1), Reference(bundle)
        self._seq = 0
        for n, item_id in enumerate(NEW):
            self.post(item_id, self.reference.features[f"i{10 * n}"])
        self.post("i7", self.reference.features["i8"])
        self.post("i9", self.reference.features["i9"], available=False)
        for item_id in GONE:
            self._write("delete", {"item_id": item_id})
            self.reference.delete(item_id)

    def post(self, item_id: str, features: dict[str, Any], available: bool = True) -> None:
        body = {"item_id": item_id, "features": features, "available": available}
        self._write("item", body)
        self.reference.post(item_id, features, available)

    def _write(self, kind: Any, body: dict[str, Any]) -> None:
        self._seq += 1
        self.state.apply([Record(self._seq, 0.0, kind, body)])

    def ask(self, k: int, user_id: str | None = "u1", **blend: Any) -> Answer:
        return recall(self.state, Recall(k, user_id, blend=Blend(**blend)))

    def categories(self, answer: Answer) -> Counter[str]:
        return Counter(self.reference.features[i]["category"] for i in ids(answer))

    def alike(self, answer: Answer) -> float:
        """The mean cosine of two items of the list."""
        state = self.state
        rows = np.array([state.overlay.row(item_id) for item_id in ids(answer)])
        vectors = state.overlay.item_vectors(rows)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float((unit @ unit.T)[np.triu_indices(len(rows), 1)].mean())


@pytest.fixture(scope="session")
def shop(snapshot: Snapshot, bundle: Bundle) -> World:
    """Only read."""
    return World(snapshot, bundle)


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def as_body(answer: Answer) -> dict[str, Any]:
    return {"items": [{"item_id": i.item_id, "score": i.score} for i in answer.items]}


def ranking(scores: dict[str, float], eligible: Sequence[str]) -> list[str]:
    return sorted(eligible, key=lambda item_id: -scores[item_id])


def test_one_source_gives_what_the_reference_does(shop: World) -> None:
    reference = shop.reference
    eligible = reference.eligible("u1")
    recent = [reference.similarities(item_id) for item_id in reference.seen("u1")[-RECENT:]]
    likeness = {i: max(of.get(i, -np.inf) for of in recent) for i in eligible}

    assert_best(as_body(shop.ask(20)), reference.scores("u1"), eligible, 20)
    assert_best(as_body(shop.ask(20, sources={"similar": 2.0})), likeness, eligible, 20)
    assert_best(as_body(shop.ask(300, sources={"popular": 1.0})), reference.shares(), eligible, 300)
    new = [i for i in reversed(NEW) if i in eligible]
    assert ids(shop.ask(len(new), sources={"new": 1.0})) == new


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        ({"model": 1.0}, "model"),
        ({"similar": 1.0}, "model"),
        ({"new": 1.0}, "fallback"),
        ({"popular": 1.0, "new": 1.0}, "fallback"),
        ({"popular": 1.0, "model": 0.1}, "model"),
    ],
)
def test_an_answer_that_knows_nothing_of_the_asker_is_a_fallback(
    shop: World, sources: dict[SourceName, float], source: str
) -> None:
    assert shop.ask(10, sources=sources).source == source
    assert shop.ask(10, None, sources=sources).source == "fallback"
    assert len(shop.ask(10, None, sources=sources).items) == 10


def test_several_sources_are_fused_by_rank_and_each_item_names_its_own(shop: World) -> None:
    weights: dict[SourceName, float] = {"model": 1.0, "popular": 0.2}
    lists = {
        "model": ids(shop.ask(30)),
        "popular": ids(shop.ask(30, sources={"popular": 1.0})),
    }
    wanted: dict[str, float] = {}
    for name, weight in weights.items():
        for rank, item_id in enumerate(lists[name], start=1):
            wanted[item_id] = wanted.get(item_id, 0.0) + weight / (60 + rank)

    answer = shop.ask(30, sources=weights, explain=True)

    found = {item.item_id: item.score for item in answer.items}
    best = sorted(wanted.values(), reverse=True)[:30]
    assert list(found.values()) == pytest.approx(best)
    assert found == pytest.approx({item_id: wanted[item_id] for item_id in found})
    for item in answer.items:
        assert isinstance(item, Explained)
        its = [name for name in lists if item.item_id in lists[name]]
        assert item.recalled_by == its == list(item.explain.sources)
        for name, place in item.explain.sources.items():
            assert place.rank == lists[name].index(item.item_id) + 1


def test_sources_that_give_too_few_are_filled_up_by_popularity(shop: World) -> None:
    eligible = shop.reference.eligible("u1")

    answer = shop.ask(300, sources={"new": 1.0, "similar": 1.0})
    few = shop.ask(30, sources={"new": 1.0}, explain=True)

    assert sorted(ids(answer)) == sorted(eligible)
    new = [i for i in reversed(NEW) if i in eligible]
    assert ids(few)[: len(new)] == new
    rest = [i for i in ids(shop.ask(30, sources={"popular": 1.0})) if i not in new]
    assert ids(few)[len(new) :] == rest[: 30 - len(new)]
    assert {item.score for item in few.items} == {0.0}


def test_ranks_and_scores_go_on_where_a_cap_has_several_looks_taken(shop: World) -> None:
    weights: dict[SourceName, float] = {"model": 1.0, "similar": 0.5}

    answer = shop.ask(6, sources=weights, max_per_category=1, explain=True)

    items = [item for item in answer.items if isinstance(item, Explained)]
    places = [item.explain.sources for item in items]
    assert len(items) == 6
    # More than a first look has seen.
    assert max(place.rank for found in places for place in found.values()) > 6 * POOL
    wanted = [sum(weights[n] / (60 + p.rank) for n, p in found.items()) for found in places]
    assert [item.score for item in items] == pytest.approx(wanted)


blends = st.builds(
    Blend,
    sources=st.dictionaries(
        st.sampled_from(tuple(SOURCES)), st.sampled_from((0.1, 1.0)), min_size=1
    ),
    diversity=st.sampled_from((0.0, 0.3, 1.0)),
    category_diversity=st.sampled_from((0.0, 0.2)),
    max_per_category=st.sampled_from((None, 1, 3, 40)),
    explore=st.sampled_from((0.0, 0.3, 1.0)),
    explore_from=st.sampled_from(("pool", "new")),
    explain=st.booleans(),
)


@settings(max_examples=120, deadline=None)
@given(
    blend=blends,
    k=st.integers(1, 230),
    user_id=st.sampled_from((None, "nobody", "u0", "u1")),
    history=st.none() | st.just(["i3", "i7", "new-2"]),
    category=st.sampled_from((None, "space opera")),
    exclude=st.sampled_from(([], ["i1", "i2", "new-3"], [f"i{n}" for n in range(150)])),
)
def test_any_blend_gives_as_many_eligible_items_as_the_cap_allows_and_keeps_to_it(
    shop: World,
    blend: Blend,
    k: int,
    user_id: str | None,
    history: list[str] | None,
    category: str | None,
    exclude: list[str],
) -> None:
    request = Recall(k, user_id, history, exclude=exclude, category=category, blend=blend)

    answer = recall(shop.state, request)

    found = ids(answer)
    eligible = shop.reference.eligible(user_id, history or (), exclude, category)
    assert len(set(found)) == len(found)
    assert set(found) <= set(eligible)
    available = Counter(shop.reference.features[i].get("category") for i in eligible)
    most = blend.max_per_category or len(eligible)
    assert len(found) == min(k, sum(min(count, most) for count in available.values()))
    assert max(shop.categories(answer).values(), default=0) <= most
    assert ids(recall(shop.state, request)) == found


def test_diversity_lowers_the_likeness_of_a_list_and_raises_its_categories(shop: World) -> None:
    plain, some, more = (shop.ask(20, "u0", diversity=d) for d in (0.0, 0.7, 1.0))
    spread = shop.ask(20, "u0", category_diversity=0.3)

    assert shop.alike(plain) > shop.alike(some) + 0.01 > shop.alike(more) + 0.1
    assert len(shop.categories(more)) > len(shop.categories(plain))
    assert max(shop.categories(spread).values()) < max(shop.categories(plain).values())
    assert ids(plain) == ids(recall(shop.state, Recall(20, "u0")))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_of_the_places_is_reserved_for_new_items(shop: World, share: float) -> None:
    eligible = shop.reference.eligible("u1")
    new = [item_id for item_id in NEW if item_id in eligible]
    plain = [i for i in ids(shop.ask(20)) if i not in new]
    chosen = 20 - round(share * 20)
    best = ids(shop.ask(20))[:chosen]

    answer = shop.ask(20, explore=share, explore_from="new", explain=True)

    found = ids(answer)
    drawn = [i for i in found[chosen:] if i in new]
    assert found[:chosen] == best
    assert len(drawn) == min(20 - chosen, len(set(new) - set(best)))
    assert (
        found[chosen + len(drawn) :]
        == [i for i in plain if i not in best][: 20 - chosen - len(drawn)]
    )
    explored = [i.item_id for i in answer.items if isinstance(i, Explained) and i.explain.explored]
    assert explored == drawn


def test_what_is_drawn_comes_from_behind_the_best_and_follows_the_seed(shop: World) -> None:
    best = ids(shop.ask(80))

    answers = [ids(shop.ask(20, explore=0.25, seed=seed)) for seed in (1, 2, 3, 1)]

    assert answers[0] == answers[3]
    assert len({tuple(answer) for answer in answers}) == 3
    for answer in answers:
        assert answer[:15] == best[:15]
        assert set(answer[15:]) <= set(best[15:])
    assert ids(shop.ask(20, explore=0.25, temperature=1e-9)) == best[:20]


def test_an_explanation_says_what_the_filters_removed(shop: World) -> None:
    reference = shop.reference
    # The neighbours of all, with the rows of the bundle that were deleted or replaced.
    scores = reference.scores("u1")
    before = Reference(reference.bundle)
    rows = [(score, item_id) for item_id, score in scores.items() if item_id in (*NEW, "i7", "i9")]
    rows += [(score, item_id) for item_id, score in before.scores("u1").items()]
    first = sorted(rows, reverse=True)[:60]
    exclude = [i for _, i in first[20:30]]
    category = reference.features[first[0][1]]["category"]
    seen = set(reference.seen("u1"))

    def reason(score: float, item_id: str) -> str:
        replaced = item_id == "i7" and score != pytest.approx(scores["i7"], abs=TOLERANCE)
        if replaced or item_id in (*GONE, "i9"):
            return "gone"
        if item_id in seen:
            return "seen"
        if item_id in exclude:
            return "excluded"
        return "kept" if reference.features[item_id]["category"] == category else "category"

    answer = recall(
        shop.state, Recall(60, "u1", exclude=exclude, category=category, blend=Blend(explain=True))
    )

    assert answer.explain
    counted = Counter(reason(score, item_id) for score, item_id in first)
    removed = answer.explain.removed
    found = {name: getattr(removed, name) for name in ("gone", "seen", "excluded", "category")}
    assert found == {name: counted[name] for name in found}
    assert all(found.values())
    assert answer.explain.candidates == len(answer.items)


def test_an_explanation_gives_the_parts_of_the_worth_of_an_item(shop: World) -> None:
    state = shop.state

    answer = shop.ask(15, diversity=0.5, category_diversity=0.1, explain=True)

    rows = np.array([state.overlay.row(item_id) for item_id in ids(answer)])
    vectors = state.overlay.item_vectors(rows)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    categories = [shop.reference.features[i]["category"] for i in ids(answer)]
    for place, item in enumerate(answer.items):
        assert isinstance(item, Explained)
        closest = max((unit[:place] @ unit[place]).tolist(), default=0.0)
        assert item.explain.similarity == pytest.approx(closest, abs=TOLERANCE)
        assert item.explain.others == sum(c != categories[place] for c in categories[:place])
        assert 0 <= item.explain.relevance <= 1
        assert item.explain.interest == 0
        assert item.explain.sources["model"].score == item.score
