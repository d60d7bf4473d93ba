"""The README, executed: its commands on its own small data, its requests on the service."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tandem import main
from tests.documents import DOCUMENTS, Block, blocks, check_command, commands, text
from tests.places import ROOT
from tests.service.server import Server

README = ROOT / "README.md"
ADDRESS = "localhost:8000"


def shell(path: Path) -> list[list[str]]:
    return [words for b in blocks(path) if b.language == "sh" for words in commands(b.text)]


def steps() -> list[list[str]]:
    """The commands of the step-by-step part, up to `tandem serve`."""
    first = next(b for b in blocks(README) if "tandem data synthetic" in b.text)
    return [words[1:] for words in commands(first.text)]


def requests() -> list[tuple[str, Any]]:
    """Every request of the README with the answer that it shows."""
    found = blocks(README)
    return [
        (block.text, json.loads(answer.text))
        for block, answer in pairwise(found)
        if asks(block) and answer.language == "json"
    ]


def asks(block: Block) -> bool:
    return block.language == "sh" and block.text.startswith("curl ")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_is_one_that_tandem_has(path: Path) -> None:
    for words in shell(path):
        if words[0] == "tandem":
            check_command(words)


def test_a_command_that_tandem_does_not_have_is_noticed() -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        check_command(["tandem", "publish", "runs/demo", "--to", "store", "--color"])


def test_every_make_target_in_the_documents_exists() -> None:
    made = {words[1] for path in DOCUMENTS for words in shell(path) if words[0] == "make"}

    assert {"demo", "test", "install", "check"} <= made
    assert [name for name in made if f"\n{name}:" not in text("Makefile")] == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What the README's steps have led to."""
    *before, last = steps()
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    with contextlib.chdir(folder):
        for arguments in before:
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{arguments}: {result.output}"
    assert last == ["serve", "--store", "store"]
    with Server(folder / "store", folder / "state", admin_key=None) as server:
        yield server


def test_every_request_of_the_readme_is_answered_as_it_shows(service: Server) -> None:
    asked = requests()

    for command, shown in asked:
        answer = json.loads(curl(command, service.port))

        assert shape(answer) == shape(shown), command
        assert told(answer) == told(shown), command
    assert len(asked) == sum(map(asks, blocks(README))) > 10


def curl(command: str, port: int) -> str:
    there = command.replace(ADDRESS, f"127.0.0.1:{port}").replace("curl ", "curl --silent ", 1)
    done = subprocess.run(
        ["bash", "-c", there], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def shape(value: Any, key: str = "") -> Any:
    """Names and types. Metrics, of which the README shows a few, are just numbers, and how many
    sources recall an item is a matter of the weights."""
    if key == "recalled_by":
        return {type(item) for item in value}
    if isinstance(value, dict):
        return "metrics" if key == "metrics" else {k: shape(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


def told(answer: Any) -> Any:
    """What must be as shown to the letter, whatever the weights of the model came out as."""
    names = ("source", "seq", "channel", "model", "backend", "features", "available", "user_id")
    code = answer["error"]["code"] if "error" in answer else None
    return {name: answer[name] for name in names if name in answer} | {"code": code}
