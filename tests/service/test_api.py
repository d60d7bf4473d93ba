"""The surface of the API: its errors, its limits, its keys, its documentation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.bundle import Bundle
from contract.store import LocalStore
from service import schemas
from tests.conftest import live
from tests.service.server import ADMIN, Server, wait_until

MAX_BODY, MAX_BATCH, MAX_HISTORY, MAX_EXCLUDE, MAX_K = 20_000, 5, 6, 7, 300
MAX_INCLUDE, MAX_FILTERS = 8, 4
MAX_RECALLS, MAX_FEATURES, MAX_TEXT = 4, 9, 500
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {
        "max_body": MAX_BODY,
        "max_batch": MAX_BATCH,
        "max_history": MAX_HISTORY,
        "max_exclude": MAX_EXCLUDE,
        "max_include": MAX_INCLUDE,
        "max_filters": MAX_FILTERS,
        "max_k": MAX_K,
        "max_recalls": MAX_RECALLS,
        "max_features": MAX_FEATURES,
        "max_text": MAX_TEXT,
    }
    with Server(shelf.root, tmp_path_factory.mktemp("api"), channels="exact", **limits) as server:
        yield server


def assert_error(answer: httpx.Response, status: int, code: str) -> str:
    """One shape for every error; returns its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = schemas.Error.model_validate(answer.json(), strict=True).error
    assert error.code == code
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert "\n" not in error.message
    return error.message


