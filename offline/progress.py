"""Progress bars on long work, where the output is a terminal; nothing elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    def __init__(self, title: str, total: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._bars = Bars(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bars.add_task(title, total=total, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def advance(self, amount: int, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)

    def to(self, done: int, total: int | None) -> None:
        self._bars.update(self._task, completed=done, total=total)
