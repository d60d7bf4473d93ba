"""What a recall answers, over HTTP, against the plain reference; k of k, whatever the filters."""

import random
from typing import Any

import pytest

from service import schemas
from tests.service.reference import Reference, assert_best
from tests.service.server import Server

USERS = ("u0", "u17", "u299")


def recommend(server: Server, user_id: str, **params: Any) -> dict[str, Any]:
    answer = server.client.get(f"/v1/recommendations/{user_id}", params=params)
    assert answer.status_code == 200, answer.text
    return _checked(answer.json())


def inline(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return _checked(answer.json())


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    schemas.Recommendations.model_validate(answer, strict=True)
    return answer


@pytest.mark.parametrize("user_id", USERS)
def test_a_known_user_gets_the_best_unseen_items_for_every_k(
    reading: Server, reference: Reference, user_id: str
) -> None:
    scores, eligible = reference.scores(user_id), reference.eligible(user_id)
    assert 100 < len(eligible) < len(reference.ids)

    for k in range(1, len(eligible) + 3):
        answer = recommend(reading, user_id, k=k)
        assert answer["user_id"] == user_id
        assert answer["source"] == "model"
        assert answer["seq"] == 0
        assert {item["source"] for item in answer["items"]} == {"bundle"}
        assert_best(answer, scores, eligible, k)


def test_excluded_items_are_left_out_and_others_take_their_place(
    reading: Server, reference: Reference
) -> None:
    scores = reference.scores("u17")
    shuffled = random.Random(1)

    for count in range(0, len(reference.ids) + 1, 7):
        exclude = shuffled.sample(reference.ids, count)
        eligible = reference.eligible("u17", exclude=exclude)
        for k in (1, 10, len(reference.ids)):
            answer = inline(reading, user_id="u17", k=k, exclude=[*exclude, "not an item"])
            assert_best(answer, scores, eligible, k)


def test_the_exclude_parameter_may_be_repeated(reading: Server, reference: Reference) -> None:
    best = [item["item_id"] for item in recommend(reading, "u0", k=6)["items"]]

    answer = recommend(reading, "u0", k=3, exclude=best[:3])

    assert [item["item_id"] for item in answer["items"]] == best[3:]


def test_a_category_filter_gives_the_best_of_that_category_for_every_k(
    reading: Server, reference: Reference
) -> None:
    scores = reference.scores("u17")
    values = {item["category"] for item in reference.features.values()} | {"classic", "space"}
    assert len(values) > 5

    for category in sorted(values):
        eligible = reference.eligible("u17", category=category)
        for k in range(1, len(eligible) + 2):
            assert_best(recommend(reading, "u17", k=k, category=category), scores, eligible, k)


def test_an_unknown_category_has_no_items(reading: Server) -> None:
    assert recommend(reading, "u0", category="no such category")["items"] == []


def test_a_session_is_answered_from_its_history_and_never_with_it(
    reading: Server, reference: Reference
) -> None:
    history = reference.ids[3:9]

    answer = inline(reading, history=history, k=15)

    assert answer["user_id"] is None
    assert answer["source"] == "session"
    scores, eligible = reference.scores(history=history), reference.eligible(history=history)
    assert_best(answer, scores, eligible, 15)


def test_a_history_longer_than_the_model_takes_counts_from_its_end(
    reading: Server, reference: Reference
) -> None:
    history = reference.ids[:100]
    scores, eligible = reference.scores(history=history), reference.eligible(history=history)

    assert_best(inline(reading, history=history, k=20), scores, eligible, 20)


def test_unknown_items_in_a_history_do_not_count(reading: Server, reference: Reference) -> None:
    history = reference.ids[3:6]
    known = inline(reading, history=history, k=10)

    mixed = inline(reading, history=["x", *history[:1], "y", *history[1:]], k=10)

    assert mixed["items"] == known["items"]
    assert mixed["source"] == "session"


def test_a_history_in_the_body_stands_in_for_the_known_one(
    reading: Server, reference: Reference
) -> None:
    history = reference.ids[:2]
    scores, eligible = reference.scores("u0", history), reference.eligible("u0", history)

    assert_best(inline(reading, user_id="u0", history=history, k=12), scores, eligible, 12)


def test_a_profile_in_the_body_stands_in_for_the_known_one(
    reading: Server, reference: Reference
) -> None:
    features = {"age": 71, "country": "Kenya"}
    scores, eligible = reference.scores("u0", features=features), reference.eligible("u0")
    assert_best(inline(reading, user_id="u0", features=features, k=12), scores, eligible, 12)

    answer = inline(reading, user_id="never seen", features=features, k=12)
    assert answer["source"] == "model"
    assert_best(answer, reference.scores(features=features), reference.ids, 12)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": "never seen"},
        {"user_id": "a/b?c#d"},
        {"history": []},
        {"user_id": "never seen", "history": ["x", "y"]},
        {"features": {}},
    ],
)
def test_who_is_not_known_at_all_gets_the_most_popular_items(
    reading: Server, reference: Reference, body: dict[str, Any]
) -> None:
    for k in (1, 50, len(reference.ids)):
        answer = inline(reading, **body, k=k)
        assert answer["source"] == "fallback"
        assert_best(answer, reference.shares(), reference.ids, k)


