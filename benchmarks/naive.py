"""The service that everyone writes first: FastAPI, a torch tower, a FAISS index in memory.

It has the vectors, the history length and the tower sizes of the planted world. It leaves out
nothing that a user has seen, takes no new items and writes nothing down. ITEMS and INDEX (flat or
hnsw) come from the environment.
"""

import os

import faiss
import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn

from benchmarks.planted import HISTORY
from benchmarks.search import DIM, clustered

USERS, USER_DIM, FIELDS, HIDDEN = 10_000, 32, 17, 256
EDGES, EF_SEARCH = 32, 128


class UserTower(nn.Module):
    def __init__(self, items: int) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, USER_DIM)
        self.item = nn.Embedding(items, DIM)
        self.tower = nn.Sequential(
            nn.Linear(USER_DIM + FIELDS + DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)
        )

    def forward(self, user: Tensor, profile: Tensor, history: Tensor) -> Tensor:
        pooled = self.item(history).mean(dim=1)
        vectors = self.tower(torch.cat([self.user(user), profile, pooled], dim=1))
        return nn.functional.normalize(vectors, dim=1)


class Item(BaseModel):
    item_id: str
    score: float


class Recommendations(BaseModel):
    user_id: int
    items: list[Item]


def create_app() -> FastAPI:
    items = int(os.environ["ITEMS"])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    index = index_of(items, os.environ["INDEX"])
    tower, rng = UserTower(items).eval(), np.random.default_rng(1)
    histories = rng.integers(0, items, (USERS, HISTORY))
    profiles = rng.standard_normal((USERS, FIELDS), dtype=np.float32)
    app = FastAPI()

    @app.get("/{user_id}", response_model=Recommendations)
    def recommend(user_id: int, k: int = 50) -> object:
        with torch.no_grad():
            vector = tower(
                torch.tensor([user_id]),
                torch.from_numpy(profiles[user_id : user_id + 1]),
                torch.from_numpy(histories[user_id : user_id + 1]),
            ).numpy()
        scores, rows = index.search(vector, k)
        found = zip(rows[0], scores[0], strict=True)
        return {
            "user_id": user_id,
            "items": [{"item_id": str(row), "score": float(score)} for row, score in found],
        }

    return app


def index_of(items: int, kind: str) -> "faiss.Index":
    index: faiss.Index = faiss.IndexFlatIP(DIM)
    if kind == "hnsw":
        index = graph = faiss.IndexHNSWFlat(DIM, EDGES, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efSearch = EF_SEARCH
    index.add(clustered(items, 0))
    return index
