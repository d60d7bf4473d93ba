"""torch-rechub's models by name, beside Tandem's of the same name under one protocol.

Run by the Python of an environment of its own, where Tandem is not installed, on a directory of
tables as `tandem data` writes them:

    python -m venv peer
    peer/bin/pip install torch==2.13.0 torch-rechub annoy pandas scikit-learn pyarrow
    peer/bin/python benchmarks/peer_models.py gru4rec data/ml-1m --ranked gru4rec.parquet

The settings are those of the library's own examples of matching (examples/matching/run_*.py), those
for MovieLens where there are such; NARM and STAMP have one for sessions. Histories, negatives and
vectors are made by the library's functions, so are their faults: `padding="post"` cuts a long
history down to its oldest items. Items are ranked by cosine, as the library's evaluation does it,
for NARM and STAMP by inner product, as their training does.

Each user's last item is the target, all that he has seen before is left out. Prints one line of
JSON: the metrics, seconds of preparation and training. `--ranked` writes the 200 best items of each
user: Parquet.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import LabelEncoder
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models import matching
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator, array_replace_with_dict, df_to_dict
from torch_rechub.utils.match import gen_model_input, generate_seq_feature_match

PROFILE = ("gender", "age", "occupation", "zip_code")
POINTWISE, PAIRWISE, LISTWISE = 0, 1, 2
KS = (10, 50, 100, 200)
Loaders = tuple[DataLoader[Any], DataLoader[Any], DataLoader[Any]]
"""Of samples, of users to ask for, of items."""


class Setting(NamedTuple):
    """Of one example."""

    mode: int
    epochs: int
    rate: float
    batch: int
    decay: float = 1e-6
    negatives: int = 3
    length: int = 50
    padding: str = "pre"
    in_batch: bool = False
    cosine: bool = True


class Log(NamedTuple):
    table: pd.DataFrame
    """Every interaction with the profile of its user and the first genre of its item, all of them
    as numbers from 1."""
    sizes: dict[str, int]
    ids: dict[str, np.ndarray]
    """Column -> what its numbers stand for, from 1 on."""


class Features(NamedTuple):
    """What the library's models are told of the columns."""

    sizes: dict[str, int]

    def sparse(self, *names: str, width: int = 16) -> list[SparseFeature]:
        return [SparseFeature(name, vocab_size=self.sizes[name], embed_dim=width) for name in names]

    def history(self, pooling: str, width: int = 16) -> SequenceFeature:
        return SequenceFeature(
            "hist_item_id", vocab_size=self.sizes["item_id"], embed_dim=width, pooling=pooling,
            shared_with="item_id",
        )  # fmt: skip

    def negatives(self) -> list[SequenceFeature]:
        return [
            SequenceFeature(
                "neg_items", vocab_size=self.sizes["item_id"], embed_dim=16, pooling="concat",
                shared_with="item_id",
            )
        ]  # fmt: skip

    def user(self, *more: SequenceFeature) -> list[Any]:
        return [*self.sparse("user_id", *PROFILE), *more]


def _dssm(f: Features) -> Any:
    tower = {"dims": [256, 128, 64], "activation": "prelu"}
    return matching.DSSM(
        f.user(f.history("mean")), f.sparse("item_id", "genre"), temperature=0.02,
        user_params=tower, item_params=tower,
    )  # fmt: skip


def _facebook_dssm(f: Features) -> Any:
    tower = {"dims": [256, 128, 64, 32]}
    negatives = [
        SparseFeature("neg_items", vocab_size=f.sizes["item_id"], embed_dim=16),
        SparseFeature("neg_cate", vocab_size=f.sizes["genre"], embed_dim=16),
    ]
    return matching.FaceBookDSSM(
        f.user(f.history("mean")), f.sparse("item_id", "genre"), negatives, temperature=0.02,
        user_params=tower, item_params=tower,
    )  # fmt: skip


def _youtube_dnn(f: Features) -> Any:
    return matching.YoutubeDNN(
        f.user(f.history("mean")), f.sparse("item_id"), f.negatives(),
        user_params={"dims": [128, 64, 16]}, temperature=0.02,
    )  # fmt: skip


def _youtube_sbc(f: Features) -> Any:
    tower = {"dims": [128, 64, 16]}
    return matching.YoutubeSBC(
        f.user(f.history("mean")), f.sparse("item_id", "genre"), [DenseFeature("sample_weight")],
        user_params=tower, item_params=tower, batch_size=SETTINGS["youtube_sbc"].batch, n_neg=3,
        temperature=0.02,
    )  # fmt: skip


def _gru4rec(f: Features) -> Any:
    return matching.GRU4Rec(
        f.user(), [f.history("concat")], f.sparse("item_id"), f.negatives(),
        user_params={"dims": [128, 64, 16]}, temperature=0.02,
    )  # fmt: skip


def _several(kind: Any, **more: int) -> Callable[[Features], Any]:
    return lambda f: kind(
        f.user(), [f.history("concat")], f.sparse("item_id"), f.negatives(), temperature=0.02,
        **more,
    )  # fmt: skip


