"""What holds for the recipe of every method; a new file in `benchctl/methods` is covered without a line here."""

from __future__ import annotations

from types import ModuleType

import pytest

from benchctl import lookup
from benchctl.data.augment import geometric_operations
from benchctl.plan import paper_recipe
from benchctl.recipe import Recipe

PRESETS = sorted(lookup.entries("method"))
DATASETS = sorted(lookup.entries("dataset"))
#: one preset of each file
FILES = sorted({lookup.entry("method", name).module: name for name in PRESETS}.values())


def recipes(preset: str) -> dict[str, Recipe]:
    """By data set; "" where there is none."""
    module = lookup.load("method", preset)
    return {dataset: paper_recipe(module, preset, dataset or None) for dataset in ("", *DATASETS)}


@pytest.mark.parametrize("preset", PRESETS)
def test_recipes_can_be_trained_with(preset: str) -> None:
    for recipe in {each.model_dump_json(): each for each in recipes(preset).values()}.values():
        # what flips where left and right are classes would be refused there
        assert recipe.flip in (False, "if-safe")
        if recipe.rand_augment is not None:
            assert geometric_operations(recipe.rand_augment)
        if recipe.batch_size is not None:
            assert recipe.misfit(recipe.batch_size) is None
        # every batch that a GPU takes
        assert all(recipe.misfit(size) is None for size in (4, 8, 16, 32))
        assert recipe.warmup_fraction < min(recipe.drop_at or (1.0,))


@pytest.mark.parametrize("preset", FILES)
def test_what_is_published_is_said(preset: str) -> None:
    """How long the paper trains and for which step its rate is, or in the docstring that it does not say."""
    module = lookup.load("method", preset)
    about = " ".join((module.__doc__ or "").split())
    assert "recipe" in about
    if module.RECIPE.epochs is None:
        assert "no epochs" in about
    if module.RECIPE.batch_size is None:
        assert "clips a step" in about or "MovT's" in about


@pytest.mark.parametrize("preset", FILES)
def test_recipes_differ_by_names_that_there_are(preset: str) -> None:
    module = lookup.load("method", preset)
    for key, changes in getattr(module, "RECIPES", {}).items():
        own, _, dataset = key.partition("/")
        assert (own in module.PRESETS and (not dataset or dataset in DATASETS)) or (own in DATASETS and not dataset), key
        assert set(changes) <= set(Recipe.model_fields), key
        changed = module.RECIPE.changed(changes)
        assert changed != module.RECIPE, f"{key} changes nothing"


def test_the_preset_goes_over_the_data_set_and_both_over_either() -> None:
    def file(**differing: dict[str, object]) -> ModuleType:
        module = ModuleType("file")
        module.RECIPE, module.RECIPES = Recipe(epochs=1, batch_size=1), {k.replace("__", "/"): v for k, v in differing.items()}  # type: ignore[attr-defined]
        return module

    module = file(ssv2={"epochs": 2, "batch_size": 2, "mixup": 0.2}, big={"epochs": 3, "batch_size": 3}, big__ssv2={"epochs": 4})
    both = paper_recipe(module, "big", "ssv2")
    assert (both.epochs, both.batch_size, both.mixup) == (4, 3, 0.2)
    assert paper_recipe(module, "big", None) == Recipe(epochs=3, batch_size=3)
    assert paper_recipe(module, "small", "jester") == Recipe(epochs=1, batch_size=1)


def test_printed_recipes() -> None:
    """A few values as their papers print them."""
    moss = {name: recipes(name) for name in ("moss-s", "moss-l")}
    assert (moss["moss-s"]["ssv2"].learning_rate, moss["moss-l"]["ssv2"].learning_rate) == (1e-3, 2e-4)
    assert (moss["moss-s"]["kinetics400"].sampling, moss["moss-s"]["kinetics400"].frame_stride) == ("dense", 8)
    assert (moss["moss-s"]["diving48"].rand_augment, moss["moss-l"]["diving48"].batch_size) == (None, 80)
    moose = recipes("moose-b")[""]
    assert (moose.optimizer, moose.learning_rate, moose.weight_decay, moose.epochs, moose.batch_size) == ("sgd", 5e-3, 1e-4, 20, 96)
    emim = recipes("emim-s")
    assert [(emim[d].learning_rate, emim[d].epochs) for d in ("kinetics400", "ssv1", "ssv2")] == [(1e-4, 110), (2e-4, 50), (2e-4, 60)]
    time = recipes("time-videomae")
    assert [(time[d].learning_rate, time[d].epochs, time[d].weight_decay) for d in ("hmdb51", "ucf101")] == [
        (1e-3, 50, 0.7),
        (5e-4, 100, 0.7),
    ]
    assert (recipes("movt")[""].learning_rate, recipes("movt")[""].epochs, recipes("movt")[""].clip_gradient_norm) == (1e-4, 50, 1.0)
    assert recipes("movt-videomae-s")["jester"].learning_rate == 5e-3
