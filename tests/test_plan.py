from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchctl import suite_file
from benchctl.budget import Budget
from benchctl.errors import DataMissing, SuiteError, UsageError, WeightsMissing
from benchctl.methods import videomae
from benchctl.plan import (
    CPU_STEP_MACS,
    Checks,
    DataSource,
    Execution,
    Plan,
    Sources,
    cost_key,
    execution,
    expand,
    refusal,
    resolve_data,
    state,
)
from benchctl.recipe import COMMON_RECIPE, Recipe
from benchctl.record import CellResult, Measurement, Outcome
from benchctl.spec import Cell, ClipFlow, ClipTracks, DatasetRef, Search, options_text

SUITE = """\
name: test
task: profile
methods: [timesformer-tiny, videomae-tiny]
sweep:
  - {resolution: [64, 96], frames: 8}
  - {resolution: 64, frames: [8, 16]}
"""


def plan(text: str, *settings: str) -> Plan:
    return expand(suite_file.parse(text, Path("s.yaml"), settings))


def test_the_suite_is_the_union_of_its_grids():
    cells = plan(SUITE).cells
    assert [c.label.split("/")[0] + " " + str(c.shape) for c in cells] == [
        "timesformer-tiny 1x8x64",
        "timesformer-tiny 1x8x96",
        "videomae-tiny 1x8x64",
        "videomae-tiny 1x8x96",
        "timesformer-tiny 1x16x64",
        "videomae-tiny 1x16x64",
    ]
    assert len({c.id for c in cells}) == 6


def test_ids_are_stable_and_depend_on_everything_resolved():
    first = plan(SUITE).cells[0]
    assert first.id == plan(SUITE).cells[0].id
    for setting in (
        "precision=bf16",
        "seeds=[1]",
        "recipe.optimizer=adamw",
        "memory_cap_gib=8",
        "num_classes=10",
        "pad=true",
        "measure=[flops]",
    ):
        assert plan(SUITE, setting).cells[0].id != first.id, setting
    # a time limit does not change what is measured
    assert plan(SUITE, "timeout_s=5").cells[0].id == first.id


def test_a_changed_copy_has_an_id_of_its_own():
    cell = plan(SUITE).cells[0]
    other = cell.model_copy(update={"seed": 1})
    assert (cell.id, cell.label) != (other.id, other.label)
    assert other.id == plan(SUITE, "seeds=1").cells[0].id
    assert other.label.endswith("seed1")


def test_changed_options_name_the_cell():
    """What the suite changed is named; what it gave as the preset has it is not, and makes no other cell."""
    of = {
        o: plan(SUITE, f"methods=[{{name: moss-tiny, options: {o}}}]").cells[0]
        for o in ("{orders: [1]}", "{orders: [1, 2]}", "{window: [3, 5, 5]}")
    }
    changed, same, window = of.values()
    plain = plan(SUITE, "methods=[moss-tiny]").cells[0]
    assert changed.label.startswith("moss-tiny(orders=1)/profile/")
    assert window.variant == "moss-tiny(window=3x5x5)"
    assert (same.id, same.options, same.label) == (plain.id, None, plain.label)
    assert len({changed.id, plain.id, window.id}) == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, ""),
        ({"b": 1, "a": [4, 6]}, "a=4,6 b=1"),
        ({"window": [[3, 9, 9], [5, 9, 9]]}, "window=3x9x9,5x9x9"),
        ({"orders": [], "pad": True, "weights": None, "rate": 0.5}, "orders=none pad=true rate=0.5 weights=none"),
    ],
)
def test_options_as_a_person_reads_them(options: dict[str, object], text: str):
    assert options_text(options) == text


