"""What an operator reads in the log and a client does not: where things lie."""

import re
from collections.abc import Callable
from pathlib import Path

from contract.journal import is_local
from contract.journal.base import shown
from service.settings import Settings

Outward = Callable[[str], str]

DIRECTORIES = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+")
"""Of an absolute path, everything but its last name."""


def outward(settings: Settings) -> Outward:
    """Takes the directories and the journal's server out of a message. Names in the store and the
    state stay."""
    places = {
        str(Path(settings.store.removeprefix("file://"))): "store",
        str(settings.state_directory()): "state",
    }
    if not is_local(uri := settings.journal_uri()):
        places[shown(uri)] = "server"
    longest_first = sorted(places, key=len, reverse=True)

    def told(message: str) -> str:
        for place in longest_first:
            if "/" in place.strip("/"):
                message = message.replace(place, places[place])
        return DIRECTORIES.sub("", message)

    return told
