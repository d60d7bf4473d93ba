import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from contract.errors import RecipeError
from offline.evaluate import embed
from offline.run import Run, load_run, save_run


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    save_run(path, run.description, run.dataset, run.model)
    return path


def test_what_is_no_run_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(RecipeError, match=r"notes: is there and not a run \(no run.json\), so it"):
        save_run(tmp_path / "notes", run.description, run.dataset, run.model)
    save_run(tmp_path / "empty", run.description, run.dataset, run.model)

    assert (tmp_path / "notes/mine.txt").read_text() == "mine"
    assert load_run(tmp_path / "empty").description == run.description


def test_a_loaded_run_is_the_saved_one(run: Run) -> None:
    loaded = load_run(run.path)

    assert loaded.description == run.description
    assert loaded.dataset.item_ids == run.dataset.item_ids
    assert loaded.dataset.user_ids == run.dataset.user_ids
    assert loaded.dataset.schema == run.dataset.schema
    assert loaded.dataset.seq == run.dataset.seq == 7
    assert loaded.dataset.attributes.equals(run.dataset.attributes)
    for name in ("items", "users", "sequences"):
        for found, wanted in zip(
            getattr(loaded.dataset, name), getattr(run.dataset, name), strict=True
        ):
            np.testing.assert_array_equal(found, wanted, strict=True)
    found, wanted = (cast(nn.Module, r.model).state_dict() for r in (loaded, run))
    assert found.keys() == wanted.keys()
    assert [name for name in found if not torch.equal(found[name], wanted[name])] == []


def test_a_loaded_model_is_ready_to_embed(run: Run) -> None:
    loaded = load_run(run.path)

    np.testing.assert_array_equal(
        embed(loaded.model, loaded.dataset).items.items, embed(run.model, run.dataset).items.items
    )


def test_saving_leaves_the_dataset_as_it_was(run: Run) -> None:
    assert run.dataset.attributes.columns == ["title", "category", "tags", "year", "price"]


def test_a_run_needs_no_item_or_user_table(run: Run, saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [
        "flags.npy",
        "item_codes.npy",
        "item_numbers.npy",
        "items.npy",
        "items.parquet",
        "model.pt",
        "offsets.npy",
        "run.json",
        "states.npy",
        "times.npy",
        "user_codes.npy",
        "user_numbers.npy",
        "users.parquet",
    ]


def test_a_run_is_replaced_as_a_whole(run: Run, saved: Path) -> None:
    (saved / "old.txt").write_text("of the run before")
    changed = run.description.model_copy(update={"metrics": {"HR@10": 0.5}})

    save_run(saved, changed, run.dataset, run.model)

    assert load_run(saved).description.metrics == {"HR@10": 0.5}
    assert not (saved / "old.txt").exists()
    assert [p.name for p in saved.parent.iterdir()] == ["run"]


def test_a_directory_that_is_no_run_is_neither_read_nor_replaced(run: Run, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")

    with pytest.raises(RecipeError, match=r"not a run \(no run\.json\); train one with 'tandem"):
        load_run(tmp_path)
    with pytest.raises(RecipeError, match=r"not a run \(no run\.json\)"):
        save_run(tmp_path, run.description, run.dataset, run.model)
    assert precious.read_text() == "years of work"
    assert [p for p in tmp_path.parent.iterdir() if p.name.startswith(f".{tmp_path.name}")] == []


@pytest.mark.parametrize(
    "name", ["model.pt", "offsets.npy", "item_codes.npy", "items.parquet", "users.parquet"]
)
@pytest.mark.parametrize("content", [None, b"", b"nonsense"], ids=["missing", "empty", "nonsense"])
def test_a_damaged_run_is_refused(saved: Path, name: str, content: bytes | None) -> None:
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_bytes(content)

    with pytest.raises(RecipeError) as caught:
        load_run(saved)

    assert str(caught.value).startswith(f"{saved}: incomplete or damaged (")
    assert str(caught.value).endswith("; train again")
    assert "\n" not in str(caught.value)


def test_a_description_of_another_release_is_refused(saved: Path) -> None:
    document = json.loads((saved / "run.json").read_text())
    (saved / "run.json").write_text(json.dumps(document | {"invented": 1}))

    with pytest.raises(
        RecipeError, match=r"run\.json: Extra inputs are not permitted; train again"
    ):
        load_run(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    document = json.loads((saved / "run.json").read_text())
    document["recipe"]["parameters"]["dim"] = 8
    (saved / "run.json").write_text(json.dumps(document))

    with pytest.raises(RecipeError, match=r"incomplete or damaged .*; train again$"):
        load_run(saved)