def test_a_pattern_names_every_preset_it_matches():
    names = [c.method for c in plan(SUITE, 'methods=["*-tiny"]').cells]
    assert {"timesformer-tiny", "videomae-tiny", "side4video-tiny"} <= set(names)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "methods=[timesformer-tny]",
            "--set methods=[timesformer-tny]: methods[0]: unknown method 'timesformer-tny'; did you mean 'timesformer-tiny'",
        ),
        (
            "methods=[{name: videomae-tiny, options: {depht: 3}}]",
            "methods[0].options.depht: 'videomae-tiny' has no such option; known options: ",
        ),
        ("sweep.0.frames=7", "videomae: 7 frames are not a multiple of the tubelet size 2; use 6 or 8 frames"),
        ("sweep.0.resolution=65", "resolution 65 is not a multiple of the patch size 16; use 80, or 'pad: true' to pad to it"),
        ("attention=flash", "timesformer: attention 'flash' is not available; choose from eager"),
        ("pretrained=true", "pretrained: no weights are published for 'timesformer-tiny'; leave it out, or set 'pretrained: false'"),
    ],
)
def test_what_cannot_be_says_where(setting: str, message: str):
    with pytest.raises(SuiteError) as error:
        plan(SUITE, setting)
    assert message in str(error.value)


def test_only_filters_by_label_id_and_method():
    whole = plan(SUITE)
    assert {c.method for c in whole.only(("videomae-tiny",)).cells} == {"videomae-tiny"}
    assert whole.only((whole.cells[2].id,)).cells == (whole.cells[2],)
    assert len(whole.only(("*/1x8x96/*",)).cells) == 2
    with pytest.raises(UsageError, match=r"--only nothing: no cell matches; cells look like timesformer-tiny/profile/1x8x64"):
        whole.only(("nothing",))


@dataclass
class Known:
    outcome: Outcome = Outcome.OK
    code: dict[str, str] = field(default_factory=lambda: {"engine": "a", "torch": "2.15.0"})
    device: str = "none"


def test_states():
    cell = plan(SUITE).cells[0]
    code, nowhere, gpu = {"engine": "a", "torch": "2.15.0"}, Execution(None, "no GPU"), Execution("cuda")
    assert state(cell, None, code, nowhere).word == "new"
    assert state(cell, Known(), code, nowhere).word == "done"
    assert state(cell, Known(Outcome.OOM), code, nowhere).word == "done"
    for outcome in (Outcome.FAILED, Outcome.TIMEOUT, Outcome.INTERRUPTED, Outcome.SKIPPED):
        assert state(cell, Known(outcome), code, nowhere).word == "new", outcome
    changed = state(cell, Known(), {"engine": "b", "torch": "2.15.0"}, nowhere)
    assert (changed.word, changed.reason) == ("stale", "engine changed since it ran")
    better = state(cell, Known(), code, gpu)
    assert (better.word, better.reason) == ("stale", "can be measured on cuda here, was predicted only")
    assert state(cell, Known(device="cuda"), code, gpu).word == "done"
    # measured elsewhere is better than nothing here
    assert state(cell, Known(device="cuda"), code, nowhere).word == "done"


def test_what_is_executed_where():
    cell = plan(SUITE).cells[0]
    small, large = CPU_STEP_MACS / 100, CPU_STEP_MACS
    assert execution(cell, "auto", True, large).device == "cuda"
    assert execution(cell, "auto", False, small).device == "cpu"
    refused = execution(cell, "auto", False, large)
    assert refused.device is None
    assert "steps of over 50 GMACs are not executed on a CPU" in refused.reason
    assert execution(cell, "cpu", True, large).device == "cpu"
    assert execution(cell, "auto", False, None).device is None
    assert execution(plan(SUITE, "measure=[flops]").cells[0], "auto", True, small).device is None


def test_cells_that_cost_the_same_share_a_prediction():
    code = {"engine": "a"}
    a, b = (plan(SUITE, f"seeds={seed}").cells[0] for seed in (0, 1))
    assert a.id != b.id
    assert cost_key(a, code) == cost_key(b, code)
    for setting in ("precision=bf16", "recipe.optimizer=adamw", "memory_cap_gib=8", "recipe.clip_gradient_norm=1"):
        assert cost_key(plan(SUITE, setting).cells[0], code) != cost_key(a, code), setting
    assert cost_key(a, {"engine": "b"}) != cost_key(a, code)


def test_a_profile_costs_the_same_with_every_seed():
    assert [cell.seed for cell in plan(SUITE, "seeds=[3, 4]").cells] == [3] * 6


