"""Work that is done once, or again and again until someone asks it to stop."""

import logging
import signal
import threading
from collections.abc import Callable

from contract.errors import TandemError

log = logging.getLogger("tandem.rounds")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def rounds(work: Callable[[], None], every: float | None) -> None:
    """Do the work once, or where `every` is given, with so many seconds between two rounds. A round
    that fails is logged, and the next one tries again. A signal ends it after the round."""
    if every is None:
        work()
        return
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in SIGNALS}
    try:
        while not stopped.is_set():
            try:
                work()
            except TandemError as error:
                log.error("this round failed, the next one tries again: %s", error)
            stopped.wait(every)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
