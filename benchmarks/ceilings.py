"""What the web stack alone can do with a ready answer: the ceilings over any recall in Python.

`raw` is bare ASGI, `app` a FastAPI application whose handler returns bytes.
"""

from typing import Annotated

import orjson
from fastapi import FastAPI, Query, Response
from starlette.types import Receive, Scope, Send

PAYLOAD = {
    "user_id": "u1",
    "items": [{"item_id": str(100_000 + n), "score": 0.5 + n / 1000} for n in range(50)],
}

app = FastAPI()


@app.get("/{user_id}")
async def as_bytes(user_id: str, k: Annotated[int, Query()] = 50) -> Response:
    return Response(orjson.dumps(PAYLOAD), media_type="application/json")


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body = orjson.dumps(PAYLOAD)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
