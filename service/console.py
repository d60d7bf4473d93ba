"""One page to look at a running service: what it serves, and a user's recommendations."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(tags=["operation"])

PAGE = Path(__file__).with_name("console.html")


@router.get("/console", response_class=HTMLResponse)
async def console() -> HTMLResponse:
    """The console, a page for people."""
    return HTMLResponse(PAGE.read_text())
