"""One page to look at a running service: what it serves, and a user's recommendations."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(tags=["operation"])

PAGE = Path(__file__).with_name("console.html").read_text()


def _policy(page: str) -> str:
    """What a browser may run and load: what stands in the page as we wrote it, and our own API."""

    def of(tag: str) -> str:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {of('script')}; style-src {of('style')}; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


POLICY = _policy(PAGE)


@router.get("/console", response_class=HTMLResponse)
async def console() -> HTMLResponse:
    """The console, a page for people."""
    return HTMLResponse(PAGE)
