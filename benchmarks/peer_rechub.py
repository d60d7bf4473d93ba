"""torch-rechub's DSSM on the tables of a directory, timed: the peer of `tandem bench train`.

Run by the Python of an environment of its own, where Tandem is not installed:

    python -m venv peer
    peer/bin/pip install torch==2.13.0 torch-rechub annoy pandas scikit-learn pyarrow
    tandem bench train --peer peer/bin/python --check

The settings are those of the library's own example of matching on MovieLens-1M: embeddings of 16,
towers of 256, 128 and 64 with PReLU, a history of 50, in-batch negatives, batches of 256, Adam at
1e-4. Prints one line of JSON: seconds of preparation, training samples per second of one epoch.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import LabelEncoder
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import DSSM
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator, df_to_dict
from torch_rechub.utils.match import gen_model_input, generate_seq_feature_match

EMBEDDING, HISTORY, BATCH, RATE = 16, 50, 256, 1e-4
TOWER = {"dims": [256, 128, 64], "activation": "prelu"}


def main(directory: Path, threads: int) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    log, sizes, users, items = read(directory)
    started = time.perf_counter()
    profiles, catalogue = (
        log[users].drop_duplicates("user_id"),
        log[items].drop_duplicates("item_id"),
    )
    train, test = generate_seq_feature_match(
        log, "user_id", "item_id", time_col="timestamp", item_attribute_cols=[], sample_method=1,
        mode=0, neg_ratio=0,
    )  # fmt: skip
    inputs, probes = (
        gen_model_input(part, profiles, "user_id", catalogue, "item_id", seq_max_len=HISTORY)
        for part in (train, test)
    )
    prepared = time.perf_counter() - started
    generator = MatchDataGenerator(x=inputs, y=inputs["label"])
    batches, *_ = generator.generate_dataloader(
        probes, df_to_dict(catalogue), batch_size=BATCH, num_workers=0
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = MatchTrainer(
            create(sizes, users, items), mode=0, in_batch_neg=True, in_batch_neg_ratio=3,
            device="cpu", model_path=folder, n_epoch=1,
            optimizer_params={"lr": RATE, "weight_decay": 1e-6},
        )  # fmt: skip
        started = time.perf_counter()
        trainer.fit(batches)
        seconds = time.perf_counter() - started
    print(json.dumps({"preparation": prepared, "samples_per_second": len(train) / seconds}))


def read(directory: Path) -> tuple[pd.DataFrame, dict[str, int], list[str], list[str]]:
    """The joined table with every id and category as a number from 1, the size of each column's
    vocabulary, and the columns of users and of items."""
    log = pd.read_parquet(directory / "interactions.parquet")
    users, items = ["user_id"], ["item_id"]
    for name, columns in (("users", users), ("items", items)):
        table = pd.read_parquet(directory / f"{name}.parquet")
        texts = [c for c in table.columns[1:] if table[c].map(type).eq(str).all()]
        few = [c for c in texts if table[c].nunique() < 100]
        log = log.merge(table[[table.columns[0], *few]], on=table.columns[0])
        columns += few
    sizes = {}
    for column in users + items:
        log[column] = LabelEncoder().fit_transform(log[column]) + 1
        sizes[column] = int(np.max(log[column])) + 1
    return log, sizes, users, items


def create(sizes: dict[str, int], users: list[str], items: list[str]) -> DSSM:
    def sparse(columns: list[str]) -> list[SparseFeature]:
        return [SparseFeature(c, vocab_size=sizes[c], embed_dim=EMBEDDING) for c in columns]

    history = SequenceFeature(
        "hist_item_id", vocab_size=sizes["item_id"], embed_dim=EMBEDDING, pooling="mean",
        shared_with="item_id",
    )  # fmt: skip
    return DSSM(
        [*sparse(users), history], sparse(items), temperature=0.02, user_params=TOWER,
        item_params=TOWER,
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else len(os.sched_getaffinity(0)))
