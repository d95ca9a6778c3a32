import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchctl.errors import BenchctlError, unknown
from benchctl.record import UNITS, CellResult, Measurement, Outcome, correctness, packed


def result(**changes: object) -> CellResult:
    return CellResult.model_validate({"cell_id": "c", "outcome": "ok", "started_at": "2026-01-01T00:00:00+00:00", "seconds": 1, **changes})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "peak_memory", "value": 1}, "not in the vocabulary"),
        ({"metric": "params", "value": None}, "a missing value needs a reason"),
        ({"metric": "params", "value": 1, "reason": "why"}, "a value needs none"),
        ({"metric": "loss", "value": float("nan")}, "not a number that can be stored"),
        ({"metric": "loss", "value": float("inf")}, "not a number that can be stored"),
        ({"metric": "peak_memory_bytes", "value": 1, "unit": "GiB"}, "is in bytes, not GiB"),
    ],
)
def test_what_cannot_be_recorded(fields: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Measurement.model_validate(fields)


@given(st.sampled_from(sorted(UNITS)), st.integers(0, 2**62) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_measurement_survives_its_json_exactly(metric: str, value: float):
    m = Measurement(metric=metric, value=value, kind="k", source="predicted", device="cuda", rep=3)
    again = Measurement.model_validate_json(m.model_dump_json())
    assert again == m
    assert again.unit == UNITS[metric]


def test_a_result_needs_a_reason_unless_it_is_ok_and_no_measurement_twice():
    with pytest.raises(ValidationError, match="needs a reason"):
        result(outcome="oom")
    m = Measurement(metric="params", value=1)
    with pytest.raises(ValidationError, match="two measurements share"):
        result(measurements=[m.model_dump(), m.model_dump()])
    assert result(measurements=[m.model_dump()]).value("params") == 1
    assert result().value("params") is None


def test_the_file_form_of_another_version_is_refused():
    document = {**json.loads(result().model_dump_json()), "schema_version": 2}
    with pytest.raises(ValidationError):
        CellResult.model_validate(document)


def test_oom_is_compared_and_interrupted_runs_again():
    assert Outcome.OOM.final
    assert not Outcome.OOM.failure
    assert not Outcome.INTERRUPTED.final
    assert Outcome.FAILED.failure


def test_an_error_is_one_line_and_survives_pickling():
    import pickle

    error = BenchctlError("what\nhappened", where="file:1:2", fix="the fix")
    assert str(error) == "file:1:2: what happened; the fix"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (BenchctlError, str(error))


def test_unknown_names_come_with_near_misses():
    assert str(unknown("method", "mose", ["moose", "videomae-b"])) == "unknown method 'mose'; did you mean 'moose'?"
    assert str(unknown("method", "x", ["moose"])) == "unknown method 'x'; known: moose"
    assert str(unknown("method", "x", [])) == "unknown method 'x'; no method is registered"


@given(st.lists(st.booleans(), max_size=70))
def test_correctness_comes_back_bit_by_bit(right: list[bool]):
    note = packed([str(i) for i in range(len(right))], right)
    assert correctness(note) == tuple(right)
    assert json.loads(json.dumps(note)) == note


def test_correctness_of_other_clips_is_told_apart():
    assert packed(["a", "b"], [True, False])["ids_sha256"] != packed(["ab", ""], [True, False])["ids_sha256"]
    assert len(packed([str(i) for i in range(20_000)], [True] * 20_000)["bits"]) == 3336


def test_a_value_of_no_kind_comes_before_those_on_the_way():
    found = [Measurement(metric="top1", value=0.25, kind="25%"), Measurement(metric="top1", value=0.5)]
    result = CellResult(cell_id="x", outcome=Outcome.OK, measurements=tuple(found), started_at="", seconds=0)
    assert result.value("top1") == 0.5
    assert result.value("top1", kind="25%") == 0.25