def test_ten_thousand_cells_expand():
    loaded = suite_file.parse(SUITE, Path("s.yaml"), [f"sweep.{entry}.batch_size={list(range(1, 1701))}" for entry in (0, 1)])
    assert len(expand(loaded).cells) == 10200


#: two clips a step: some recipes have each clip twice in a batch
TRAIN = (
    SUITE.replace("task: profile", "task: [evaluate, train]").replace("}\n", ", batch_size: 2}\n")
    + "dataset: egogestar\nbudget: {match_on: samples, amount: 64}\nseeds: 0\n"
)


def test_missing_data_names_the_place():
    with pytest.raises(DataMissing) as error:
        resolve_data(suite_file.parse(TRAIN, Path("s.yaml")), Path("/nowhere"))
    assert (
        str(error.value)
        == "s.yaml:7:1: no data set: 'egogestar' at /nowhere/egogestar; put it there, or set BENCHCTL_DATA to the folder that holds it"
    )


def test_the_first_data_set_that_is_present_is_used(real_data: Path):
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["dataset=[egogestar, motion_shapes]"])
    found = resolve_data(loaded, real_data)
    assert found.main is not None
    assert (found.main.ref.name, found.main.num_classes) == ("egogestar", 10)
    made = resolve_data(loaded, Path("/nowhere"))
    assert made.main is not None
    assert (made.main.ref.name, made.main.root) == ("motion_shapes", None)


def test_evaluation_follows_the_training_it_needs():
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["dataset=motion_shapes", "seeds=[0,1]"])
    cells = expand(loaded, resolve_data(loaded, None)).cells
    assert [c.task for c in cells[:4]] == ["train", "evaluate"] * 2
    assert cells[1].checkpoint == f"cell:{cells[0].id}"
    assert cells[3].checkpoint == f"cell:{cells[2].id}"
    assert cells[0].steps() == 32


EGOGESTAR = Sources(DataSource(DatasetRef(name="egogestar"), Path("/data/egogestar"), 10, ""))
MOTION_SHAPES = Sources(DataSource(DatasetRef(name="motion_shapes"), None, 8, None))