BATCH = "/v1/recommendations:batch"
ITEM, ITEMS = {"item_id": "x"}, "/v1/items"
EVENT, EVENTS = {"user_id": "u", "item_id": "x"}, "/v1/events"
RECALL = "/v1/recommendations"


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (ITEMS, {}, "body.item_id"),
        (ITEMS, [], "body"),
        (ITEMS, {"item_id": 5}, "body.item_id"),
        (ITEMS, {"item_id": ""}, "body.item_id"),
        (ITEMS, {"item_id": "x" * 257}, "body.item_id"),
        (ITEMS, ITEM | {"feature": {}}, "body.feature"),
        (ITEMS, ITEM | {"features": ["a"]}, "body.features"),
        (ITEMS, ITEM | {"features": {"year": 10**30}}, "body.features"),
        (ITEMS, ITEM | {"available": "maybe"}, "body.available"),
        (ITEMS, {"items": []}, "body.items"),
        (ITEMS, {"items": [ITEM, {}]}, "body.items.1.item_id"),
        (ITEMS, {"items": [ITEM], "more": 1}, "body.more"),
        (ITEMS, ITEM | {"one": 1}, "body.one"),
        (ITEMS, {"items": [ITEM], "many": 1}, "body.many"),
        (ITEMS, {"items": [ITEM | {"Touch": 1}]}, "body.items.0.Touch"),
        (EVENTS, {"user_id": "u"}, "body.item_id"),
        (EVENTS, EVENT | {"timestamp": -1}, "body.timestamp"),
        (EVENTS, EVENT | {"timestamp": 1_700_000_000_000}, "body.timestamp"),
        (EVENTS, EVENT | {"kind": ""}, "body.kind"),
        (EVENTS, {"events": []}, "body.events"),
        (EVENTS, {"events": [EVENT, EVENT | {"weight": 1}]}, "body.events.1.weight"),
        (RECALL, {"k": 0}, "body.k"),
        (RECALL, {"k": "many"}, "body.k"),
        (RECALL, {"k": MAX_K + 1}, f"k: at most {MAX_K} (max_k), found {MAX_K + 1}"),
        (RECALL, {"history": "i1"}, "body.history"),
        (RECALL, {"history": [1]}, "body.history.0"),
        (RECALL, {"min_seq": -1}, "body.min_seq"),
        (RECALL, {"include": "i1"}, "body.include"),
        (RECALL, {"include": [""]}, "body.include.0"),
        (RECALL, {"exclude_seen": "perhaps"}, "body.exclude_seen"),
        (RECALL, {"filters": ["tags"]}, "body.filters"),
        (RECALL, {"filters": {"colour": "red"}}, "filters.colour: no such attribute; known are"),
        (RECALL, {"filters": {"year": {"above": 1}}}, "filters.year: expected bounds"),
        (RECALL, {"users": "u1"}, "body.users"),
        (RECALL, {"one": 1}, "body.one"),
        (RECALL, {"history": [{"item_id": "i1", "Touch": 1}]}, "body.history.0.Touch"),
        (RECALL, {"sources": {"one": 1}}, "body.sources.one"),
        (BATCH, {"requests": [{"many": 1}]}, "body.requests.0.many"),
        (RECALL, {"category": "x" * 257}, "body.category"),
        (BATCH, {}, "body.requests"),
        (BATCH, {"requests": []}, "body.requests"),
        (BATCH, {"requests": [{}, {"k": 0}]}, "body.requests.1.k"),
        (BATCH, {"requests": [{}, {}, {"k": MAX_K + 1}]}, f"requests.2: k: at most {MAX_K}"),
        (RECALL, {"source": ["model"]}, "body.source"),
        (RECALL, {"sources": ["model"]}, "body.sources"),
        (RECALL, {"sources": {"trend": 1}}, "body.sources.trend"),
        (RECALL, {"sources": {"model": 0}}, "body.sources.model"),
        (RECALL, {"sources": {"model": 1001}}, "body.sources.model"),
        (RECALL, {"diversity": 1.1}, "body.diversity"),
        (RECALL, {"category_diversity": -0.1}, "body.category_diversity"),
        (RECALL, {"max_per_category": 0}, "body.max_per_category"),
        (RECALL, {"explore": 2}, "body.explore"),
        (RECALL, {"explore_from": "old"}, "body.explore_from"),
        (RECALL, {"temperature": 0}, "body.temperature"),
        (RECALL, {"temperature": "warm"}, "body.temperature"),
        (RECALL, {"seed": 2**63}, "body.seed"),
        (RECALL, {"explain": "why"}, "body.explain"),
    ],
)
def test_a_malformed_body_is_refused_and_the_field_named(
    server: Server, path: str, body: object, named: str
) -> None:
    answer = server.client.post(path, json=body)

    assert assert_error(answer, 422, "malformed_request").startswith(named)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"features": {"age": "old"}}, "features: feature 'age'"),
        ({"features": {"planet": "Mars"}}, "features: feature 'planet'"),
    ],
)
def test_a_profile_that_the_schema_cannot_encode_is_refused_and_named(
    server: Server, body: object, named: str
) -> None:
    answer = server.client.post(RECALL, json=body)

    assert assert_error(answer, 422, "bad_feature").startswith(named)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (ITEM | {"features": {"title": 5}}, "item 'x': feature 'title'"),
        (ITEM | {"features": {"titel": "a"}}, "item 'x': feature 'titel'"),
        ({"items": [ITEM | {"features": {"tags": 1}}]}, "item 'x': feature 'tags'"),
        ({"items": [ITEM, ITEM]}, "item 'x': stands 2 times"),
    ],
)
def test_an_item_that_cannot_be_taken_is_refused_and_named(
    server: Server, body: object, named: str
) -> None:
    answer = server.client.post(ITEMS, json=body)

    assert assert_error(answer, 422, "bad_items").startswith(named)


