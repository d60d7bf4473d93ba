"""The documents as data: their tables, code blocks and links, and what the code declares."""

import ast
import contextlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click

from tandem import main
from tests.places import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


class Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        at = self.header.index(name)
        return [row[at] for row in self.rows]


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    text: str


class Metric(NamedTuple):
    kind: str
    labels: tuple[str, ...]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def tables(name: str) -> list[Table]:
    """All tables of a document; a cell that is one piece of code comes without its backquotes."""
    found: list[Table] = []
    before = ""
    for line in text(name).splitlines():
        if line.startswith("|"):
            row = _cells(line)
            if not before.startswith("|"):
                found.append(Table(row, []))
            elif not set(line) <= set("|- :"):
                found[-1].rows.append(row)
        before = line
    return found


def table(name: str, *header: str) -> Table:
    """The one table of a document whose header begins with these cells."""
    wanted = [t for t in tables(name) if t.header[: len(header)] == list(header)]
    assert len(wanted) == 1, f"{name}: {len(wanted)} tables that begin with {header}"
    return wanted[0]


def section(name: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    _, _, rest = text(name).partition(f"\n{heading}\n")
    assert rest, f"{name} has no heading {heading!r}"
    return re.split(r"\n#+ ", rest)[0]


def blocks(path: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, body) for language, body in found]


def commands(shell: str) -> list[list[str]]:
    """The commands of a shell script as words, without comments and variables set before them."""
    words = [shlex.split(line, comments=True) for line in _whole_lines(shell)]
    return [w for line in words if (w := _without_variables(line))]


def check_command(words: list[str]) -> None:
    """Raises UsageError where this command of tandem would exit with 2; runs nothing."""
    _, verb, *arguments = words
    if verb not in main.commands:
        raise click.UsageError(f"No such command '{verb}'.")
    with contextlib.suppress(click.exceptions.Exit):
        main.commands[verb].make_context(verb, arguments)


def metrics() -> dict[str, Metric]:
    """What service/metrics.py declares, by the names that Prometheus sees."""
    found = {}
    for node in ast.walk(ast.parse(text("service/metrics.py"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kind = node.func.id.lower()
            if kind in ("counter", "gauge", "histogram"):
                name = ast.literal_eval(node.args[0])
                labels = ast.literal_eval(node.args[2]) if len(node.args) > 2 else ()
                found[name + "_total" * (kind == "counter")] = Metric(kind, tuple(labels))
    return found


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in cells]


def _whole_lines(shell: str) -> list[str]:
    """Lines, with those put together that a backslash or an open quote continues."""
    lines: list[str] = []
    held = ""
    for line in shell.splitlines():
        held += line
        if held.endswith("\\"):
            held = held[:-1]
        elif held.count("'") % 2:
            held += "\n"
        else:
            lines.append(held)
            held = ""
    return lines


def _without_variables(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words
