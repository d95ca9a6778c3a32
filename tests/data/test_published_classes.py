"""How many classes data sets say they have, where they are not there."""

from __future__ import annotations

import pytest

from benchctl import lookup

#: as their papers count them
PRINTED = {
    "kinetics400": 400,
    "ssv1": 174,
    "ssv2": 174,
    "jester": 27,
    "diving48": 48,
    "finegym": 99,
    "ucf101": 101,
    "hmdb51": 51,
    "haa500": 500,
    "ntu": 60,
    "msraction3d": 20,
    "uwa3d": 30,
    "action_pairs": 12,
    "egogestar": 10,
}


def published(name: str, **options: object) -> int | None:
    module = lookup.load("dataset", name)
    found: int | None = module.published_classes(module.Options.model_validate(options))
    return found


@pytest.mark.parametrize("name", PRINTED)
def test_as_printed(name: str):
    assert published(name) == PRINTED[name]


def test_no_other_data_set_says_so():
    assert {n for n in lookup.entries("dataset") if hasattr(lookup.load("dataset", n), "published_classes")} == set(PRINTED)


def test_options_change_it():
    assert published("finegym", classes=288) == 288
    assert published("ntu", version=120) == 120
    # how many these are, only the list tells
    assert published("ssv2", class_list="temporal.txt") is None
