from pathlib import Path

import polars as pl
import pytest

from contract.errors import RecipeError
from contract.features import Fields, Schema
from offline.data.dataset import Dataset, prepare
from offline.data.tables import Tables
from offline.models import MODELS, create_model
from offline.recipe import Recipe, parse_recipe, read_recipe
from offline.train import create_objective, create_sampler
from tests.places import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
EMPTY = Schema(users=Fields(), items=Fields(), history_length=3)
TEXT = """
model = "dssm"
[features.items]
title = "text"
[training]
epochs = 7
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(TEXT)
    return tmp_path / "recipe.toml"


def test_what_a_recipe_leaves_out_has_a_default(path: Path) -> None:
    recipe = read_recipe(path)

    assert recipe.model == "dssm"
    assert recipe.features.items == {"title": "text"}
    assert recipe.features.users == {}
    assert (recipe.training.epochs, recipe.training.batch) == (7, 4096)
    assert (recipe.history_length, recipe.seed) == (50, 1)
    assert (recipe.objective, recipe.negatives) == ("softmax", "in_batch")


def test_a_recipe_survives_json(path: Path) -> None:
    recipe = read_recipe(path)

    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ("training.epochs=5", "training", "epochs", 5),
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("parameters.dim=8", "parameters", "dim", 8),
        ("parameters.hidden=[8, 4]", "parameters", "hidden", [8, 4]),
        ("features.users.age=number", "features", "users", {"age": "number"}),
        ('features.users.age="number"', "features", "users", {"age": "number"}),
        ("expect.HR@10=0.25", "expect", "HR@10", 0.25),
    ],
)
def test_a_change_reaches_into_a_section(
    path: Path, change: str, section: str, key: str, value: object
) -> None:
    document = read_recipe(path, [change]).model_dump()

    assert document[section][key] == value


def test_the_last_of_several_changes_counts(path: Path) -> None:
    recipe = read_recipe(path, ["seed=3", "model=other", "seed=4"])

    assert (recipe.seed, recipe.model) == (4, "other")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("epochs", "--set epochs: expected key=value, as in training.epochs=5"),
        ("=5", "--set =5: expected key=value, as in training.epochs=5"),
        ("model.name=x", "--set model.name=x: 'model' is not a section of the recipe"),
        ("epoch=5", "recipe.toml: unknown key 'epoch' (known: model, features, "),
        ("history=5", "unknown key 'history'; did you mean 'histories'? (known: model"),
        ("training.epoch=5", "unknown key 'training.epoch'; did you mean 'epochs'? (known: epochs"),
        ("features.user.age=number", "unknown key 'features.user'; did you mean 'users'?"),
        ("features.users.age=int", "features.users.age: input should be 'category', 'multi'"),
        (
            "events.view=often",
            "events.view: input should be 'both', 'history', 'seen' or 'nothing'",
        ),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, found"),
        ("training.epochs=many", "training.epochs: input should be a valid integer"),
        ("training.learning_rate=nan", "training.learning_rate: input should be"),
        ("training.learning_rate=inf", "training.learning_rate: input should be a finite number"),
        ("training=5", "training: input should be a valid dictionary"),
        (
            "training.length=-1",
            "training.length: input should be greater than or equal to 0, found",
        ),
        ("training.watch=loss", "training.watch: string should match pattern"),
        ("training.watch=HR@0", "training.watch: string should match pattern"),
        ("training.recall_at=10", "unknown key 'training.recall_at'"),
        ("negative=full", "unknown key 'negative'; did you mean 'negatives'?"),
        ("seed=-1", "seed: input should be greater than or equal to 0, found -1"),
        ("history_length=1001", "history_length: input should be less than or equal to 1000, fou"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(path: Path, change: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, [change])

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_a_model_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^x: key 'model' is missing; add it$"):
        parse_recipe({"seed": 1}, "x")


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("model = \n")
    (tmp_path / "latin.toml").write_bytes(b'model = "\xe9"')

    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file: Invalid value"):
        read_recipe(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"latin\.toml: not a TOML file: .*utf-8"):
        read_recipe(tmp_path / "latin.toml")
    with pytest.raises(RecipeError, match=r"none\.toml: no such recipe; see the recipes folder"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match=r"cannot be read \(Is a directory\); give a .toml file"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_repository_name_what_there_is(path: Path) -> None:
    recipe = read_recipe(path)

    assert recipe.model in MODELS
    create_model(recipe.model, EMPTY, 2, 2, recipe.parameters)
    create_objective(recipe)
    create_sampler(recipe, one_item())


def one_item() -> Dataset:
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [0]})
    return prepare(Tables(log, None, None), {}, {}, 3)


def test_there_are_recipes() -> None:
    assert RECIPES


def test_an_unknown_model_or_objective_is_refused() -> None:
    with pytest.raises(RecipeError, match="model 'dsm': unknown; known are dssm"):
        create_model("dsm", EMPTY, 2, 2, {})
    with pytest.raises(RecipeError, match="objective 'magic': unknown; known are softmax, bce"):
        create_objective(parse_recipe({"model": "dssm", "objective": "magic"}, "x"))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"dims": 3}, "model 'dssm': unknown parameter 'dims'; known are dim, history_dim"),
        ({"users": 3}, "model 'dssm': unknown parameter 'users'"),
        ({"dim": "3"}, "model 'dssm': parameter 'dim' expected int, found '3'"),
        ({"dim": 3.0}, "model 'dssm': parameter 'dim' expected int, found 3.0"),
        ({"dim": True}, "model 'dssm': parameter 'dim' expected int, found True"),
        ({"dropout": False}, "model 'dssm': parameter 'dropout' expected float, found False"),
        ({"dim": -1}, "model 'dssm': dim is -1, expected at least 1"),
        ({"dim": 0}, "model 'dssm': dim is 0, expected at least 1"),
        ({"dropout": 2}, "model 'dssm': dropout is 2, expected 0 or more and below 1"),
        ({"id_dropout": -0.5}, "model 'dssm': id_dropout is -0.5, expected 0 to 1"),
        ({"id_dropout": float("nan")}, "model 'dssm': id_dropout is nan, expected 0 to 1"),
    ],
)
def test_a_parameter_that_a_model_cannot_have_is_refused(
    parameters: dict[str, object], words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        create_model("dssm", EMPTY, 2, 2, parameters)

    assert str(caught.value).startswith(words)


def test_a_whole_number_will_do_for_a_parameter_with_fractions() -> None:
    create_model("dssm", EMPTY, 2, 2, {"dropout": 0})


def test_the_parameters_of_an_objective_are_checked() -> None:
    recipe = parse_recipe({"model": "dssm", "objective_parameters": {"temprature": 1.0}}, "x")

    with pytest.raises(
        RecipeError, match="objective 'softmax': unknown parameter 'temprature'; kn"
    ):
        create_objective(recipe)


@pytest.mark.parametrize("name", ["sasrec", "cadence"])
@pytest.mark.parametrize("parameter", ["layers", "heads", "dim"])
def test_a_model_without_layers_heads_or_dimensions_is_refused(name: str, parameter: str) -> None:
    with pytest.raises(RecipeError, match=f"model '{name}': {parameter} is 0, expected at least 1"):
        create_model(name, EMPTY, 2, 2, {parameter: 0})


def test_a_temperature_that_would_turn_the_objective_round_is_refused() -> None:
    recipe = parse_recipe({"model": "dssm", "objective_parameters": {"temperature": -0.1}}, "x")

    with pytest.raises(RecipeError, match=r"'softmax': temperature is -0\.1, expected above 0"):
        create_objective(recipe)


@pytest.mark.parametrize("segment", ["planet", "age"])
def test_a_segment_that_is_no_category_of_users_is_refused(segment: str) -> None:
    users = {"age": "number", "country": "category"}
    document = {"model": "dssm", "features": {"users": users}, "popularity": {"segment": segment}}

    with pytest.raises(RecipeError, match=rf"popularity.segment is '{segment}'.*known: country"):
        parse_recipe(document, "x.toml")


def test_an_unknown_key_of_popularity_is_refused_with_what_is_known() -> None:
    with pytest.raises(RecipeError, match="did you mean 'half_life_days'"):
        parse_recipe({"model": "dssm", "popularity": {"half_life_day": 3}}, "x.toml")


@pytest.mark.parametrize(
    ("histories", "words"),
    [
        (["view", "like", "view"], "x: histories: value error, expected each kind once, found"),
        (["view", "show"], "x: histories has 'show', whose events do not count as history; "),
        ([f"k{n}" for n in range(17)], "x: histories: tuple should have at most 16 items"),
    ],
)
def test_histories_that_cannot_be_told_apart_are_refused(histories: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"model": "dssm", "events": {"show": "seen"}, "histories": histories}, "x")

    assert str(caught.value).startswith(words)


def test_a_model_of_one_history_is_refused_where_the_recipe_has_several() -> None:
    several = EMPTY.model_copy(update={"histories": ("view", "like")})

    with pytest.raises(
        RecipeError,
        match=r"model 'sasrec': reads one history, the recipe has more \(view, like\); leave "
        r"histories out or take dssm, facebook_dssm, cdssm, youtube_dnn, youtube_sbc",
    ):
        create_model("sasrec", several, 2, 2, {})
    with pytest.raises(RecipeError, match="model 'dssm': unknown parameter 'histories'"):
        create_model("dssm", several, 2, 2, {"histories": 3})
