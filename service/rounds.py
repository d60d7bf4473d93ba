"""What is asked in one round of the event loop, answered together.

While a worker answers, requests arrive. Those that it finds when it looks again have waited anyway,
and for many at once the towers, the index and the look at the journal cost little more than for
one. Nobody waits for company: who comes alone is answered alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Rounds(Generic[Asked, Answer]):
    """Of one event loop."""

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]], most: int
    ) -> None:
        """`answer` gives for each of at least one and at most `most` what it is answered, or why it
        is not. Between two calls of it the event loop goes round."""
        self._answer, self._most = answer, most
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []

    async def join(self, asked: Asked) -> Answer:
        """Answered after all that is already waiting in the event loop has joined too."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._go)
        self._waiting.append((asked, future))
        return await future

    def _go(self) -> None:
        waiting, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go)
        try:
            answers = self._answer([asked for asked, _ in waiting])
        except Exception as error:
            answers = [error] * len(waiting)
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.cancelled():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