def reads_flow(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make videomae a method that reads flow with its clips."""
    monkeypatch.setattr(videomae.Config, "clip_flow", lambda _self: ClipFlow(estimator=estimator))


def test_exact_flow_needs_a_data_set_that_carries_it(monkeypatch: pytest.MonkeyPatch):
    reads_flow("exact", monkeypatch)
    loaded = suite_file.parse(TRAIN, Path("s.yaml"))
    with pytest.raises(SuiteError) as error:
        expand(loaded, EGOGESTAR)
    assert str(error.value) == (
        "s.yaml:3:29: methods[1]: videomae-tiny: the data set 'egogestar' carries no exact flow; name a data set that does (motion_shapes), "
        "or another 'flow' in the method's options"
    )
    assert expand(loaded, MOTION_SHAPES).cells


def test_precomputed_flow_needs_dense_sampling(monkeypatch: pytest.MonkeyPatch):
    reads_flow("dis", monkeypatch)
    what = "videomae-tiny: precomputed flow fits dense sampling only, not 'uniform'; set 'recipe: {sampling: dense, frame_stride: 4}'"
    text = TRAIN + "recipe: {frame_stride: 4, sampling: uniform}\n"
    with pytest.raises(SuiteError) as error:
        expand(suite_file.parse(text, Path("s.yaml")), EGOGESTAR)
    assert str(error.value) == f"s.yaml:10:27: recipe.sampling: {what}"
    assert expand(suite_file.parse(text.replace("uniform", "dense"), Path("s.yaml")), EGOGESTAR).cells
    # nothing is decoded to profile
    assert plan(SUITE, "recipe.sampling=uniform").cells


def test_flow_files_are_looked_for_once_where_the_data_set_is_present(monkeypatch: pytest.MonkeyPatch):
    reads_flow("dis", monkeypatch)
    asked: list[tuple[object, ...]] = []
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["recipe={sampling: dense, frame_stride: 4}"])
    expand(loaded, EGOGESTAR, Checks(flow=lambda *given: asked.append(given)))
    assert asked == [(ClipFlow(estimator="dis"), 4, EGOGESTAR.main.ref, EGOGESTAR.main.root)]

    def none(*_given: object) -> None:
        raise DataMissing("2 of 9 clips have no flow", fix="run 'benchctl data flow egogestar'")

    with pytest.raises(DataMissing) as error:
        expand(loaded, EGOGESTAR, Checks(flow=none))
    assert str(error.value) == "s.yaml:3:29: videomae-tiny: 2 of 9 clips have no flow; run 'benchctl data flow egogestar'"
    # what is made later is looked at by the worker, and a profile needs no clips
    assert expand(loaded, MOTION_SHAPES, Checks(flow=none)).cells
    assert expand(suite_file.parse(SUITE, Path("s.yaml")), EGOGESTAR, Checks(flow=none)).cells


def test_leakage_is_looked_for_once_in_each_data_set_that_is_there_to_learn_from():
    asked: list[tuple[object, ...]] = []
    check = Checks(leakage=lambda *given: asked.append(given))
    here = Sources(replace(EGOGESTAR.main, fingerprint="ab"), MOTION_SHAPES.main)
    expand(suite_file.parse(PRETRAINING, Path("s.yaml")), here, check)
    assert asked == [(EGOGESTAR.main.ref, EGOGESTAR.main.root, "ab")]
    expand(suite_file.parse(SUITE, Path("s.yaml")), here, check)
    assert len(asked) == 1, "a profile learns nothing"


def test_missing_weights_say_which_method_lacks_them(monkeypatch: pytest.MonkeyPatch):
    def check(_self: object, task: str, *, pretrained: bool) -> None:
        if task == "evaluate" and not pretrained:
            raise WeightsMissing("no such file", where="weights/raft.pth", fix="use the estimator dis")

    monkeypatch.setattr(videomae.Config, "check_weights", check)
    assert plan(SUITE).cells
    with pytest.raises(SuiteError) as error:
        expand(suite_file.parse(TRAIN, Path("s.yaml")), EGOGESTAR)
    assert str(error.value) == "s.yaml:3:29: methods[1]: videomae-tiny: weights/raft.pth: no such file; use the estimator dis"


def reads_tracks(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make videomae a method that reads tracks with its clips."""
    tracks = ClipTracks(estimator=estimator, frames=4, points=8)
    monkeypatch.setattr(videomae.Config, "clip_tracks", lambda _self, _shape: tracks)


def test_exact_tracks_need_a_data_set_that_carries_them(monkeypatch: pytest.MonkeyPatch):
    reads_tracks("exact", monkeypatch)
    loaded = suite_file.parse(TRAIN, Path("s.yaml"))
    with pytest.raises(SuiteError) as error:
        expand(loaded, EGOGESTAR)
    assert str(error.value) == (
        "s.yaml:3:29: methods[1]: videomae-tiny: the data set 'egogestar' carries no exact tracks; name a data set that does "
        "(motion_shapes), or another 'tracks' in the method's options"
    )
    assert expand(loaded, MOTION_SHAPES).cells


def test_track_files_are_looked_for_where_the_data_set_is_present(monkeypatch: pytest.MonkeyPatch):
    reads_tracks("lucas-kanade", monkeypatch)

    def none(*_given: object) -> None:
        raise DataMissing("2 of 9 clips have no tracks", fix="run 'benchctl data tracks egogestar'")

    loaded = suite_file.parse(TRAIN, Path("s.yaml"))
    with pytest.raises(DataMissing) as error:
        expand(loaded, EGOGESTAR, Checks(tracks=none))
    assert str(error.value) == "s.yaml:3:29: videomae-tiny: 2 of 9 clips have no tracks; run 'benchctl data tracks egogestar'"


PRETRAINING = TRAIN + "pretraining: {objective: classes, dataset: motion_shapes, budget: {match_on: steps, amount: 5}}\n"


def test_training_starts_from_cells_of_their_own():
    data = Sources(EGOGESTAR.main, MOTION_SHAPES.main)
    cells = expand(suite_file.parse(PRETRAINING + "recipe: {train_only: head}\n", Path("s.yaml"), ["seeds=[0, 1]"]), data).cells
    first, second, third = cells[:3]
    assert (first.task, first.dataset.name, first.num_classes, first.steps(), first.start) == ("train", "motion_shapes", 8, 5, None)
    assert (second.task, second.dataset.name, second.num_classes, second.start) == ("train", "egogestar", 10, f"cell:{first.id}")
    assert (first.recipe.train_only, second.recipe.train_only) == ("all", "head")
    assert (third.task, third.checkpoint) == ("evaluate", f"cell:{second.id}")
    assert {c.start for c in cells if c.task == "train" and c.dataset.name == "egogestar"} == {
        f"cell:{c.id}" for c in cells if c.task == "train" and c.dataset.name == "motion_shapes"
    }


def test_a_start_is_trained_once_for_all_shares_of_the_clips():
    data = Sources(EGOGESTAR.main, MOTION_SHAPES.main)
    cells = expand(suite_file.parse(PRETRAINING + "train_fraction: [1, 0.1]\n", Path("s.yaml")), data).cells
    of_one = [c for c in cells if (c.method, c.shape) == (cells[0].method, cells[0].shape)]
    assert [(c.task, c.dataset.name, c.train_fraction) for c in of_one] == [
        ("train", "motion_shapes", None),
        ("train", "egogestar", None),
        ("evaluate", "egogestar", None),
        ("train", "egogestar", 0.1),
        ("evaluate", "egogestar", 0.1),
    ]
    assert of_one[3].variant == f"timesformer-tiny(start={of_one[0].id[:8]} train_fraction=0.1)"


def test_only_some_methods_pre_train_by_reconstruction():
    text = (
        TRAIN.replace("[timesformer-tiny, videomae-tiny]", "[moss-tiny]")
        + "pretraining: {objective: reconstruction, budget: {match_on: steps, amount: 5}}\n"
    )
    assert "[moss-tiny]" in text
    with pytest.raises(
        SuiteError, match=r"s.yaml:3:\d+: methods\[0\]: 'moss-tiny' has no pre-training by reconstruction; methods that do: "
    ):
        expand(suite_file.parse(text, Path("s.yaml")), EGOGESTAR)


@pytest.mark.parametrize("path", suite_file.shipped().values(), ids=lambda p: p.stem)
def test_every_shipped_suite_plans(path: Path):
    loaded = suite_file.load(str(path))
    assert expand(loaded, resolve_data(loaded, None, absent=True)).cells


def test_three_seeds_where_a_training_names_none():
    loaded = suite_file.parse(TRAIN.replace("seeds: 0\n", ""), Path("s.yaml"), ["dataset=motion_shapes"])
    assert loaded.suite.seeds == (0, 1, 2)
    assert suite_file.parse(SUITE, Path("s.yaml")).suite.seeds == (0,)


def test_a_recipe_by_name():
    def recipes(text: str) -> list[Recipe]:
        return [c.recipe for c in expand(suite_file.parse(TRAIN + text, Path("s.yaml"), ["task=train"]), EGOGESTAR).cells[:3:2]]

    timesformer, videomae_ = recipes("recipe: paper\n")
    assert timesformer != videomae_
    assert recipes("recipe: common\n") == [COMMON_RECIPE, COMMON_RECIPE]
    assert recipes("recipe: {base: common, learning_rate: 3e-4}\n") == [COMMON_RECIPE.model_copy(update={"learning_rate": 3e-4})] * 2
    assert recipes("recipe: {learning_rate: 3e-4}\n")[0] == timesformer.model_copy(update={"learning_rate": 3e-4})
    with pytest.raises(SuiteError, match=r"s.yaml:10:1: recipe.base: 'papre' is not one of 'paper' or 'common'; did you mean 'paper'"):
        recipes("recipe: papre\n")


def test_a_budget_of_less_than_a_step_is_refused():
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["dataset=motion_shapes", "budget.match_on=frames_seen", "budget.amount=7"])
    with pytest.raises(SuiteError) as error:
        expand(loaded, MOTION_SHAPES)
    assert str(error.value) == (
        "--set budget.amount=7: budget.amount: frames_seen of 7 are less than one step, which takes 16; raise it, or lower 'batch_size'"
    )


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (
            "{match_on: gpu_hours, amount: 3}",
            r"budget.match_on: 'gpu_hours' is not one of 'steps', .* 'energy_j'; did you mean 'v100_gpu_hours'",
        ),
        ("{match_on: steps, amount: 3, cap: {samples: 5}}", r"budget.cap: unknown key; did you mean 'caps'"),
        ("{match_on: steps, amount: 3, caps: {memory: 5}}", r"budget.caps.memory: unknown key; known keys: steps, .*peak_memory_gib"),
        ("{match_on: steps, amount: 3, caps: {steps: 5}}", "'steps' is matched, so it needs no cap"),
        ("{match_on: steps, amount: 0}", "budget.amount: .*greater than 0"),
        ("{match_on: steps, amount: 5, evaluate_at: [0, 1]}", "budget.evaluate_at"),
    ],
)
def test_budgets_that_cannot_be(budget: str, says: str):
    with pytest.raises(SuiteError, match=says):
        suite_file.parse(TRAIN.replace("{match_on: samples, amount: 64}", budget), Path("s.yaml"))


