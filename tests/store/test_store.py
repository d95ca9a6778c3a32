"""What goes into the store comes out of it as it was, on every database that it supports."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import cell, result, run

from benchctl.errors import StoreError, UnknownName, UsageError
from benchctl.record import UNITS, Gpu, Measurement, Outcome
from benchctl.store.reading import Scalar
from benchctl.store.store import Store


def measurement(metric: str, value: float | int | None, **which) -> Measurement:
    return Measurement(metric=metric, value=value, **which)


def test_a_result_comes_back_as_it_was(store: Store) -> None:
    c = cell()
    numbers = (
        measurement("latency_seconds", 0.1 + 0.2, kind="p50", device="cpu"),
        measurement("latency_seconds", 0.25, kind="p50", device="cpu", rep=1),
        measurement("macs", 196_050_000_000, kind="all"),
        measurement("peak_memory_bytes", 3, kind="allocated", source="predicted", device="cuda"),
        measurement("peak_memory_bytes", None, kind="device", device="cuda", reason="no driver"),
    )
    store.begin_run(run(), [c])
    given = result(c, *numbers, notes={"weights": "random"}, code={"methods": "abc"}, checkpoint="a/b.pt")
    number = store.add_result("run-1", given)
    back = store.measurements(number)
    assert back == tuple(sorted(numbers, key=lambda m: (m.metric, m.kind, m.source, m.device, m.rep)))
    assert [type(m.value) for m in back] == [float, float, int, int, type(None)]
    newest = store.latest_results([c.id])[c.id]
    assert (newest.outcome, newest.notes, newest.code, newest.checkpoint) == (Outcome.OK, given.notes, given.code, "a/b.pt")
    assert (newest.environment, newest.device, newest.seconds) == (run().environment, "cpu", 1.5)
    assert ("peak_memory_bytes", "allocated", "predicted", "cuda") in newest.measured
    assert ("peak_memory_bytes", "device", "measured", "cuda") not in newest.measured, "a missing value is not a measurement"


@given(value=st.one_of(st.integers(0, 2**62), st.floats(allow_nan=False, allow_infinity=False)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_number_survives_exactly(tmp_path_factory, value: float) -> None:
    c = cell()
    with Store.open(tmp_path_factory.mktemp("numbers") / "r.db") as store:
        store.begin_run(run(), [c])
        metric = "flops" if isinstance(value, int) else "loss"
        (back,) = store.measurements(store.add_result("run-1", result(c, measurement(metric, value))))
    assert back.value == value
    assert math.copysign(1, back.value) == math.copysign(1, value)


def test_an_integer_beyond_63_bits_is_stored_as_a_float(store: Store) -> None:
    c = cell()
    store.begin_run(run(), [c])
    (back,) = store.measurements(store.add_result("run-1", result(c, measurement("flops", 10**20))))
    assert back.value == pytest.approx(10**20, rel=1e-15)


def test_notes_with_not_a_number_keep_the_word(store: Store) -> None:
    c = cell()
    store.begin_run(run(), [c])
    store.add_result("run-1", result(c, outcome="diverged", reason="the loss is not finite", notes={"loss": math.nan}))
    assert store.latest_results([c.id])[c.id].notes == {"loss": "NaN"}


def test_the_newest_attempt_counts(store: Store) -> None:
    c, never = cell(), cell(1)
    for i, outcome in enumerate((Outcome.TIMEOUT, Outcome.OK, Outcome.OOM)):
        store.begin_run(run(f"run-{i}"), [c, never])
        store.add_result(f"run-{i}", result(c, outcome=outcome, reason="because"))
    found = store.latest_results([c.id, never.id, "unheard-of", c.id])
    assert {key: (value.outcome, value.run_id) for key, value in found.items()} == {c.id: (Outcome.OOM, "run-2")}


def test_more_ids_than_one_query_takes(store: Store) -> None:
    c = cell()
    store.begin_run(run(), [c])
    store.add_result("run-1", result(c))
    assert set(store.latest_results([*(f"{i:016x}" for i in range(40_000)), c.id])) == {c.id}


def test_a_plan_of_nothing_and_a_plan_that_repeats_a_cell(store: Store) -> None:
    store.begin_run(run("empty"), [])
    assert store.run("empty").cells == 0
    store.begin_run(run("first"), [cell(), cell(1)])
    store.begin_run(run("second"), [cell(1), cell(2)])
    assert [(r.record.run_id, r.cells) for r in store.runs()] == [("second", 2), ("first", 2), ("empty", 0)]


def test_a_run_ends_once_and_says_how(store: Store) -> None:
    store.begin_run(run(), [cell()])
    assert (store.run("run-1").status, store.run("run-1").finished_at) == ("running", None)
    store.finish_run("run-1", "interrupted")
    assert store.run("run-1").status == "interrupted"
    assert store.run("run-1").finished_at
    with pytest.raises(StoreError, match="never begun"):
        store.finish_run("run-9", "finished")


def test_runs_and_cells_by_the_beginning_of_their_id(store: Store) -> None:
    cells = [cell(i) for i in range(20)]
    for name in ("abc", "abcd", "x_1", "xy1"):
        store.begin_run(run(name), cells)
    assert store.run("x_").record == run("x_1"), "an underscore is itself, not any character"
    assert store.run("abc").record.run_id == "abc", "a whole id wins over longer ones"
    with pytest.raises(UsageError, match="2 runs begin with 'ab'; write more of one: abc, abcd"):
        store.run("ab")
    with pytest.raises(UnknownName, match=r"unknown run 'abcc'; did you mean .*'abc'"):
        store.run("abcc")
    assert store.cell(cells[3].id) == cells[3]
    assert store.cell(cells[3].id[:15]) == cells[3]
    with pytest.raises(UsageError, match="many cells begin with ''"):
        store.cell("")


def test_a_result_needs_its_plan(store: Store) -> None:
    store.begin_run(run(), [cell()])
    with pytest.raises(StoreError, match="did not plan cell"):
        store.add_result("run-1", result(cell(1)))
    assert store.latest_results([cell().id, cell(1).id]) == {}


def test_predictions_are_kept_and_replaced(store: Store) -> None:
    assert store.get_prediction("key") is None
    store.put_prediction("key", '{"a": 1}')
    store.put_prediction("key", '{"a": 2}')
    assert store.get_prediction("key") == '{"a": 2}'


def test_a_snapshot_of_a_suite_is_the_suite_as_last_asked_for(store: Store) -> None:
    old, first, second, other = (cell(i) for i in range(4))
    store.begin_run(run("r1", wording="old"), [old])
    store.begin_run(run("r2", wording="new"), [first])
    store.begin_run(run("r3", wording="new"), [second])
    store.begin_run(run("r4", suite="other"), [other])
    store.add_result("r1", result(old))
    ids = {}
    for name in ("efficiency", "other", None):
        with store.snapshot(suite=name) as snapshot:
            ids[name] = {c.cell_id for c in snapshot.cells()}
    assert ids == {"efficiency": {first.id, second.id}, "other": {other.id}, None: {first.id, second.id, other.id}}
    with store.snapshot(run="r1") as snapshot:
        assert [(c.cell_id, c.outcome) for c in snapshot.cells()] == [(old.id, Outcome.OK)]


def test_a_snapshot_of_a_run_does_not_move_with_later_runs(store: Store) -> None:
    c = cell()
    for i in range(3):
        store.begin_run(run(f"r{i}"), [c])
        if i != 1:  # which reused what r0 had found
            store.add_result(f"r{i}", result(c, measurement("params", i)))
    for name, value in (("r0", 0), ("r1", 0), ("r2", 2)):
        with store.snapshot(run=name) as snapshot:
            assert list(snapshot.scalars([Scalar("params")]).values()) == [(value,)]


def test_an_interrupted_attempt_hides_none_that_ended(store: Store) -> None:
    ended, never_ended = cell(), cell(1)
    store.begin_run(run("r1"), [ended, never_ended])
    store.add_result("r1", result(ended))
    for c in (ended, never_ended):
        store.add_result("r1", result(c, outcome="interrupted", reason="interrupted by the user"))
    with store.snapshot() as snapshot:
        assert {c.cell_id: c.outcome for c in snapshot.cells()} == {ended.id: Outcome.OK, never_ended.id: Outcome.INTERRUPTED}
    # the plan must know that the newest attempt did not end
    assert store.latest_results([ended.id])[ended.id].outcome is Outcome.INTERRUPTED


def test_a_snapshot_of_what_is_not_there(store: Store) -> None:
    with store.snapshot() as snapshot:
        assert snapshot.cells() == []
    store.begin_run(run("r1", suite="memory_scaling"), [])
    with pytest.raises(UnknownName, match="did you mean 'memory_scaling'"), store.snapshot(suite="memory-scaling"):
        pass
    with pytest.raises(UnknownName, match="unknown run 'r2'"), store.snapshot(run="r2"):
        pass
    store.begin_run(run("r5", suite="other"), [])
    with pytest.raises(UsageError, match="run 'r1' is not of suite 'other'"), store.snapshot(suite="other", run="r1"):
        pass


def test_scalars_and_readings_agree_with_the_measurements(store: Store) -> None:
    """The queries against a slow loop over everything that was stored."""
    cells = [cell(i) for i in range(6)]
    store.begin_run(run(), cells)
    stored = {}
    for i, c in enumerate(cells):
        device = "cuda" if i % 2 else "cpu"
        numbers = [
            measurement("params", 2**60 + 1 + i),
            *(measurement("latency_seconds", 0.5 + rep, kind="p50", device=device, rep=rep) for rep in range(i)),
            measurement("latency_seconds", 9.0, kind="p50", device="tpu"),
            measurement("latency_seconds", 9.0, kind="p90", device=device),
            *(measurement("peak_memory_bytes", 10 * i + rep, kind="allocated", device=device, rep=rep) for rep in range(3)),
            measurement("peak_memory_bytes", None, kind="device", device=device, reason="no driver"),
            measurement("top1", 0.5, source="predicted"),
        ]
        stored[store.add_result("run-1", result(c, *numbers, device=device))] = (device, numbers)
    with store.snapshot() as snapshot:
        scalars = snapshot.scalars([Scalar("params"), Scalar("latency_seconds", ("p50",)), Scalar("top1")])
        readings = {(r.kind, r.source, r.device): r for r in snapshot.readings("peak_memory_bytes")}
    for number, (device, numbers) in stored.items():
        times = [m.value for m in numbers if m.metric == "latency_seconds" and m.kind == "p50" and m.device == device]
        params, latency, top1 = scalars[number]
        assert params == numbers[0].value or store.location.path is None, "PostgreSQL keeps 53 bits"
        assert latency == (pytest.approx(sum(times) / len(times)) if times else None)
        assert top1 is None
        peak = max(m.value for m in numbers if m.metric == "peak_memory_bytes" and m.value is not None)
        assert readings["allocated", "measured", device].values[number] == peak
        assert readings["device", "measured", device].reasons[number] == "no driver"


def test_units_are_those_of_the_vocabulary(store: Store) -> None:
    c = cell()
    store.begin_run(run(), [c])
    number = store.add_result("run-1", result(c, *(measurement(metric, 1) for metric in UNITS)))
    assert {m.metric: m.unit for m in store.measurements(number)} == UNITS


def test_what_a_snapshot_says_of_cells_and_machines(store: Store) -> None:
    cells = [cell(n) for n in range(2)]
    gpus = tuple(Gpu(name=name, uuid=name, memory_bytes=1) for name in ("A", "B"))
    environment = run().environment.model_copy(update={"gpus": gpus})
    store.begin_run(run("r1").model_copy(update={"environment": environment}), cells)
    store.add_result("r1", result(cells[0]))
    store.begin_run(run("r2"), [cells[1]])
    store.add_result("r2", result(cells[1]))
    store.begin_run(run("r3", suite="other"), [cell(9)])
    with store.snapshot(suite="efficiency") as snapshot:
        assert snapshot.contents() == {c.id: c.canonical for c in cells}
        assert snapshot.gpus() == {"r1": ("A", "B"), "r2": ()}
    with store.snapshot(run="r1") as snapshot:
        assert set(snapshot.gpus()) == {"r1"}


def test_several_metrics_are_read_as_each_alone(store: Store) -> None:
    numbers = (
        measurement("top1", 0.5, device="cpu"),
        measurement("top1", 0.25, kind="25%", device="cpu"),
        measurement("steps", 300),
        measurement("energy_joules", None, reason="no driver"),
        measurement("params", 7),
    )
    c = cell()
    store.begin_run(run(), [c])
    number = store.add_result("run-1", result(c, *numbers))
    with store.snapshot() as snapshot:
        found = snapshot.readings_of(["top1", "energy_joules", "top5"])
        assert found == {metric: snapshot.readings(metric) for metric in ("top1", "energy_joules", "top5")}
    assert {(r.kind, r.values[number]) for r in found["top1"]} == {("", 0.5), ("25%", 0.25)}
    assert (found["energy_joules"][0].values, found["energy_joules"][0].reasons) == ({}, {number: "no driver"})
    assert found["top5"] == []
