"""The arrows between the packages: by every import of every file, and by what is really loaded."""

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.places import ROOT

PACKAGES = ("contract", "offline", "service")
ABOVE = ("tandem", "benchmarks", "tests")
WEB = ("fastapi", "starlette", "uvicorn")

# Files -> what they never import, not even inside a function.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "contract/**/*.py": (*ABOVE, *WEB, "offline", "service", "torch", "onnxruntime", "polars"),
    "offline/**/*.py": (*ABOVE, *WEB, "service"),
    "service/**/*.py": (*ABOVE, "offline", "torch", "polars", "onnx", "onnxscript"),
    "offline/models/*.py": ("offline.data", "offline.recipe", "offline.train", "offline.run"),
    "service/engine.py": (*WEB, "asyncio", "os", "pathlib", "sqlite3", "logging", "onnxruntime"),
    **{
        f"service/{name}.py": (*WEB, "asyncio", "os", "pathlib", "sqlite3", "logging")
        for name in ("candidates", "sources", "fusion", "slate", "explore", "blend", "explain")
    },
    "service/routes/*.py": ("onnxruntime", "numpy", "contract.index", "contract.bundle"),
}

# What loads no library that the verb or the package can do without.
LOADED: dict[str, tuple[str, ...]] = {
    "import service.app": ("torch", "polars", "onnx", "offline", "pymilvus", "pandas"),
    "import contract.bundle, contract.store, contract.journal, contract.features, contract.index": (
        *WEB,
        "torch",
        "onnxruntime",
        "polars",
        "offline",
        "service",
        "faiss",
        "annoy",
        "hnswlib",
        "pymilvus",
    ),
    "import service.server": (*WEB, "numpy", "onnxruntime", "torch", "polars"),
    "import tandem": (*WEB, "torch", "onnxruntime", "polars", "faiss", "numpy"),
    "import tandem; tandem.main(['serve', '--help'], standalone_mode=False)": ("torch", "polars"),
}


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(pattern: str, forbidden: Sequence[str], root: Path = ROOT) -> list[str]:
    files = sorted(root.glob(pattern))
    assert files, f"no file matches {pattern}"
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in files
        for name in sorted(imports(path))
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_imports_follow_the_arrows(pattern: str) -> None:
    assert offences(pattern, FORBIDDEN[pattern]) == []


def test_an_import_inside_a_function_is_an_offence_too(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def f() -> None:\n    from torch.nn import Linear\n")
    (tmp_path / "two.py").write_text("import torchvision\n")

    found = offences("*.py", ("torch",), tmp_path)

    assert found == ["one.py imports torch.nn", "one.py imports torch.nn.Linear"]


def test_one_backend_does_not_know_another() -> None:
    for path in sorted((ROOT / "contract" / "index").glob("*.py")):
        others = {
            f"contract.index.{other.stem}"
            for other in path.parent.glob("*.py")
            if other != path
            and not other.stem.startswith("_")
            and other.stem not in ("base", "exact")
        }
        assert not imports(path) & others, path


def test_every_file_of_the_packages_is_covered() -> None:
    covered = {path for pattern in FORBIDDEN for path in ROOT.glob(pattern)}

    assert {path for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py")} <= covered


@pytest.mark.parametrize("code", LOADED)
def test_what_is_loaded_leaves_out_what_is_not_needed(code: str) -> None:
    script = f"import json, sys\n{code}\nprint('\\n' + json.dumps(list(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert loaded & set(LOADED[code]) == set()
