"""Files of pins: written, read and reviewed; what cannot be one is named with its place."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pin_samples import HERE, gpu, pin, results, right

from benchctl import pins, yaml_file
from benchctl.errors import BenchctlError, UsageError
from benchctl.pins import Pins, ValueKey, accept, written
from benchctl.record import Outcome

TODAY = datetime.date(2026, 3, 1)


def accepted(before: Pins | None, *cells: Any, keep: bool = True, run: str = "r1") -> pins.Accepted:
    environments = (HERE, gpu("A"))
    return accept(before, results(*cells, environments=environments), run=run, reason="Because: it is so", date=TODAY, keep=keep)


def saved(folder: Path, text: str) -> Path:
    file = folder / "pins.yaml"
    file.write_text(text, encoding="utf-8")
    return file


EVERYTHING = [
    pin(values={"macs all": 2**60, "top1 cpu": 1e-05, "peak_memory_bytes allocated predicted cuda": 5}, correct=right(True, False)),
    pin(gpu("A"), method="vit-tiny", seed=1, outcome=Outcome.OOM, reason="needs 50 GiB: more than 48", rules={"memory_share": 0.02}),
    pin(
        task="train",
        options="orders=1,2 window=3x9x9",
        start="12345678",
        dataset="egogestar",
        data="12e45",
        times={"latency_seconds p50 cpu": [0.1]},
    ),
]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    made = accepted(None, *EVERYTHING).pins
    assert pins.load(saved(tmp_path, written(made))) == made
    again = accepted(made, EVERYTHING[0].model_copy(update={"values": {"macs all": 1}}), run="r2").pins
    assert pins.load(saved(tmp_path, written(again))) == again
    assert [change.run for change in again.history] == ["r1", "r2"]


def test_a_changed_number_is_one_line_of_a_diff_and_its_history(tmp_path: Path) -> None:
    first = pin(values={"macs all": 12, "params": 3})
    before = accepted(None, first).pins
    after = accepted(before, pin(values={"macs all": 13, "params": 3}), run="r2")
    assert after.changes == ("moss-tiny/profile/1x8x224/fp32/sdpa/seed0: macs all: 12 -> 13",)
    old, new = written(before).splitlines(), written(after.pins).splitlines()
    body = old.index("history:")
    assert [(a, b) for a, b in itertools.zip_longest(old[:body], new[:body]) if a != b] == [("    macs all: 12", "    macs all: 13")]
    assert new[-5:] == [
        '- date: "2026-03-01"',
        "  run: r2",
        '  reason: "Because: it is so"',
        "  changes:",
        '  - "moss-tiny/profile/1x8x224/fp32/sdpa/seed0: macs all: 12 -> 13"',
    ]


def test_pins_that_a_run_did_not_plan_stay_or_go() -> None:
    both = accepted(None, pin(), pin(method="vit-tiny")).pins
    kept = accepted(both, pin(), run="r2")
    assert len(kept.pins.cells) == 2
    assert [each.words.method for each in kept.others] == ["vit-tiny"]
    assert not kept.changes
    pruned = accepted(both, pin(), keep=False, run="r2")
    assert [each.words.method for each in pruned.pins.cells] == ["moss-tiny"]
    assert pruned.changes == ("vit-tiny/profile/1x8x224/fp32/sdpa/seed0: removed",)


def test_rules_of_a_pin_survive_its_value() -> None:
    before = accepted(None, pin(values={"params": 1}, rules={"exponent": 0.2})).pins
    (after,) = accepted(before, pin(values={"params": 2}), run="r2").pins.cells
    assert (after.values, after.rules.exponent) == ({"params": 2}, 0.2)


def test_shipped_pins_load_and_are_written_as_they_are() -> None:
    assert set(pins.shipped()) >= {"matched_budget", "matched_budget_real"}
    for name, path in pins.shipped().items():
        loaded = pins.load(path)
        assert loaded.suite == name
        assert written(loaded) == path.read_text(encoding="utf-8"), "written by 'benchctl baseline accept', not by hand"


TEXT = written(accepted(None, pin(values={"macs all": 12})).pins)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "version: pins of version 2, and this benchctl reads up to 1; use a newer benchctl"),
        ("moss-tiny", "mos-tiny", "unknown method 'mos-tiny'; did you mean 'moss-tiny'"),
        ("macs all: 12", "macz all: 12", "no metric is called 'macz'"),
        ("outcome: ok", "outcom: ok", "unknown key (and 1 more); did you mean 'outcome'?"),
        ("macs all: 12", "macs all: many", "input should be a valid"),
        ("  environment: ", "  environment: 0", "is not among 'environments'"),
    ],
)
def test_a_file_that_cannot_be_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    file = saved(tmp_path, TEXT.replace(old, new))
    with pytest.raises(UsageError) as caught:
        pins.load(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}:")
    assert caught.value.exit_code == 2


@given(cut=st.integers(0, len(TEXT) - 1))
def test_a_torn_file_is_an_error_or_whole_cells(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = saved(tmp_path_factory.getbasetemp(), TEXT[:cut])
    try:
        loaded = pins.load(file)
    except BenchctlError as error:
        assert error.exit_code == 2
        assert "\n" not in str(error)
    else:
        # a cut inside the history, or inside of a cell's last lines
        assert loaded.cells[0].cell in TEXT[:cut]


@pytest.mark.parametrize(
    "key",
    [
        ValueKey("macs", "all"),
        ValueKey("top1", "", "measured", "cuda"),
        ValueKey("peak_memory_bytes", "allocated", "predicted", "cuda"),
        ValueKey("steps"),
    ],
)
def test_keys_are_words(key: ValueKey) -> None:
    assert ValueKey.parse(str(key)) == key


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
        max_leaves=8,
    )
)
def test_flow_style_means_what_it_was_given(value: Any) -> None:
    assert yaml_file.value(f"it: {yaml_file.flow(value)}", "here", UsageError) == {"it": value}
