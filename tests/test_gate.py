"""The gate: each rule on numbers that are worked out by hand, and what it must never do."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pin_samples import HERE, gpu, pin, results, right

from benchctl import gate
from benchctl.gate import Verdict, Word
from benchctl.pins import Pin, Rules
from benchctl.record import Environment, Outcome

MIB = 2**20
GIB = 2**30
ALLOCATED = "peak_memory_bytes allocated cuda"
PREDICTED = "peak_memory_bytes allocated predicted cuda"


def judged(pinned: Pin | list[Pin], found: Pin | list[Pin], **rules: Any) -> list[Verdict]:
    sides = [each if isinstance(each, list) else [each] for each in (pinned, found)]
    environments = (HERE, gpu("A"), gpu("B"), OTHER_CPU, OTHER_TORCH, OTHER_DECODER)
    return list(gate.judge(*(results(*side, environments=environments, **given) for side, given in zip(sides, ({"rules": rules}, {})))))


OTHER_CPU = HERE.model_copy(update={"cpu": "y"})
OTHER_TORCH = HERE.model_copy(update={"packages": {"torch": "3.0"}})
OTHER_DECODER = HERE.model_copy(update={"decoders": ("av 99",)})


def one(verdicts: list[Verdict], subject: str) -> Verdict:
    (found,) = (verdict for verdict in verdicts if verdict.subject == subject)
    return found


def test_the_same_is_a_pass() -> None:
    there = pin(values={"macs all": 12, ALLOCATED: GIB, PREDICTED: 5}, correct=right(True, False))
    verdicts = judged(there, there)
    assert {verdict.word for verdict in verdicts} == {Word.PASS}
    assert len(verdicts) == 4
    assert gate.exit_code(verdicts) == 0


@pytest.mark.parametrize("key", ["macs all", "params", "train_flops executed", "steps", "samples", PREDICTED, "memory"])
def test_counts_and_predictions_are_exact(key: str) -> None:
    if key == "memory":
        key = "peak_memory_bytes reserved predicted cuda"
    verdict = one(judged(pin(values={key: 10**9}), pin(values={key: 10**9 + 1})), key)
    assert verdict.word is Word.REGRESSED
    assert (verdict.pinned, verdict.found, verdict.rule) == (10**9, 10**9 + 1, "exact")


@pytest.mark.parametrize(
    ("key", "word"),
    [("macs all", Word.IMPROVED), (PREDICTED, Word.IMPROVED), ("steps", Word.REGRESSED), ("train_flops executed", Word.REGRESSED)],
)
def test_less_cost_is_better_and_less_training_is_not(key: str, word: Word) -> None:
    assert one(judged(pin(values={key: 100}), pin(values={key: 99})), key).word is word


@pytest.mark.parametrize(
    ("pinned", "found", "word"),
    [
        # 1 % of 1 GiB is 10.24 MiB
        (GIB, GIB + 10 * MIB, Word.PASS),
        (GIB, GIB + 11 * MIB, Word.REGRESSED),
        (GIB, GIB - 11 * MIB, Word.IMPROVED),
        # of 100 MiB it would be 1: 8 MiB decide
        (100 * MIB, 108 * MIB, Word.PASS),
        (100 * MIB, 109 * MIB, Word.REGRESSED),
    ],
)
def test_measured_memory_may_grow_by_a_share_or_some_bytes(pinned: int, found: int, word: Word) -> None:
    assert one(judged(pin(values={ALLOCATED: pinned}), pin(values={ALLOCATED: found})), ALLOCATED).word is word


@pytest.mark.parametrize("kind", ["reserved cuda", "device cuda", "rss cpu"])
def test_other_kinds_of_memory_only_warn(kind: str) -> None:
    key = f"peak_memory_bytes {kind}"
    for found, warns in ((1.04, False), (1.06, True)):
        verdict = one(judged(pin(values={key: GIB}), pin(values={key: int(found * GIB)})), key)
        assert (verdict.word, verdict.warning) == (Word.PASS, warns)


def test_rules_can_be_changed_for_a_file_and_for_a_pin() -> None:
    grown = pin(values={ALLOCATED: int(1.015 * GIB)})
    assert one(judged(pin(values={ALLOCATED: GIB}), grown), ALLOCATED).word is Word.REGRESSED
    assert one(judged(pin(values={ALLOCATED: GIB}), grown, memory_share=0.02), ALLOCATED).word is Word.PASS
    strict = pin(values={ALLOCATED: GIB}, rules={"memory_share": 0.01})
    assert one(judged(strict, grown, memory_share=0.02), ALLOCATED).word is Word.REGRESSED


@pytest.mark.parametrize(
    ("pinned", "found", "word"),
    [
        (Outcome.OK, Outcome.OOM, Word.REGRESSED),
        (Outcome.OOM, Outcome.OK, Word.IMPROVED),
        (Outcome.OOM, Outcome.OOM, Word.PASS),
        (Outcome.OK, Outcome.FAILED, Word.REGRESSED),
        (Outcome.OK, Outcome.DIVERGED, Word.REGRESSED),
        (Outcome.OK, Outcome.TIMEOUT, Word.REGRESSED),
        (Outcome.OK, Outcome.INTERRUPTED, Word.INCONCLUSIVE),
        (Outcome.OK, Outcome.SKIPPED, Word.INCONCLUSIVE),
    ],
)
def test_how_a_cell_ends_is_gated(pinned: Outcome, found: Outcome, word: Word) -> None:
    verdict = one(judged(pin(outcome=pinned), pin(outcome=found, reason="it was so")), "outcome")
    assert verdict.word is word
    if word is not Word.PASS:
        assert "it was so" in verdict.rule


def test_a_missing_cell_or_number_is_never_a_pass() -> None:
    verdicts = judged([pin(), pin(method="vit-tiny", values={"macs all": 3})], pin(method="vit-tiny"))
    assert [verdict.word for verdict in verdicts] == [Word.INCONCLUSIVE, Word.PASS, Word.INCONCLUSIVE]
    assert gate.exit_code(verdicts) == 4


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"precision": "bf16"}, "only a cell with precision bf16, pinned fp32"),
        ({"attention": "eager"}, "only a cell with attention eager, pinned sdpa"),
        ({"seed": 1}, "only a cell with seed 1, pinned 0"),
        ({"cell": "other"}, "cell other is defined otherwise"),
    ],
)
def test_a_cell_that_is_another_one_is_not_comparable(change: dict[str, Any], rule: str) -> None:
    (verdict,) = judged(pin(), pin(**change))
    assert (verdict.word, verdict.rule) == (Word.NOT_COMPARABLE, rule)


@pytest.mark.parametrize(
    ("key", "pinned", "found", "rule"),
    [
        (ALLOCATED, gpu("A"), gpu("B"), "GPU B, pinned on A"),
        (ALLOCATED, gpu("A"), HERE, "GPU none, pinned on A"),
        ("peak_memory_bytes allocated cpu", HERE, OTHER_CPU, "CPU y, pinned on x"),
    ],
)
def test_memory_of_another_machine_is_not_comparable(key: str, pinned: Environment, found: Environment, rule: str) -> None:
    verdict = one(judged(pin(pinned, values={key: GIB}), pin(found, values={key: GIB})), key)
    assert (verdict.word, verdict.rule) == (Word.NOT_COMPARABLE, rule)


def test_memory_that_only_warns_decides_nothing_elsewhere_either() -> None:
    key = "peak_memory_bytes rss cpu"
    verdict = one(judged(pin(values={key: GIB}), pin(OTHER_CPU, values={key: 2 * GIB})), key)
    assert (verdict.word, verdict.warning, verdict.rule) == (Word.PASS, False, "CPU y, pinned on x")


def test_what_was_counted_elsewhere_is_comparable_and_versions_are_named() -> None:
    assert one(judged(pin(gpu("A"), values={PREDICTED: 5}), pin(gpu("B"), values={PREDICTED: 5})), PREDICTED).word is Word.PASS
    verdict = one(judged(pin(values={PREDICTED: 5}), pin(OTHER_TORCH, values={PREDICTED: 6})), PREDICTED)
    assert (verdict.word, verdict.rule) == (Word.REGRESSED, "exact (torch 3.0, pinned with none)")


# growth


def family(sizes: list[int], exponent: float, over: str) -> list[Pin]:
    return [pin(values={PREDICTED: int(1e6 * size**exponent)}, **{over: size}) for size in sizes]


@pytest.mark.parametrize("over", ["frames", "resolution"])
@pytest.mark.parametrize(("exponent", "word"), [(2.0, Word.PASS), (2.04, Word.PASS), (2.06, Word.REGRESSED), (1.9, Word.IMPROVED)])
def test_the_exponent_of_growth_is_gated(over: str, exponent: float, word: Word) -> None:
    sizes = [64, 128, 256]
    verdict = one(judged(family(sizes, 2.0, over), family(sizes, exponent, over)), f"growth over {over}: {PREDICTED}")
    assert verdict.word is word
    assert verdict.pinned == pytest.approx(2, abs=1e-4)
    assert verdict.found == pytest.approx(exponent, abs=1e-4)


def test_two_sizes_are_no_growth() -> None:
    verdicts = judged(family([64, 128], 2.0, "frames"), family([64, 128], 2.0, "frames"))
    assert not [verdict for verdict in verdicts if verdict.subject.startswith("growth")]


# accuracy of a checkpoint


def checkpoint(bits: list[bool], environment: Environment = HERE, **changes: Any) -> Pin:
    correct = right(*bits)
    values = {"top1 cpu": sum(bits) / len(bits)}
    return pin(environment, **{"task": "evaluate", "values": values, "correct": correct, "weights_sha256": "w", **changes})


def flipped(bits: list[bool], lost: int, gained: int) -> list[bool]:
    """`bits` with so many right clips made wrong, and wrong ones right."""
    chance = random.Random(3)
    rights, wrongs = ([i for i, bit in enumerate(bits) if bit is value] for value in (True, False))
    changed = {*chance.sample(rights, lost), *chance.sample(wrongs, gained)}
    return [not bit if i in changed else bit for i, bit in enumerate(bits)]


MANY = [i % 10 < 7 for i in range(20_000)]
SOME = [i % 10 < 7 for i in range(1_000)]


@pytest.mark.parametrize(
    ("bits", "lost", "gained", "word"),
    [
        (MANY, 0, 0, Word.PASS),
        (MANY, 300, 100, Word.REGRESSED),
        (MANY, 100, 300, Word.IMPROVED),
        (MANY, 150, 100, Word.PASS),
        # beyond the margin of half a point, but the interval reaches over it
        (MANY, 210, 100, Word.INCONCLUSIVE),
        (SOME, 60, 10, Word.REGRESSED),
        (SOME, 12, 4, Word.INCONCLUSIVE),
        (SOME, 5, 5, Word.PASS),
    ],
)
def test_the_accuracy_of_a_checkpoint_is_compared_clip_by_clip(bits: list[bool], lost: int, gained: int, word: Word) -> None:
    verdict = one(judged(checkpoint(bits), checkpoint(flipped(bits, lost, gained))), "top1 cpu")
    assert verdict.word is word
    assert verdict.rule.startswith(f"{lost} clips lost and {gained} gained of {len(bits)}: {100 * (gained - lost) / len(bits):+.2f} points")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"weights_sha256": "v"}, "another checkpoint"),
        ({"data": "d"}, "other data"),
        ({"correct": right(True) | {"ids_sha256": "other"}}, "other clips: 1, pinned 1000"),
    ],
)
def test_another_checkpoint_or_data_is_not_comparable(change: dict[str, Any], rule: str) -> None:
    verdict = one(judged(checkpoint(SOME), checkpoint(SOME, **change)), "top1 cpu")
    assert (verdict.word, verdict.rule) == (Word.NOT_COMPARABLE, rule)


def test_another_decoder_is_not_comparable_where_videos_were_decoded() -> None:
    decoded = one(judged(checkpoint(SOME, data="d"), checkpoint(SOME, OTHER_DECODER, data="d")), "top1 cpu")
    assert (decoded.word, decoded.rule) == (Word.NOT_COMPARABLE, "decoders av 99, pinned with none")
    assert one(judged(checkpoint(SOME), checkpoint(SOME, OTHER_DECODER)), "top1 cpu").word is Word.PASS


def test_a_score_without_clips_is_equal_or_inconclusive() -> None:
    for key, word in (("pearson_r age", Word.INCONCLUSIVE), ("top1 cpu", Word.INCONCLUSIVE)):
        pinned = pin(task="evaluate", values={key: 0.9}, weights_sha256="w")
        found = pinned.model_copy(update={"values": {key: 0.5}})
        assert one(judged(pinned, found), key).word is word
    assert one(judged(pin(values={"pearson_r": 0.9}), pin(values={"pearson_r": 0.9})), "pearson_r").word is Word.PASS
    top5 = checkpoint(SOME).model_copy(update={"values": {"top1 cpu": 0.7, "top5 cpu": 0.9}})
    verdict = one(judged(top5, top5.model_copy(update={"values": {"top1 cpu": 0.7, "top5 cpu": 0.8}})), "top5 cpu")
    assert (verdict.word, verdict.warning) == (Word.PASS, True)


# accuracy of trainings


def trainings(*scores: float, first_seed: int = 0) -> list[Pin]:
    return [pin(task="train", seed=seed, values={"top1 cpu": score}) for seed, score in enumerate(scores, first_seed)]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ((0.90, 0.91, 0.92), Word.PASS),
        ((0.60, 0.61, 0.62), Word.REGRESSED),
        ((0.99, 0.991, 0.992), Word.IMPROVED),
        ((0.80, 0.86, 0.95), Word.INCONCLUSIVE),
    ],
)
def test_trainings_are_compared_by_their_means(found: tuple[float, ...], word: Word) -> None:
    verdicts = judged(trainings(0.90, 0.91, 0.92), trainings(*found))
    assert one(verdicts, "top1, mean of trainings").word is word


def test_evaluations_of_what_the_suite_trained_are_trainings() -> None:
    pinned = [checkpoint(SOME, seed=seed, judges=f"t{seed}", weights_sha256=f"w{seed}") for seed in range(3)]
    found = [each.model_copy(update={"weights_sha256": "other"}) for each in pinned]
    verdicts = judged(pinned, found)
    assert one(verdicts, "top1, mean of trainings").word is Word.PASS
    assert gate.exit_code(verdicts) == 0


def test_one_seed_is_never_enough() -> None:
    for count in (1, 2):
        few = trainings(*[0.5] * count)
        verdict = one(judged(few, few), "top1, mean of trainings")
        assert (verdict.word, verdict.rule) == (Word.INCONCLUSIVE, f"{count} trainings, pinned {count}: a mean needs 3")


def test_other_seeds_are_neither_a_regression_nor_a_pass() -> None:
    verdicts = judged(trainings(0.90, 0.91, 0.92), trainings(0.1, 0.1, 0.1, first_seed=3))
    assert {verdict.word for verdict in verdicts} == {Word.NOT_COMPARABLE, Word.INCONCLUSIVE}


def test_a_training_that_failed_is_a_regression_and_leaves_too_few() -> None:
    found = trainings(0.90, 0.91, 0.92)
    found[1] = found[1].model_copy(update={"outcome": Outcome.DIVERGED, "reason": "loss is not finite"})
    verdicts = judged(trainings(0.90, 0.91, 0.92), found)
    assert gate.exit_code(verdicts) == 1
    assert one(verdicts, "top1, mean of trainings").word is Word.INCONCLUSIVE


# times


def test_times_that_were_not_taken_in_turns_are_inconclusive() -> None:
    there = pin(times={"latency_seconds p50 cpu": (0.1, 0.11)})
    assert one(judged(there, there), "latency_seconds p50 cpu").word is Word.INCONCLUSIVE


@pytest.mark.parametrize(("factor", "word"), [(1.0, Word.PASS), (1.1, Word.REGRESSED), (0.9, Word.IMPROVED)])
def test_times_in_turns_are_compared(factor: float, word: Word) -> None:
    chance = random.Random(5)
    before = [1 + chance.gauss(0, 0.01) for _ in range(12)]
    after = [factor * (1 + chance.gauss(0, 0.01)) for _ in range(12)]
    assert gate.judge_times(before, after, Rules()).word is word


# whatever there is


@given(
    numbers=st.dictionaries(st.sampled_from(["macs all", "steps", ALLOCATED, PREDICTED, "params"]), st.integers(0, 2**40), max_size=5),
    others=st.dictionaries(st.sampled_from(["macs all", "steps", ALLOCATED, PREDICTED, "params"]), st.integers(0, 2**40), max_size=5),
)
def test_every_pinned_number_has_a_verdict_and_what_is_the_same_passes(numbers: dict[str, int], others: dict[str, int]) -> None:
    verdicts = judged(pin(values=numbers), pin(values=others))
    assert {verdict.subject for verdict in verdicts} >= {"outcome", *numbers}
    for verdict in verdicts:
        if verdict.subject in numbers:
            assert (verdict.word is Word.INCONCLUSIVE) == (verdict.subject not in others)
            if numbers[verdict.subject] == others.get(verdict.subject):
                assert verdict.word is Word.PASS
    assert gate.exit_code(judged(pin(values=numbers), pin(values=numbers))) == 0