def test_all_bad_items_are_named_and_none_is_written(server: Server) -> None:
    rows: list[dict[str, Any]] = [
        {"item_id": "good"},
        {"item_id": "wrong", "features": {"price": "cheap"}},
        {"item_id": "twice"},
        {"item_id": "unknown", "features": {"colour": "red"}},
        {"item_id": "twice"},
    ]

    answer = server.client.post(ITEMS, json={"items": rows})

    assert assert_error(answer, 422, "bad_items").endswith("(and 2 more; nothing was written)")
    error = answer.json()["error"]
    assert error["count"] == 3
    assert [row["item"] for row in error["rows"]] == ["twice", "wrong", "unknown"]
    problems = [row["problem"] for row in error["rows"]]
    assert problems[0] == "stands 2 times; send every item once"
    assert [problem[:15] for problem in problems[1:]] == ["feature 'price'", "feature 'colour"]
    for row in rows:
        assert server.client.get(f"/v1/items/{row['item_id']}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b'{"item_id": "x", "features": {"year": NaN}}',
        b'{"item_id": "x", "features": {"title": "\\ud800"}}',
        b'{"item_id": "x", "features": {"\\ud800": 1}}',
        b'{"item_id": "x", "\\ud800": 1}',
        b'{"item_id": "\\ud800"}',
        b"[" * 5000 + b"]" * 5000,
        b'{"item_id": "x", "features": {"year": ' + b"9" * 5000 + b"}}",
    ],
)
def test_what_is_not_strict_json_is_refused(server: Server, body: bytes) -> None:
    answer = server.client.post(ITEMS, content=body, headers=JSON)

    code = answer.json()["error"]["code"]
    assert code in ("malformed_request", "bad_items")
    assert_error(answer, answer.status_code, code)
    assert answer.status_code in (400, 422)
    assert server.client.get("/v1/items/x").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "no_such_route"),
        ("GET", "/v1/nothing", 404, "no_such_route"),
        ("GET", "/v1/items", 405, "method_not_allowed"),
        ("PUT", "/v1/items/x", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
        ("GET", "/v1/items/none", 404, "unknown_item"),
        ("DELETE", "/v1/items/none", 404, "unknown_item"),
        ("GET", "/v1/items/i1?neighbours=-1", 422, "malformed_request"),
        ("GET", f"/v1/items/i1?neighbours={MAX_K + 1}", 422, "malformed_request"),
        ("GET", "/v1/items/none/similar", 404, "unknown_item"),
        ("GET", "/v1/items/i1/similar?k=0", 422, "malformed_request"),
        ("GET", f"/v1/items/i1/similar?k={MAX_K + 1}", 422, "malformed_request"),
        ("GET", "/v1/recommendations/u1?k=x", 422, "malformed_request"),
        ("GET", f"/v1/recommendations/{'u' * 257}", 422, "malformed_request"),
        ("GET", f"/v1/recommendations/u1?exclude={'i' * 257}", 422, "malformed_request"),
        ("GET", "/v1/recommendations/u1?catgory=x", 422, "malformed_request"),
        (
            "GET",
            "/v1/recommendations/u1?exclude=i1" + MAX_EXCLUDE * "&exclude=i2",
            413,
            "too_large",
        ),
        ("GET", "/v1/recommendations/u1?min_seq=1000", 409, "not_yet_visible"),
    ],
)
def test_every_refusal_has_the_one_shape(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    assert_error(server.client.request(method, path), status, code)


def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    assert server.client.put("/v1/items").headers["allow"] == "POST"


def test_a_body_over_the_limit_is_refused_announced_or_not(server: Server) -> None:
    body = b'{"item_id": "largest"' + b" " * (MAX_BODY - 22) + b"}"
    assert len(body) == MAX_BODY

    def post(content: bytes | Iterator[bytes]) -> httpx.Response:
        return server.client.post(ITEMS, content=content, headers=JSON)

    assert post(body).status_code == 201
    assert post(iter([body[:99], body[99:]])).status_code == 201
    for content in (body + b" ", iter([body, b" "])):
        message = assert_error(post(content), 413, "too_large")
        assert "at most 20,000 bytes (max_body), found 20,001" in message


LIMITS = {
    "include": "include",
    "items": "batch",
    "events": "batch",
    "history": "history",
    "exclude": "exclude",
    "requests": "recalls",
}


@pytest.mark.parametrize(
    ("path", "field", "one", "limit"),
    [
        (ITEMS, "items", ITEM, MAX_BATCH),
        (EVENTS, "events", EVENT, MAX_BATCH),
        (RECALL, "history", "i1", MAX_HISTORY),
        (RECALL, "exclude", "i1", MAX_EXCLUDE),
        (RECALL, "include", "i1", MAX_INCLUDE),
        (BATCH, "requests", {}, MAX_RECALLS),
    ],
)
def test_a_list_over_its_limit_is_refused_and_the_limit_named(
    server: Server, path: str, field: str, one: Any, limit: int
) -> None:
    message = assert_error(
        server.client.post(path, json={field: [one] * (limit + 1)}), 413, "too_large"
    )

    assert (
        message == f"{field}: at most {limit} (max_{LIMITS[field]}), found {limit + 1}; send less"
    )
    ones = [one | {"item_id": f"x{n}"} if path == ITEMS else one for n in range(limit)]
    assert server.client.post(path, json={field: ones}).is_success


def test_filters_of_too_many_values_are_refused_and_the_limit_named(server: Server) -> None:
    values = [f"value {n}" for n in range(MAX_FILTERS)]
    most = {"filters": {"tags": values[1:], "year": {"gte": 1990, "lt": 2000}}}
    assert server.client.post(RECALL, json=most).is_success
    more = {"filters": {"tags": values, "year": {"gte": 1990, "lt": 2000}}}

    message = assert_error(server.client.post(RECALL, json=more), 413, "too_large")

    wanted = f"filters: at most {MAX_FILTERS} (max_filters), found {MAX_FILTERS + 1}"
    assert message.startswith(wanted)
    texts = {"filter": ["tags=" + "|".join(values), "year>1990"]}
    assert_error(server.client.get(f"{RECALL}/u1", params=texts), 413, "too_large")


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ({f"f{n}": 1 for n in range(MAX_FEATURES + 1)}, f"features: at most {MAX_FEATURES} (max_f"),
        ({"title": "t" * (MAX_TEXT + 1)}, f"length of feature 'title': at most {MAX_TEXT} (max_t"),
        ({"tags": ["a", "t" * (MAX_TEXT + 1)]}, f"length of feature 'tags': at most {MAX_TEXT} ("),
        ({"t" * (MAX_TEXT + 1): 1}, f"length of a feature's name: at most {MAX_TEXT} (max_text)"),
    ],
)
def test_features_over_a_limit_are_refused_wherever_they_stand(
    server: Server, features: dict[str, Any], named: str
) -> None:
    profile = {"features": features}
    for path, body, where in (
        (ITEMS, ITEM | profile, "item 'x': "),
        (ITEMS, {"items": [ITEM | profile]}, "item 'x': "),
        (RECALL, profile, ""),
        (BATCH, {"requests": [{}, profile]}, "requests.1: "),
    ):
        message = assert_error(server.client.post(path, json=body), 413, "too_large")
        assert message.startswith(f"{where}{named}")

    largest = ITEM | {"features": {"title": "t" * MAX_TEXT}}
    assert server.client.post(ITEMS, json=largest).status_code == 201