def test_a_search_is_part_of_what_is_trained_and_of_nothing_else():
    plain = plan_of(TRAIN)
    searched = plan_of(TRAIN + "search: {learning_rate: [1e-3, 3e-4], weight_decay: [0, 0.05]}\n")
    assert {c.task for c in searched if c.search} == {"train"}
    assert [c.id for c in plain if c.task == "train"] != [c.id for c in searched if c.task == "train"]
    search = next(c.search for c in searched if c.search)
    assert search.combinations == [
        {"learning_rate": 1e-3, "weight_decay": 0},
        {"learning_rate": 1e-3, "weight_decay": 0.05},
        {"learning_rate": 3e-4, "weight_decay": 0},
        {"learning_rate": 3e-4, "weight_decay": 0.05},
    ]
    assert search.share_of_one == pytest.approx(0.3 / 4)


def plan_of(text: str) -> tuple[Cell, ...]:
    return expand(suite_file.parse(text, Path("s.yaml")), EGOGESTAR).cells


def test_a_part_of_a_budget_has_a_part_of_every_cap():
    budget = Budget.model_validate({"match_on": "train_gflops", "amount": 100, "caps": {"steps": 10, "peak_memory_gib": 3}})
    part = budget.part(0.25)
    assert part.limits == {"train_gflops": 25, "steps": 2}
    assert part.caps.peak_memory_gib == 3
    assert part.evaluate_at == (1.0,)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ("{learning_rate: 1e-3}", "search: nothing is searched: give a list of two values or more"),
        ("{optimizer: [sgd, adamw]}", "search.optimizer: unknown key; known keys: .*learning_rate"),
        ("{learning_rate: [1e-3, 0]}", r"search.learning_rate\[1\]: input should be greater than 0"),
        ("{learning_rate: [1e-3, 1e-4], share: 1}", "search.share: .*less than 1"),
        ("{learning_rate: [1e-3, 1e-4], share: 0.01}", "search: a trial's samples of 0.32 are less than one step.*try fewer recipes"),
    ],
)
def test_searches_that_cannot_be(search: str, says: str):
    with pytest.raises(SuiteError, match=says):
        plan_of(f"{TRAIN}search: {search}\n")


