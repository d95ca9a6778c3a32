"""The vocabulary of launches: what can be asked for, and what is refused before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from benchctl.launch import Launch
from benchctl.plan import expand
from benchctl.suite_file import parse

SUITE = """name: s
task: train
methods: [moss-tiny]
sweep: [{frames: 4, resolution: 64, batch_size: 8}]
dataset: motion_shapes
budget: {match_on: steps, amount: 5}
seeds: [0]
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zero": 2}, "'zero: 2' is of DeepSpeed"),
        ({"half": "weights"}, "'half: weights' is of DeepSpeed"),
        ({"offload": "optimizer"}, "'offload: optimizer' is of DeepSpeed"),
        ({"engine": "deepspeed", "zero": 2, "offload": "parameters"}, "needs 'zero: 3'"),
        ({"engine": "deepspeed", "offload": "optimizer"}, "needs 'zero: 1' or more"),
        ({"gpus": 0}, "greater than 0"),
        ({"gpus": True}, "valid integer"),
        ({"engine": "deep"}, "'plain' or 'deepspeed'"),
    ],
)
def test_what_no_launch_can_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Launch.model_validate(given)


@pytest.mark.parametrize(
    ("launch", "batch", "precision", "what", "fix"),
    [
        (Launch(gpus=3), 8, "fp32", "8 clips cannot be divided among 3 ranks", "batch size of 6 or 9"),
        (Launch(gpus=16), 8, "fp32", "among 16 ranks", "batch size of 16"),
        (Launch(gpus=2, micro_batch=3), 8, "fp32", "micro-batches of 3 x 2 ranks", "micro-batch of 1, 2, 4"),
        (Launch(engine="deepspeed", half="weights"), 8, "bf16", "ZeRO stage 0", "'zero: 1' or more"),
        (Launch(engine="deepspeed", zero=1, half="weights"), 8, "fp32", "the precision is fp32", "precision: bf16"),
    ],
)
def test_what_does_not_fit_a_cell(launch: Launch, batch: int, precision: str, what: str, fix: str) -> None:
    misfit = launch.misfit(batch, precision)
    assert misfit is not None
    assert what in misfit[0]
    assert fix in misfit[1]


@pytest.mark.parametrize(
    ("launch", "possible"),
    [
        (Launch(gpus=2), (4,)),
        (Launch(gpus=2, micro_batch=2), (2,)),
        (Launch(gpus=2, micro_batch="auto"), (4, 2, 1)),
        (Launch(gpus=2, nodes=2, micro_batch="auto"), (2, 1)),
    ],
)
def test_micro_batches_divide_the_share_of_a_rank(launch: Launch, possible: tuple[int, ...]) -> None:
    assert launch.misfit(8, "fp32") is None
    assert launch.micro_batches(8) == possible


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (Launch(), "plain 1 rank"),
        (Launch(gpus=2), "ddp 2 ranks"),
        (
            Launch(engine="deepspeed", zero=3, gpus=8, nodes=2, offload="parameters"),
            "deepspeed zero3 16 ranks on 2 nodes offload parameters",
        ),
        (Launch(engine="deepspeed", zero=1, gpus=2, half="weights", micro_batch=1), "deepspeed zero1 2 ranks half weights micro 1"),
    ],
)
def test_tables_say_it_in_a_few_words(launch: Launch, said: str) -> None:
    assert str(launch) == said


def cells(tmp_path, *settings: str):
    loaded = parse(SUITE, tmp_path / "s.yaml", settings)
    from benchctl.plan import resolve_data

    return expand(loaded, resolve_data(loaded, None)).cells


def test_a_launch_is_part_of_the_cell_and_of_its_label(tmp_path) -> None:
    (alone,) = cells(tmp_path)
    (two,) = cells(tmp_path, "launch.engine=deepspeed", "launch.zero=2", "launch.gpus=2")
    assert alone.launch is None
    assert alone.id != two.id
    assert alone.kin == two.kin == alone.id
    assert two.label.startswith("moss-tiny(launch=deepspeed zero2 2 ranks)/train")


def test_a_list_of_launches_makes_a_cell_for_each_and_one_plain_process_is_none(tmp_path) -> None:
    (alone,) = cells(tmp_path)
    found = cells(tmp_path, "launch=[{gpus: 1}, {gpus: 2}, {engine: deepspeed, gpus: 1}]")
    assert found[0].id == alone.id
    assert [str(cell.launch) for cell in found[1:]] == ["ddp 2 ranks", "deepspeed zero0 1 rank"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["launch.gpus=3"], "cannot be divided among 3 ranks"),
        (["launch.engine=deepspeed", "launch.half=weights", "precision=bf16"], "bf16 weights at ZeRO stage 0"),
        (["launch.gpus=2", "task=profile"], "this suite does not; leave it out"),
        (["launch.gpu=2"], "gpus"),
        (["launch.gpus=2", "launch.micro_batch=auto"], "set 'memory_cap_gib'"),
    ],
)
def test_a_suite_that_cannot_be_launched_says_where(tmp_path, settings: list[str], said: str) -> None:
    from benchctl.errors import UsageError

    with pytest.raises(UsageError) as refused:
        cells(tmp_path, *settings)
    assert said in str(refused.value)
    assert "launch" in str(refused.value)