@pytest.mark.parametrize("action", ["reload", "rollback"])
def test_administration_needs_the_key(server: Server, action: str) -> None:
    url = f"/v1/bundle/{action}"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}):
        message = assert_error(server.client.post(url, headers=headers), 401, "unauthorized")
        assert "missing or unknown" in message


def test_a_reload_says_what_is_served(server: Server, bundle: Bundle) -> None:
    answer = server.client.post("/v1/bundle/reload", headers=ADMIN)

    found = schemas.Reloaded.model_validate(answer.json(), strict=True)
    assert (found.variant, found.version, found.swapped) == ("exact", bundle.version, False)


def test_a_rollback_with_nothing_before_is_refused(server: Server) -> None:
    answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)

    assert "no version before" in assert_error(answer, 409, "bad_store")


def test_the_bundle_is_described_as_its_manifest_says(server: Server, bundle: Bundle) -> None:
    answer = server.client.get("/v1/bundle")

    found = schemas.BundleKnown.model_validate(answer.json(), strict=True)
    manifest = bundle.manifest
    assert (found.version, found.model, found.backend) == (manifest.version, "dssm", "exact")
    assert (found.items, found.users) == (manifest.dims.items, manifest.dims.users)
    assert (found.channel, found.forced, found.refused) == ("exact", False, None)
    assert found.metrics == manifest.metrics
    assert found.created_at == manifest.created_at.isoformat()
    assert found.loaded_at > found.created_at


