"""What is asked in one round of the event loop, answered together.

While a worker answers, requests arrive. Those that it finds when it looks again have waited anyway,
and for many at once the towers, the index and the look at the journal cost little more than for
one. Nobody waits for company: who comes alone is answered alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
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
        self._waiting: list[tuple[Asked, Callable[[Answer | Exception], None]]] = []

    def ask(self, asked: Asked, answered: Callable[[Answer | Exception], None]) -> None:
        """`answered` is called with the answer, or why there is none, after all that is already
        waiting in the event loop has asked too. It does not raise."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._go)
        self._waiting.append((asked, answered))

    async def join(self, asked: Asked) -> Answer:
        """The same for a coroutine."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ask(asked, partial(_settle, future))
        return await future

    def _go(self) -> None:
        waiting, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go)
        try:
            answers = self._answer([asked for asked, _ in waiting])
        except Exception as error:
            answers = [error] * len(waiting)
        for (_, answered), answer in zip(waiting, answers, strict=True):
            answered(answer)


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
