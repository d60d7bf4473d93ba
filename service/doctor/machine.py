"""What is installed, what is missing, and what this machine will do."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from contract.errors import ExtraMissing
from contract.index import BACKENDS, load_backend
from service.doctor.finding import Finding

LIBRARIES = {
    "numpy": "",
    "faiss-cpu": "",
    "onnxruntime": "",
    "fastapi": "",
    "uvicorn": "",
    "prometheus-client": "",
    "torch": "offline",
    "polars": "offline",
    "onnx": "offline",
    "onnxscript": "offline",
    "annoy": "annoy",
    "hnswlib": "hnswlib",
    "pymilvus": "milvus",
    "milvus-lite": "milvus",
}
"""Distribution -> the extra that brings it; an empty one is the base install."""

MAPPED = {
    "exact": "item vectors are mapped: one copy for all workers",
    "faiss_flat": "index is mapped: one copy for all workers",
    "faiss_ivf": "index is mapped: one copy for all workers",
    "faiss_ivfpq": "index is mapped: one copy for all workers",
    "faiss_hnsw": "index is mapped; 12 bytes an item are copied by each worker",
    "hnswlib": "index is not mapped: each worker loads a copy of its own",
    "annoy": "index is mapped: one copy for all workers",
    "milvus": "index lies on a server: workers hold none of it",
}


def examine() -> list[Finding]:
    return [*_machine(), *map(_library, LIBRARIES), *map(_backend, BACKENDS)]


def _machine() -> list[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = shutil.disk_usage(".").free / 2**30
    return [
        Finding("python", platform.python_version()),
        Finding("machine", f"{platform.machine()}, {platform.system()} {platform.release()}"),
        Finding("cores", str(cores), f"serve with --workers {max(1, cores)}, one a core"),
        Finding("memory", f"{memory:.1f} GiB"),
        Finding("disk", f"{free:.1f} GiB free here"),
    ]


def _library(name: str) -> Finding:
    extra = LIBRARIES[name]
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        what = f".[{extra}]" if extra else "."
        return Finding(name, "missing", f"pip install -c constraints.txt '{what}'")


def _backend(name: str) -> Finding:
    try:
        load_backend(name)
    except ExtraMissing as error:
        return Finding(f"backend {name}", "missing", str(error))
    return Finding(f"backend {name}", "ready", MAPPED[name])