def test_an_answer_names_its_worker_bundle_and_channel(server: Server, bundle: Bundle) -> None:
    answer = server.client.get("/v1/recommendations/u1")

    assert answer.headers["x-tandem-worker"] == "0"
    assert (answer.json()["bundle"], answer.json()["variant"]) == (bundle.version, "exact")
    assert len(answer.json()["items"]) == 50


def test_health_and_pages_answer(server: Server, bundle: Bundle) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    ready = server.client.get("/readyz").json()
    assert ready == {"status": "ready", "bundle": bundle.version}
    for page in ("/docs", "/console"):
        answer = server.client.get(page)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")


ROUTES = {
    ("get", "/v1/recommendations/{user_id}"),
    ("post", "/v1/recommendations"),
    ("post", "/v1/recommendations:batch"),
    ("get", "/v1/items/{item_id}/similar"),
    ("post", "/v1/items"),
    ("get", "/v1/items/{item_id}"),
    ("patch", "/v1/items/{item_id}"),
    ("delete", "/v1/items/{item_id}"),
    ("post", "/v1/events"),
    ("get", "/v1/bundle"),
    ("post", "/v1/bundle/reload"),
    ("post", "/v1/bundle/rollback"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/console"),
}


def test_every_route_is_documented_with_its_answers(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert operations.keys() == ROUTES
    for (_, path), operation in operations.items():
        assert operation["description"].endswith(".")
        if path.startswith("/v1"):
            assert {"422", "503"} <= operation["responses"].keys()
            success = next(r for code, r in operation["responses"].items() if code[0] == "2")
            assert "$ref" in success["content"]["application/json"]["schema"]
            for code, response in operation["responses"].items():
                if code[0] != "2":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}


def test_every_documented_example_works(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    posted = []
    for path, methods in paths.items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        for name, example in content.get("application/json", {}).get("examples", {}).items():
            answer = server.client.post(path, json=example["value"])
            assert answer.is_success, f"{path} {name}: {answer.text}"
            posted.append(path)

    assert set(posted) == {RECALL, BATCH, ITEMS, EVENTS}
    assert server.client.get("/v1/items/new-1").json()["available"] is False


def test_a_service_waits_for_its_first_bundle(shelf: LocalStore, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    server = Server(store.root, tmp_path / "state", admin_key=None)
    server.start()
    try:
        wait_until(lambda: server.fresh("/healthz"), "the process to answer")
        for method, path, body in (
            ("GET", "/readyz", None),
            ("GET", "/v1/recommendations/u1", None),
            ("GET", "/v1/bundle", None),
            ("POST", "/v1/items", ITEM),
        ):
            answer = server.client.request(method, path, json=body)
            assert "publish one" in assert_error(answer, 503, "not_ready")
        assert server.client.post("/v1/events", json=EVENT).status_code == 201

        version = live(shelf).name
        (store.root / "bundles").mkdir(parents=True)
        (store.root / "bundles" / version).symlink_to(live(shelf))
        store.point("live", version)

        server.wait_ready()
        answer = server.client.get("/v1/recommendations/u1")
        assert (answer.status_code, answer.json()["seq"]) == (200, 1)
        refused = server.client.post("/v1/bundle/reload", headers=ADMIN)
        assert "TANDEM_ADMIN_KEY" in assert_error(refused, 403, "forbidden")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("k=0", "query.k"),
        ("diversty=0.3", "query.diversty"),
        ("diversity=1.5", "query.diversity"),
        ("source=model&source=trend", "query.source.1"),
        ("sources=model", "query.sources"),
        ("seed=-1", "query.seed"),
        ("history=i1", "query.history"),
    ],
)
def test_a_malformed_query_is_refused_and_the_parameter_named(
    server: Server, query: str, named: str
) -> None:
    answer = server.client.get(f"{RECALL}/u1?{query}")

    assert assert_error(answer, 422, "malformed_request").startswith(f"{named}: ")