def test_a_search_without_training_is_refused():
    with pytest.raises(SuiteError, match="'search' is what a training does first"):
        plan(SUITE + "search: {learning_rate: [1e-3, 1e-4]}\n")


def test_the_gpu_that_memory_is_predicted_for():
    (default, *_), (named, *_) = plan(SUITE).cells, plan(SUITE + "gpu: H100 SXM\n").cells
    assert default.gpu is None
    assert named.gpu == "H100 SXM"
    assert default.id != named.id
    assert cost_key(default, {}) != cost_key(named, {})
    with pytest.raises(SuiteError, match=r"s.yaml:7:1: gpu: 'H100' is not one of .*; did you mean"):
        plan(SUITE + "gpu: H100\n")


def predicted(**values: float) -> CellResult:
    found = [Measurement(metric="trainable_params", value=values["params"])]
    found.append(Measurement(metric="train_step_flops", value=values["flops"], kind="executed"))
    found.append(Measurement(metric="peak_memory_bytes", value=values["bytes"], kind="reserved", source="predicted", device="cuda"))
    return CellResult(cell_id="x", outcome=Outcome.OK, measurements=tuple(found), started_at="", seconds=0)


def test_what_is_over_a_limit_is_not_begun():
    budget = "{match_on: train_gflops, amount: 100, caps: {peak_memory_gib: 2, trainable_params: 30e6}}"
    cell = expand(suite_file.parse(TRAIN.replace("{match_on: samples, amount: 64}", budget), Path("s.yaml")), EGOGESTAR).cells[0]
    fits = {"params": 30e6, "flops": 2e9, "bytes": 2 * 2**30}
    assert refusal(cell, predicted(**fits)) is None
    assert refusal(cell, predicted(**{**fits, "params": 31e6})) == (
        Outcome.SKIPPED,
        "31.00 M trainable parameters, the budget allows 30.00 M",
    )
    assert refusal(cell, predicted(**{**fits, "bytes": 3 * 2**30})) == (
        Outcome.SKIPPED,
        "predicted: needs 3.00 GiB reserved, the budget allows 2 GiB",
    )
    assert refusal(cell, predicted(**{**fits, "flops": 2e11})) == (
        Outcome.FAILED,
        "train_gflops of 100 are less than one step, which takes 200; raise 'budget.amount', or lower the batch size",
    )
    assert cell.steps(2e9) == 50
    assert cell.steps() is None
    trying = cell.model_copy(update={"search": Search(learning_rate=(1e-3, 1e-4))})
    assert refusal(trying, predicted(**{**fits, "flops": 1e10})) is None
    outcome, reason = refusal(trying, predicted(**{**fits, "flops": 2e10}))
    assert (outcome, reason[:60]) == (Outcome.FAILED, "train_gflops of 15 are less than one step, which takes 20; r")