def _sine(f: Features) -> Any:
    return matching.SINE(
        ["hist_item_id"], ["item_id"], ["neg_items"], f.sizes["item_id"], 128, 512, 50, 4,
        SETTINGS["sine"].length, temperature=0.1,
    )  # fmt: skip


def _narm(f: Features) -> Any:
    return matching.NARM(f.history("concat", 100), 50, 0.25, 0.5)


def _stamp(f: Features) -> Any:
    return matching.STAMP(f.history("concat", 100), 0.05, 0.002)


BUILD: dict[str, Callable[[Features], Any]] = {
    "dssm": _dssm,
    "facebook_dssm": _facebook_dssm,
    "youtube_dnn": _youtube_dnn,
    "youtube_sbc": _youtube_sbc,
    "gru4rec": _gru4rec,
    "mind": _several(matching.MIND, max_length=50),
    "comirec_dr": _several(matching.ComirecDR, max_length=50),
    "comirec_sa": _several(matching.ComirecSA),
    "sine": _sine,
    "narm": _narm,
    "stamp": _stamp,
}
_SEQUENCES = Setting(LISTWISE, epochs=10, rate=1e-3, batch=256, padding="post")
_SESSIONS = Setting(
    LISTWISE, epochs=30, rate=1e-3, batch=512, decay=0.0, length=19, padding="post", cosine=False
)
SETTINGS = {
    "dssm": Setting(POINTWISE, epochs=5, rate=1e-4, batch=256, negatives=0, in_batch=True),
    "facebook_dssm": Setting(PAIRWISE, epochs=10, rate=1e-4, batch=2048),
    "youtube_dnn": Setting(LISTWISE, epochs=10, rate=1e-4, batch=2048),
    "youtube_sbc": Setting(POINTWISE, epochs=8, rate=1e-3, batch=512, negatives=0),
    "gru4rec": _SEQUENCES,
    "mind": _SEQUENCES,
    "comirec_dr": _SEQUENCES,
    "comirec_sa": _SEQUENCES,
    "sine": Setting(
        LISTWISE, epochs=3, rate=1e-4, batch=256, decay=1e-4, length=20, padding="post"
    ),
    "narm": _SESSIONS,
    "stamp": _SESSIONS,
}


def main(
    name: str, directory: Path, epochs: int | None, ranked: Path | None, keep: Path | None
) -> None:
    torch.manual_seed(2022)
    np.random.seed(2022)
    # The gradients of SINE and NARM underflow: their steps take 2 to 4 times as long with denormal
    # numbers, and end at the same losses.
    torch.set_flush_denormal(True)
    setting = SETTINGS[name]
    log = read(directory)
    features = Features(log.sizes)
    started = time.perf_counter()
    train, test, catalogue = inputs(name, setting, log)
    prepared = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = BUILD[name](features)
        trainer = MatchTrainer(
            model, mode=LISTWISE if name == "youtube_sbc" else setting.mode, device="cpu",
            in_batch_neg=setting.in_batch, in_batch_neg_ratio=3 if setting.in_batch else None,
            optimizer_params={"lr": setting.rate, "weight_decay": setting.decay},
            n_epoch=epochs or setting.epochs, model_path=folder,
        )  # fmt: skip
        loaders = load(name, setting, train, test, catalogue)
        fit(trainer, loaders[0], keep)
        seconds = time.perf_counter() - prepared
        users, items = vectors(name, trainer, model, loaders, catalogue, Path(folder))
    found = rank(users, items, setting, log, test, catalogue)
    if ranked:
        frame = pd.DataFrame({"user_id": list(found), "ranked": list(found.values())})
        frame.to_parquet(ranked)
    if keep:
        keep.unlink()
    times = {"preparation": prepared - started, "training": seconds}
    print(json.dumps({"model": name} | score(found, log) | times))


def read(directory: Path) -> Log:
    table = pd.read_parquet(directory / "interactions.parquet")
    users = pd.read_parquet(directory / "users.parquet")
    items = pd.read_parquet(directory / "items.parquet")
    items["genre"] = [genres[0] if len(genres) else "" for genres in items["genres"]]
    table = table.merge(users[["user_id", *PROFILE]], on="user_id")
    table = table.merge(items[["item_id", "genre"]], on="item_id")
    sizes, ids = {}, {}
    for column in ("user_id", *PROFILE, "item_id", "genre"):
        encoder = LabelEncoder()
        table[column] = encoder.fit_transform(table[column]) + 1
        sizes[column], ids[column] = int(table[column].max()) + 1, encoder.classes_
    share = table["item_id"].value_counts() / len(table)
    table["sample_weight"] = table["item_id"].map(share)
    return Log(table, sizes, ids)


