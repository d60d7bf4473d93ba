"""A service and the plain reference, side by side: written to alike, compared after."""

from typing import Any
from urllib.parse import quote

from service import schemas
from tests.service.reference import Reference, assert_best
from tests.service.server import Server

ALL = 1000


class Shop:
    """A service and the reference, written to alike."""

    def __init__(self, server: Server, reference: Reference) -> None:
        self.server, self.reference = server, reference

    def post(self, item_id: str, features: dict[str, Any], available: bool = True) -> int:
        body = {"item_id": item_id, "features": features, "available": available}
        answer = self.server.client.post("/v1/items", json=body)
        assert answer.status_code == 201, answer.text
        written = schemas.ItemsWritten.model_validate(answer.json(), strict=True)
        assert written.items == [item_id]
        self.reference.post(item_id, features, available)
        return written.seq

    def patch(
        self, item_id: str, features: dict[str, Any] | None = None, available: bool | None = None
    ) -> int:
        given = {"features": features, "available": available}
        body = {name: value for name, value in given.items() if value is not None}
        answer = self.server.client.patch(path(item_id), json=body)
        assert answer.status_code == 200, answer.text
        self.reference.patch(item_id, features or {}, available)
        return schemas.Written.model_validate(answer.json(), strict=True).seq

    def delete(self, item_id: str) -> int:
        answer = self.server.client.delete(path(item_id))
        assert answer.status_code == 200, answer.text
        self.reference.delete(item_id)
        return schemas.Written.model_validate(answer.json(), strict=True).seq

    def event(self, user_id: str, item_id: str, kind: str = "view") -> int:
        body = {"user_id": user_id, "item_id": item_id, "kind": kind}
        answer = self.server.client.post("/v1/events", json=body)
        assert answer.status_code == 201, answer.text
        self.reference.event(user_id, item_id, kind)
        return schemas.Written.model_validate(answer.json(), strict=True).seq

    def known(self, item_id: str) -> schemas.ItemKnown:
        answer = self.server.client.get(path(item_id))
        assert answer.status_code == 200, answer.text
        return schemas.ItemKnown.model_validate(answer.json(), strict=True)

    def recommend(self, **body: Any) -> dict[str, Any]:
        answer = self.server.client.post("/v1/recommendations", json={"k": ALL, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        schemas.Recommendations.model_validate(found, strict=True)
        return found

    def similar(self, item_id: str, k: int = ALL) -> dict[str, Any]:
        answer = self.server.client.get(path(item_id, "/similar"), params={"k": k})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def check(self, user_id: str | None = None, **body: Any) -> dict[str, Any]:
        """The whole ranking is that of the reference; returns the answer."""
        answer = self.recommend(user_id=user_id, **body)
        history = body.get("history")
        scores = self.reference.scores(user_id, history)
        body = {"history": (), **body}
        if answer["source"] == "fallback":
            scores = self.reference.shares()
        eligible = self.reference.eligible(user_id, **body)
        assert_best(answer, scores, eligible, ALL)
        return answer

    def check_every_path(self) -> None:
        """Known user, session, nobody, category, similar: with hidden items on none of them."""
        category = self.reference.features["i0"]["category"]
        assert self.check("u1")["source"] == "model"
        assert self.check(history=["i0", "i1"])["source"] == "session"
        assert self.check("nobody")["source"] == "fallback"
        self.check("u1", category=category)
        scores = self.reference.similarities("i0")
        eligible = [i for i in self.reference.eligible() if i != "i0"]
        assert_best(self.similar("i0"), scores, eligible, ALL)


def path(item_id: str, suffix: str = "") -> str:
    return f"/v1/items/{quote(item_id, safe='')}{suffix}"


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