def test_an_absent_data_set_is_planned_and_not_run():
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["dataset=[manifest, ssv2, kinetics400]", "task=train"])
    data = resolve_data(loaded, Path("/nowhere"), absent=True)
    assert data.main is not None
    assert (data.main.ref.name, data.main.num_classes, data.main.root, data.main.fingerprint) == ("ssv2", 174, None, None)
    assert data.absent == (data.main,)
    cells = expand(loaded, data).cells
    assert {(c.num_classes, c.dataset.name, c.data_fingerprint) for c in cells} == {(174, "ssv2", None)}
    with pytest.raises(DataMissing, match="no data set: 'manifest' at /nowhere/manifest, 'ssv2' at /nowhere/ssv2, 'kinetics400' at"):
        resolve_data(loaded, Path("/nowhere"))


@pytest.mark.parametrize("dataset", ["manifest", "{name: ssv2, options: {class_list: temporal.txt}}"])
def test_where_nobody_says_how_many_classes_there_are_nothing_is_planned(dataset: str):
    with pytest.raises(DataMissing, match="no data set"):
        resolve_data(suite_file.parse(TRAIN, Path("s.yaml"), [f"dataset={dataset}"]), None, absent=True)


def test_what_can_be_made_is_not_absent():
    loaded = suite_file.parse(TRAIN, Path("s.yaml"), ["dataset=[ssv2, motion_shapes]"])
    data = resolve_data(loaded, None, absent=True)
    assert data.main is not None
    assert (data.main.ref.name, data.absent) == ("motion_shapes", ())


def planned_recipe(*settings: str, method: str = "videomae-tiny", data: Sources = EGOGESTAR) -> Recipe:
    (cell,) = expand(
        suite_file.parse(
            TRAIN, Path("s.yaml"), [f"methods={method}", "task=train", "sweep=[{frames: 8, resolution: 64, batch_size: 4}]", *settings]
        ),
        data,
    ).cells
    return cell.recipe


def test_clips_are_flipped_where_the_data_allow_it():
    kinetics = Sources(DataSource(DatasetRef(name="kinetics400"), None, 400, None, flip_safe=True, absent=True))
    assert videomae.RECIPE.flip == "if-safe"
    assert (planned_recipe().flip, planned_recipe(data=kinetics).flip) == (False, True)
    assert planned_recipe("recipe.flip=true").flip is True
    # a profile has no data: nothing is flipped
    assert plan(SUITE).cells[0].recipe.flip is False


