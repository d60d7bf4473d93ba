"""Several clients at once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def running(works: Sequence[Callable[[], None]], ended: threading.Event) -> Iterator[None]:
    """Each work in a thread of its own; they end when `ended` is set, which leaving does."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
