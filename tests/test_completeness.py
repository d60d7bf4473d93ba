"""Did you also document it? Every name that a user may meet, against the documents."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from fastapi.routing import APIRoute

import tandem
from contract import errors, manifest
from contract.bundle import ARRAYS
from contract.features import KINDS, Fields
from contract.index import BACKENDS, BackendName, load_backend
from contract.popularity import Popularity
from contract.reference import Reference
from offline.models import DATA_PARAMETERS, MODELS
from offline.negatives import NEGATIVES
from offline.objectives import OBJECTIVES
from offline.recipe import Features, Recipe, Training, read_recipe
from service import console
from service.doctor.machine import MAPPED
from service.errors import status_of
from service.routes import ROUTERS
from service.settings import Settings, options
from tandem import main
from tests.contract.test_index_contract import CASES
from tests.documents import DOCUMENTS, metrics, section, table, tables, text
from tests.places import ROOT

MODELS_MD, OPERATIONS, API = "docs/models.md", "docs/operations.md", "docs/http-api.md"
FORMAT, BACKENDS_MD = "docs/bundle-format.md", "docs/backends.md"
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
FIELD_KEYS = {"name", "kind"}


def error_classes() -> list[type[errors.TandemError]]:
    known = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in known if issubclass(kind, errors.TandemError)]


def test_every_model_has_a_row_and_a_recipe() -> None:
    assert table(MODELS_MD, "model", "recipe").column("model") == list(MODELS)
    assert {read_recipe(path).model for path in RECIPES} == set(MODELS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_named_and_promises_a_figure(path: Path) -> None:
    assert read_recipe(path).expect
    assert f"`recipes/{path.name}`" in text(MODELS_MD)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_a_model_is_documented_with_its_default(name: str) -> None:
    assert documented(f"### `{name}`") == parameters(MODELS[name])


@pytest.mark.parametrize(
    ("column", "known"),
    [("objective", OBJECTIVES), ("negatives", NEGATIVES)],
    ids=["objectives", "negatives"],
)
def test_every_objective_and_sampler_is_documented_with_its_defaults(
    column: str, known: dict[str, object]
) -> None:
    rows = table(MODELS_MD, column, "parameters").rows

    found = {name: dict(re.findall(r"`?(\w+)=([^,`]*)`?", cell)) for name, cell, *_ in rows}
    assert list(found) == list(known)
    for name, factory in known.items():
        assert found[name] == {n: v for n, v in parameters(factory).items() if n != "counts"}


def test_every_key_of_a_recipe_is_documented() -> None:
    keys = set(Recipe.model_fields) - {"features", "training", "popularity"}
    keys |= {f"training.{name}" for name in Training.model_fields}
    keys |= {f"features.{name}" for name in Features.model_fields}
    keys |= {f"popularity.{name}" for name in Popularity.model_fields}

    cells = table(MODELS_MD, "key").column("key")
    assert {part.strip("`") for cell in cells for part in cell.split(", ")} == keys


def test_every_default_of_the_training_is_documented() -> None:
    rows = dict(zip(*(table(MODELS_MD, "key").column(c) for c in ("key", "default")), strict=True))

    for name, field in Training.model_fields.items():
        assert rows[f"training.{name}"] == str(field.default)


def test_every_feature_kind_is_documented() -> None:
    assert table(MODELS_MD, "kind").column("kind") == list(KINDS)


def test_every_backend_is_tried_and_documented() -> None:
    assert list(get_args(BackendName)) == list(BACKENDS) == list(CASES)
    for name in BACKENDS:
        assert f"`{name}`" in section(OPERATIONS, "## Tuning")
        assert f"`{name}`" in section(FORMAT, "## The files of a bundle")
        assert (filename := load_backend(name).filename) is None or f"`{filename}`" in text(FORMAT)


def test_every_parameter_of_a_backend_is_documented_with_its_default() -> None:
    rows = table(BACKENDS_MD, "backend", "exact").rows

    assert [row[0] for row in rows] == list(BACKENDS)
    for name, *_, build, search, _ in rows:
        backend = load_backend(name)
        for cell, kind in ((build, backend.Build), (search, backend.Search)):
            found = dict(re.findall(r"`?(\w+)=([^,`]*)`?", cell))
            assert found == {field.name: str(field.default) for field in fields(kind)}


def test_every_backend_is_in_the_help_and_the_doctor_knows_its_memory() -> None:
    assert list(MAPPED) == list(BACKENDS)
    assert re.findall(r"\w+", tandem.BACKENDS.replace(" or ", ", ")) == list(BACKENDS)


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    documented = table(OPERATIONS, "metric")
    found = {row[0]: (row[1], row[2]) for row in documented.rows}

    assert found == {name: (m.kind, ", ".join(m.labels)) for name, m in metrics().items()}


def test_every_setting_is_documented() -> None:
    settings = table(OPERATIONS, "flag")

    assert settings.column("flag") == [option.flag for option in options()]
    for flag, variable, default in zip(
        *(settings.column(c) for c in ("flag", "variable", "default")), strict=True
    ):
        name = flag.removeprefix("--").replace("-", "_")
        known = Settings.model_fields[name].default
        assert variable == f"TANDEM_{name.upper()}"
        assert known is None or default == str(known)
        assert f"`{flag}`" in text("README.md")


def test_every_error_is_documented_with_its_code_and_status() -> None:
    rows = [row for t in tables(API) if t.header[0] == "error" for row in t.rows]

    assert sorted(tuple(row[:3]) for row in rows) == sorted(
        (kind.__name__, kind.code, str(status_of(kind("")))) for kind in error_classes()
    )


def test_every_route_is_documented() -> None:
    routers = (*ROUTERS, console.router)
    served = {
        f"{method} {route.path.replace(':id', '')}"
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    assert set(table(API, "route").column("route")) == served | {"GET /docs"}
    for route in served:
        path = route.partition(" ")[2]
        assert path.partition("{")[0] in text("README.md")


def test_the_arrays_of_a_bundle_are_documented() -> None:
    found = {row[0]: (row[1], row[2]) for row in table(FORMAT, "array").rows}

    assert found == {
        name: (dtype, f"({', '.join('any' if s is None else str(s) for s in shape)})")
        for name, (dtype, shape) in ARRAYS.items()
    }


def test_the_manifest_is_documented() -> None:
    parts = (
        manifest.Manifest,
        manifest.Dims,
        manifest.Index,
        Popularity,
        Reference,
        manifest.FileEntry,
        manifest.Check,
    )

    documented = [t.column("key") for t in tables(FORMAT) if t.header[0] == "key"]

    assert documented == [list(part.model_fields) for part in parts]


def test_the_feature_schema_is_documented() -> None:
    kinds = table(FORMAT, "kind")
    keys = [set(re.findall(r"`(\w+)`", cell) or [cell]) for cell in kinds.column("keys")]

    assert dict(zip(kinds.column("kind"), keys, strict=True)) == {
        name: set(kind.model_fields) - FIELD_KEYS for name, kind in KINDS.items()
    }
    assert list(Fields.model_fields) == ["fields"]


def test_every_verb_is_in_the_readme() -> None:
    verbs = re.findall(r"^tandem (\w+)  ", section("README.md", "## The command line"), re.M)

    assert verbs == list(main.commands)


def test_every_link_leads_somewhere() -> None:
    broken = []
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            file, _, anchor = target.partition("#")
            there = path.parent / file if file else path
            if "://" not in target and not (there.exists() and anchor_of(there, anchor)):
                broken.append(f"{path.name}: {target}")

    assert broken == []


def anchor_of(path: Path, anchor: str) -> bool:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M) if anchor else []
    slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    return not anchor or anchor in slugs


def documented(heading: str) -> dict[str, str]:
    """Parameter -> default, out of the table under a heading of the models' page."""
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", section(MODELS_MD, heading), re.M)
    return dict(rows)


def parameters(target: object) -> dict[str, str]:
    assert callable(target)
    known = inspect.signature(target).parameters
    return {name: str(p.default) for name, p in known.items() if name not in DATA_PARAMETERS}
