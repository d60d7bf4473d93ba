import json
from pathlib import Path

import pytest

from benchmarks import RECIPES, train
from contract.errors import TrainingError
from offline.recipe import read_recipe


def test_generated_data_are_trained_on_as_movielens_is() -> None:
    found, real, demo = (
        train.generated_recipe(2),
        *(read_recipe(RECIPES / name) for name in ("dssm-ml1m.toml", "demo.toml")),
    )

    assert found.features == demo.features
    assert found.training == real.training.model_copy(update={"epochs": train.EPOCHS})
    for key in ("parameters", "objective", "objective_parameters", "negatives", "history_length"):
        assert getattr(found, key) == getattr(real, key)


def test_the_figures_of_a_peer_are_its_last_line(tmp_path: Path) -> None:
    """Any program that ends with the line will do."""
    peer = tmp_path / "python"
    line = json.dumps({"preparation": 2.5, "samples_per_second": 5000.0})
    peer.write_text(f"#!/bin/sh\necho epoch 0\necho '{line}'\n")
    peer.chmod(0o755)

    assert train._peer(peer, tmp_path) == {"preparation": 2.5, "samples_per_second": 5000.0}


def test_a_peer_that_fails_says_why(tmp_path: Path) -> None:
    peer = tmp_path / "python"
    peer.write_text("#!/bin/sh\necho \"No module named 'torch_rechub'\" >&2\nexit 1\n")
    peer.chmod(0o755)

    with pytest.raises(TrainingError, match=r"No module named 'torch_rechub'; see benchmarks/peer"):
        train._peer(peer, tmp_path)