def inputs(
    name: str, setting: Setting, log: Log
) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    """What the model is trained on, what it is asked, and the items."""
    profiles = log.table[["user_id", *PROFILE]].drop_duplicates("user_id")
    columns = ["item_id", "genre"] + (["sample_weight"] if name == "youtube_sbc" else [])
    catalogue = log.table[columns].drop_duplicates("item_id")
    parts = generate_seq_feature_match(
        log.table.copy(), "user_id", "item_id", time_col="timestamp", item_attribute_cols=[],
        sample_method=1, mode=setting.mode, neg_ratio=setting.negatives,
    )  # fmt: skip
    train, test = (
        gen_model_input(
            part, profiles, "user_id", catalogue, "item_id", seq_max_len=setting.length,
            padding=setting.padding, truncating=setting.padding,
        )
        for part in parts
    )  # fmt: skip
    if name == "facebook_dssm":
        genres = dict(zip(catalogue["item_id"], catalogue["genre"], strict=True))
        train["neg_cate"] = array_replace_with_dict(train["neg_items"], genres)
    return train, test, catalogue


def load(
    name: str,
    setting: Setting,
    train: dict[str, Any],
    test: dict[str, Any],
    catalogue: pd.DataFrame,
) -> Loaders:
    if setting.cosine:
        labels = train["label"] if setting.in_batch else np.zeros(len(train["user_id"]))
        x, probes = train, test
    else:
        # A softmax over all items: the label is the item itself.
        labels = train["item_id"]
        x, probes = ({"hist_item_id": part["hist_item_id"]} for part in (train, test))
    generator = MatchDataGenerator(x=x, y=labels)
    loaders: Loaders = generator.generate_dataloader(
        probes, df_to_dict(catalogue), batch_size=setting.batch, num_workers=0
    )
    return loaders


def fit(trainer: MatchTrainer, samples: DataLoader[Any], keep: Path | None) -> None:
    """As its own `fit`, but goes on from what `keep` has of a training before."""
    done = 0
    if keep and keep.exists():
        done, model, optimizer, numbers = torch.load(keep)
        trainer.model.load_state_dict(model)
        trainer.optimizer.load_state_dict(optimizer)
        torch.set_rng_state(numbers)
    for epoch in range(done, trainer.n_epoch):
        trainer.train_one_epoch(samples)
        if keep:
            states = trainer.model.state_dict(), trainer.optimizer.state_dict()
            torch.save((epoch + 1, *states, torch.get_rng_state()), keep)
    trainer.n_epoch = 0
    trainer.fit(samples)  # writes the model, for its own inference


@torch.no_grad()
def vectors(
    name: str,
    trainer: MatchTrainer,
    model: Any,
    loaders: Loaders,
    catalogue: pd.DataFrame,
    folder: Path,
) -> tuple[Tensor, Tensor]:
    """Of the users (U, K, D), of the items (N, D) in the order of the catalogue."""
    _, asked, items = loaders
    users = trainer.inference_embedding(model, "user", asked, str(folder))
    if SETTINGS[name].cosine:
        found = trainer.inference_embedding(model, "item", items, str(folder))
    else:
        found = model.item_emb(torch.from_numpy(np.asarray(catalogue["item_id"])))
    return users.reshape(len(users), -1, found.shape[-1]), found


def rank(
    users: Tensor,
    items: Tensor,
    setting: Setting,
    log: Log,
    test: dict[str, Any],
    catalogue: pd.DataFrame,
) -> dict[Any, list[Any]]:
    """User -> the best items, without those seen before the last one."""
    if setting.cosine:
        users, items = normalize(users, dim=2), normalize(items, dim=1)
    codes = np.asarray(catalogue["item_id"])
    table = log.table.sort_values("timestamp", kind="stable")
    seen = {user: its[:-1] for user, its in table.groupby("user_id")["item_id"].apply(list).items()}
    ranked = {}
    for user, own in zip(np.asarray(test["user_id"]).tolist(), users, strict=True):
        scores = (own @ items.T).max(dim=0).values.numpy()
        scores[np.isin(codes, seen[user])] = -math.inf
        best = codes[np.argsort(-scores, kind="stable")[: max(KS)]]
        ranked[log.ids["user_id"][user - 1]] = log.ids["item_id"][best - 1].tolist()
    return ranked


def score(ranked: dict[Any, list[Any]], log: Log) -> dict[str, float]:
    last = log.table.sort_values("timestamp", kind="stable").groupby("user_id")["item_id"].last()
    places = []
    for user, item in last.items():
        found = ranked[log.ids["user_id"][user - 1]]
        wanted = log.ids["item_id"][item - 1]
        places.append(found.index(wanted) if wanted in found else math.inf)
    hits = {f"HR@{k}": float(np.mean([place < k for place in places])) for k in KS}
    gains = [1 / math.log2(place + 2) if place < 10 else 0.0 for place in places]
    return {name: round(hit, 4) for name, hit in hits.items()} | {
        "NDCG@10": round(float(np.mean(gains)), 4)
    }


if __name__ == "__main__":
    cli = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument("model", choices=sorted(SETTINGS))
    cli.add_argument("data", type=Path)
    cli.add_argument("--epochs", type=int, help="Instead of the example's.")
    cli.add_argument("--ranked", type=Path)
    cli.add_argument("--keep", type=Path, help="The state after each epoch; deleted at the end.")
    given = cli.parse_args()
    main(given.model, given.data, given.epochs, given.ranked, given.keep)