def test_the_fallback_keeps_to_the_filters(reading: Server, reference: Reference) -> None:
    exclude = reference.ids[:1]
    category = reference.features[exclude[0]]["category"]
    eligible = reference.eligible(exclude=exclude, category=category)

    answer = inline(reading, category=category, exclude=exclude, k=200)

    assert_best(answer, reference.shares(), eligible, 200)


def test_an_empty_history_of_a_known_user_is_still_a_known_user(
    reading: Server, reference: Reference
) -> None:
    answer = inline(reading, user_id="u0", history=[], k=9)

    assert answer["source"] == "model"
    assert_best(answer, reference.scores("u0", history=[]), reference.eligible("u0"), 9)


def test_similar_items_are_the_nearest_by_their_vectors(
    reading: Server, reference: Reference
) -> None:
    for item_id in (reference.ids[0], reference.ids[99], reference.ids[-1]):
        scores = reference.similarities(item_id)
        for k in (1, 10, len(reference.ids)):
            answer = reading.client.get(f"/v1/items/{item_id}/similar", params={"k": k}).json()
            schemas.SimilarItems.model_validate(answer, strict=True)
            assert answer["item_id"] == item_id
            assert_best(answer, scores, list(scores), k)


def test_the_parameters_of_a_blend_are_the_same_in_a_url_and_in_a_body(reading: Server) -> None:
    asked = {
        "diversity": 0.4,
        "category_diversity": 0.1,
        "max_per_category": 9,
        "explore": 0.2,
        "explore_from": "new",
        "temperature": 0.5,
        "seed": 3,
        "explain": True,
    }
    names = ("model", "similar", "popular")

    in_url = recommend(reading, "u17", k=20, source=names, **asked)
    in_body = inline(reading, user_id="u17", k=20, sources=dict.fromkeys(names, 1.0), **asked)

    assert in_url == in_body
    assert len(in_url["items"]) == 20
    assert {name for item in in_url["items"] for name in item["recalled_by"]} == set(names)
    assert in_url["explain"]["removed"]["gone"] == 0


def test_what_was_not_asked_for_is_not_in_the_answer(reading: Server) -> None:
    answer = recommend(reading, "u0", k=5)

    assert "explain" not in answer
    assert {tuple(item) for item in answer["items"]} == {("item_id", "score", "source")}
    assert recommend(reading, "u0", k=5, diversity=0.0) == answer


def test_diversity_brings_more_categories_and_a_cap_holds(
    reading: Server, reference: Reference
) -> None:
    def categories(**asked: Any) -> list[str]:
        items = recommend(reading, "u0", k=20, **asked)["items"]
        return [reference.features[item["item_id"]]["category"] for item in items]

    plain = categories()

    assert len(set(categories(diversity=1.0))) > len(set(plain))
    assert max(map(plain.count, plain)) > 5
    capped = categories(max_per_category=5)
    assert len(capped) == 20
    assert max(map(capped.count, capped)) == 5