def test_cells_do_not_hold_what_only_says_what_is_published():
    recipe = planned_recipe("recipe.base=common")
    assert videomae.RECIPE.epochs is not None
    assert (recipe.epochs, recipe.batch_size) == (None, None)
    assert (planned_recipe().epochs, planned_recipe("recipe.epochs=7")) == (None, planned_recipe())


def test_a_recipe_of_the_data_set_at_hand():
    ssv2 = Sources(DataSource(DatasetRef(name="ssv2"), None, 174, None, absent=True))
    assert (planned_recipe().sampling, planned_recipe(data=ssv2).sampling) == ("dense", "segment")
    assert planned_recipe("recipe.base=common", data=ssv2) == COMMON_RECIPE


def test_learning_rates_are_scaled_where_that_is_asked_for():
    published = videomae.RECIPE
    assert planned_recipe().learning_rate == published.learning_rate
    scaled = planned_recipe("recipe.scale_learning_rate=true")
    assert scaled.learning_rate == pytest.approx(published.learning_rate * 4 / 512)
    assert planned_recipe("recipe={scale_learning_rate: true, batch_size: 8}").learning_rate == published.learning_rate / 2
    with pytest.raises(
        SuiteError,
        match=r"recipe.scale_learning_rate: pixt-tiny: the batch size that its learning rate is for is not known; give 'batch_size'",
    ):
        planned_recipe("recipe.scale_learning_rate=true", method="pixt-tiny")


@pytest.mark.parametrize(
    ("batch_size", "recipe", "says"),
    [
        (3, "{}", "videomae-tiny: each clip is 2 times in a batch, and a batch has 3 clips; use a multiple of 2, or change the recipe"),
        (3, "{repeated_augmentation: 1}", "'mixup' and 'cutmix' pairs clips, and a batch has 3; set an even batch size, or change"),
    ],
)
def test_a_batch_that_the_recipe_cannot_make_is_refused(batch_size: int, recipe: str, says: str):
    settings = ["methods=videomae-tiny", f"sweep=[{{frames: 8, resolution: 64, batch_size: {batch_size}}}]", f"recipe={recipe}"]
    with pytest.raises(SuiteError) as error:
        expand(suite_file.parse(TRAIN, Path("s.yaml"), settings), EGOGESTAR)
    assert says in str(error.value)
    # a profile makes no batch of clips
    assert plan(SUITE, settings[1]).cells


def test_what_is_rebuilt_is_not_mixed():
    text = TRAIN + "pretraining: {objective: reconstruction, budget: {match_on: steps, amount: 5}}\n"
    start, trained = expand(suite_file.parse(text, Path("s.yaml"), ["methods=videomae-tiny", "task=train"]), EGOGESTAR).cells[:2]
    assert (start.task, start.recipe.mixup, start.recipe.cutmix, start.recipe.random_erasing, start.recipe.rand_augment) == (
        "pretrain",
        0,
        0,
        0,
        None,
    )
    assert (trained.recipe.mixup, trained.recipe.random_erasing) == (0.8, 0.25)
    asked = [*("methods=videomae-tiny", "task=train"), "pretraining.recipe={random_erasing: 0.5, betas: [0.9, 0.95]}"]
    start = expand(suite_file.parse(text, Path("s.yaml"), asked), EGOGESTAR).cells[0]
    assert (start.recipe.random_erasing, start.recipe.betas) == (0.5, (0.9, 0.95))


def test_a_method_may_start_from_nothing_beside_those_that_do_not():
    methods = "methods=[videomae-b, {name: i3d-tiny, pretrained: false}]"
    cells = plan(SUITE, methods, "pretrained=true").cells
    assert {(c.method, c.pretrained) for c in cells} == {("videomae-b", True), ("i3d-tiny", False)}
    with pytest.raises(SuiteError, match=r"methods\[0\].pretrained: no weights are published for 'i3d-tiny'; leave it out, or set"):
        plan(SUITE, "methods=[{name: i3d-tiny, pretrained: true}]")
