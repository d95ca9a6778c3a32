"""The gate: what a run came to, against pins. Pure: `judge(pins, results)` reads no file, no clock and no chance.

    pass            within its rule
    regressed       worse than its rule allows, and not by chance
    improved        better by more than the rule would allow in the other direction
    inconclusive    too little was measured to say, or nothing at all: a pinned cell without a result is never a pass
    not-comparable  measured elsewhere: another GPU, precision, decoder or attention backend

Rules, by what a number is (`Rules` has their limits):

    parameters, MACs, FLOPs, steps, predicted memory    exact
    measured memory                                     a share or some bytes; only `allocated` decides, other kinds warn
    growth of memory over frames and resolution         exponents
    accuracy of one checkpoint                          McNemar's exact test and the bootstrap interval over clips, together
    accuracy of trainings                               Welch's interval over seeds, three or more
    times                                               never: only samples that were taken in turns can be compared
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median

from benchctl.pins import MEMORY, SCORES, Pin, Pins, Rules, ValueKey, changed_rules
from benchctl.record import UNITS, Environment, Outcome
from benchctl.statistics import Comparison, mann_whitney, paired_shares, ratio_of_medians, sample, slope, welch

#: the kind of measured memory that decides
_DECIDING = "allocated"
#: more of these is worse; of the other counts, any change is
_COSTS = ("params", "trainable_params", "macs", "flops", "uncounted_operators", "train_step_flops", "unreadable_clips")
#: cells that differ in one of these alone answer for a pinned one that is missing: they are not the same
_OTHERWISE = ("precision", "attention", "pretrained", "seed")


class Word(StrEnum):
    """What the gate says."""

    PASS = "pass"
    REGRESSED = "regressed"
    IMPROVED = "improved"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one number, with what decided."""

    word: Word
    #: a cell, or trainings that differ by their seeds
    label: str
    #: of the cell; of trainings, the first one's
    cell: str
    #: what was compared: `macs all`, `top1 over 3 seeds`
    subject: str
    #: base unit of `pinned` and `found`; empty: they are words, or have none
    unit: str
    pinned: float | int | str | None
    found: float | int | str | None
    #: which rule decided, with its numbers
    rule: str
    #: worth a look, though it decides nothing
    warning: bool = False

    @property
    def decides(self) -> bool:
        """Whether it keeps the gate from passing."""
        return self.word in (Word.REGRESSED, Word.INCONCLUSIVE, Word.NOT_COMPARABLE)


def judge(pins: Pins, results: Pins) -> tuple[Verdict, ...]:
    """A verdict on every pinned number, cell by cell, and then on what several cells say together.

    Args:
        pins: what is expected.
        results: what a run came to; cells that are not pinned count for nothing.
    """
    found = {pin.cell: pin for pin in results.cells}
    families = _families(pins)
    tests = sum(len(_scores(family)) for family in families) + sum(not pin.trained and pin.correct is not None for pin in pins.cells)
    verdicts: list[Verdict] = []
    for pin in pins.cells:
        rules = _each(changed_rules(pins.rules, pin.rules), tests)
        result = found.get(pin.cell)
        if result is None:
            verdicts.append(_missing(pin, results.cells))
            continue
        ended = _outcome(pin, result)
        verdicts.append(ended)
        if ended.word is Word.PASS and result.outcome in (Outcome.OK, Outcome.OOM):
            verdicts += _Compared(pin, result, *_environments(pin, result, pins, results), rules).verdicts()
    verdicts += _growths(pins, results, found)
    verdicts += _trainings(pins, results, found, families, tests)
    return tuple(verdicts)


def judge_times(before: Sequence[float], after: Sequence[float], rules: Rules) -> Verdict:
    """A verdict on times of two commands, seconds, taken in turns: the ratio of medians and Mann and Whitney's test must both say so."""
    ratio, low, high = ratio_of_medians(before, after, rules.level)
    p, margin, alpha = mann_whitney(before, after), rules.time_share, 1 - rules.level
    word = Word.PASS if ratio <= 1 + margin else Word.INCONCLUSIVE
    if p <= alpha and low > 1 + margin:
        word = Word.REGRESSED
    elif p <= alpha and high < 1 - margin:
        word = Word.IMPROVED
    rule = f"{ratio:.3f} times as long, {_percent(rules.level)} interval {low:.3f} to {high:.3f}, margin {_percent(margin)}; "
    rule += f"Mann-Whitney p = {p:.2g}, {len(before)} and {len(after)} times in turns"
    return Verdict(word, "B", "", "median time", "seconds", round(median(before), 6), round(median(after), 6), rule)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0: nothing keeps the gate from passing; 1: something regressed; 4: something could not be compared."""
    words = {verdict.word for verdict in verdicts}
    return 1 if Word.REGRESSED in words else 4 if words & {Word.INCONCLUSIVE, Word.NOT_COMPARABLE} else 0


@dataclass(frozen=True)
class _Compared:
    """One cell that was run again."""

    pin: Pin
    result: Pin
    pinned_on: Environment
    found_on: Environment
    rules: Rules

    def verdicts(self) -> Iterator[Verdict]:
        """One for each pinned number, but for scores of trainings: one training is no evidence."""
        numbers = self.result.numbers
        for key, pinned in self.pin.numbers.items():
            if key.metric in SCORES and self.pin.trained:
                continue
            if key in numbers:
                yield self.of(key, pinned, numbers[key])
            else:
                yield self.said(Word.INCONCLUSIVE, key, pinned, None, "the result does not have it")
        for text in self.pin.times:
            taken = "these were not taken in turns; benchctl compare --ab takes such samples"
            yield self.said(Word.INCONCLUSIVE, ValueKey.parse(text), None, None, f"times are compared only in turns, and {taken}")

    def of(self, key: ValueKey, pinned: float | int, found: float | int) -> Verdict:
        """The verdict on one number that both have."""
        if key.metric in SCORES:
            return self.score(key, pinned, found)
        if key.metric == MEMORY and key.source == "measured":
            elsewhere = _elsewhere(key.device, self.pinned_on, self.found_on)
            if not elsewhere:
                return self.memory(key, pinned, found)
            # what decides nothing cannot keep the gate from passing either
            word = Word.NOT_COMPARABLE if key.kind == _DECIDING else Word.PASS
            return self.said(word, key, pinned, found, elsewhere)
        return self.exact(key, pinned, found)

    def exact(self, key: ValueKey, pinned: float | int, found: float | int) -> Verdict:
        """Counts and predictions: the same numbers, or it is another computation."""
        if pinned == found:
            return self.said(Word.PASS, key, pinned, found, "exact")
        lower = found < pinned and (key.metric in _COSTS or key.metric == MEMORY)
        return self.said(Word.IMPROVED if lower else Word.REGRESSED, key, pinned, found, f"exact{_versions(self.pinned_on, self.found_on)}")

    def memory(self, key: ValueKey, pinned: float | int, found: float | int) -> Verdict:
        """Measured memory: `allocated` decides, and the others, which a cache or another program can move, warn."""
        if key.kind != _DECIDING:
            over = found > pinned * (1 + self.rules.warn_share)
            rule = f"{key.kind or 'this kind'} only warns, above {_percent(self.rules.warn_share)}"
            return self.said(Word.PASS, key, pinned, found, rule, warning=over)
        limit = max(pinned * self.rules.memory_share, self.rules.memory_bytes)
        shares = f"{_percent(self.rules.memory_share)} or {self.rules.memory_bytes / 2**20:g} MiB"
        rule = f"at most {limit / 2**20:.1f} MiB more (the larger of {shares})"
        word = Word.REGRESSED if found > pinned + limit else Word.IMPROVED if found < pinned - limit else Word.PASS
        return self.said(word, key, pinned, found, rule if word is not Word.REGRESSED else rule + _versions(self.pinned_on, self.found_on))

    def score(self, key: ValueKey, pinned: float | int, found: float | int) -> Verdict:
        """The accuracy of a checkpoint: clip by clip, where both were judged over the same clips with the same weights."""
        first, second = self.pin.correct, self.result.correct
        elsewhere = _elsewhere(self.pin.device, self.pinned_on, self.found_on) or self.judged_otherwise()
        if elsewhere:
            return self.said(Word.NOT_COMPARABLE, key, pinned, found, elsewhere)
        if pinned == found and key.metric != "top1":
            return self.said(Word.PASS, key, pinned, found, "equal")
        if key.metric == "top5" and first is not None:
            return self.said(Word.PASS, key, pinned, found, "only warns: the top-1 of the same clips decides", warning=found < pinned)
        if key.metric != "top1" or first is None or second is None:
            return self.said(
                Word.INCONCLUSIVE, key, pinned, found, "it differs, and there is nothing clip by clip that could tell chance from more"
            )
        lost = sum(a and not b for a, b in zip(first.right, second.right))
        gained = sum(b and not a for a, b in zip(first.right, second.right))
        compared = paired_shares(lost, gained, first.clips, self.rules.level)
        margin, alpha = self.rules.checkpoint_margin, 1 - self.rules.level
        word = _fallen(compared, margin)
        # both must say so: the interval, and the exact test
        if word in (Word.REGRESSED, Word.IMPROVED) and compared.p > alpha:
            word = Word.INCONCLUSIVE
        rule = f"{lost} clips lost and {gained} gained of {first.clips}: {_interval(compared, self.rules.level)}, margin {_points(margin)}"
        return self.said(word, key, pinned, found, f"{rule}, McNemar p = {compared.p:.2g}")

    def judged_otherwise(self) -> str:
        """Why the same score would not mean the same; empty: it does."""
        first, second = self.pin, self.result
        if first.data != second.data:
            return "other data"
        if first.correct and second.correct and first.correct.ids_sha256 != second.correct.ids_sha256:
            return f"other clips: {second.correct.clips}, pinned {first.correct.clips}"
        if not first.trained and first.weights_sha256 != second.weights_sha256:
            return "another checkpoint"
        if first.data is not None and self.pinned_on.decoders != self.found_on.decoders:
            return f"decoders {_listed(self.found_on.decoders)}, pinned with {_listed(self.pinned_on.decoders)}"
        return ""

    def said(
        self, word: Word, key: ValueKey, pinned: float | int | None, found: float | int | None, rule: str, *, warning: bool = False
    ) -> Verdict:
        """A verdict on this cell."""
        return Verdict(word, self.pin.words.label, self.pin.cell, str(key), UNITS[key.metric], pinned, found, rule, warning)


def _missing(pin: Pin, results: Sequence[Pin]) -> Verdict:
    """A pinned cell without a result: never a pass."""
    verdict = Verdict(Word.INCONCLUSIVE, pin.words.label, pin.cell, "outcome", "", pin.outcome.value, None, "no result of this cell")
    for other in results:
        differing = {name for name in pin.words.__class__.model_fields if getattr(pin.words, name) != getattr(other.words, name)}
        if differing and differing <= set(_OTHERWISE):
            said = ", ".join(f"{name} {getattr(other.words, name)}, pinned {getattr(pin.words, name)}" for name in sorted(differing))
            return replace(verdict, word=Word.NOT_COMPARABLE, rule=f"only a cell with {said}")
        if not differing:
            # same words, another id: its options, recipe, budget or data are other ones
            return replace(verdict, word=Word.NOT_COMPARABLE, found=other.outcome.value, rule=f"cell {other.cell} is defined otherwise")
    return verdict


def _outcome(pin: Pin, result: Pin) -> Verdict:
    """How it ended, against how it ended before."""
    verdict = Verdict(
        Word.PASS, pin.words.label, pin.cell, "outcome", "", pin.outcome.value, result.outcome.value, f"as pinned: {pin.outcome.value}"
    )
    if pin.outcome is result.outcome:
        return verdict
    because = f": {result.reason}" if result.reason else ""
    if result.outcome in (Outcome.INTERRUPTED, Outcome.SKIPPED):
        return replace(verdict, word=Word.INCONCLUSIVE, rule=f"it did not end{because}")
    word = Word.IMPROVED if result.outcome is Outcome.OK else Word.REGRESSED
    return replace(verdict, word=word, rule=f"pinned as {pin.outcome.value}, now {result.outcome.value}{because}")


def _growths(pins: Pins, results: Pins, found: Mapping[str, Pin]) -> Iterator[Verdict]:
    """The exponents that memory grows with over one size, all else equal, where three or more sizes are pinned."""
    for over in ("frames", "resolution"):
        families: dict[tuple[object, ...], list[Pin]] = defaultdict(list)
        for pin in pins.cells:
            words = pin.words.model_dump(exclude={over})
            families[tuple(words.values())].append(pin)
        for family in families.values():
            if len({getattr(pin.words, over) for pin in family}) >= 3:
                yield from _growth(pins, results, found, over, sorted(family, key=lambda pin: getattr(pin.words, over)))


def _growth(pins: Pins, results: Pins, found: Mapping[str, Pin], over: str, family: Sequence[Pin]) -> Iterator[Verdict]:
    first = family[0]
    rules = changed_rules(pins.rules, *(pin.rules for pin in family))
    keys = {key for pin in family for key in pin.numbers if key.metric == MEMORY and key.kind == _DECIDING}
    sizes = [getattr(pin.words, over) for pin in family]
    label = f"{first.words.label} .. {sizes[-1]} {over}"
    for key in sorted(keys):
        both = [
            (size, pin.numbers[key], found[pin.cell].numbers[key])
            for size, pin in zip(sizes, family)
            if pin.cell in found
            and min(pin.numbers.get(key, 0), found[pin.cell].numbers.get(key, 0)) > 0
            and (key.source == "predicted" or not _elsewhere(key.device, *_environments(pin, found[pin.cell], pins, results)))
        ]
        if len(both) < 3:
            # each cell that is missing, ended otherwise or ran elsewhere has a verdict of its own
            continue
        pinned, now = slope([(size, before) for size, before, _ in both]), slope([(size, after) for size, _, after in both])
        change, limit = now - pinned, rules.exponent
        word = Word.REGRESSED if change > limit else Word.IMPROVED if change < -limit else Word.PASS
        rule = f"exponent over {len(both)} sizes, at most {limit:g} more"
        yield Verdict(word, label, first.cell, f"growth over {over}: {key}", "", round(pinned, 4), round(now, 4), rule)


def _environments(pin: Pin, result: Pin, pins: Pins, results: Pins) -> tuple[Environment, Environment]:
    return pins.environments[pin.environment], results.environments[result.environment]


def _each(rules: Rules, tests: int) -> Rules:
    """The rules for one of several statistical tests: together they may err as often as one alone (Bonferroni)."""
    return rules.model_copy(update={"level": 1 - (1 - rules.level) / max(tests, 1)})


def _families(pins: Pins) -> list[list[Pin]]:
    """Pinned trainings that differ by their seeds alone."""
    families: dict[tuple[object, ...], list[Pin]] = defaultdict(list)
    for pin in pins.cells:
        if pin.trained and pin.outcome is Outcome.OK:
            families[tuple(pin.words.model_dump(exclude={"seed", "start"}).values())].append(pin)
    return list(families.values())


def _scores(family: Sequence[Pin]) -> list[ValueKey]:
    return sorted({key for pin in family for key in pin.numbers if key.metric in SCORES})


def _trainings(pins: Pins, results: Pins, found: Mapping[str, Pin], families: Sequence[Sequence[Pin]], tests: int) -> Iterator[Verdict]:
    """Scores of trainings: means over seeds."""
    for family in families:
        rules = _each(changed_rules(pins.rules, *(pin.rules for pin in family)), tests)
        again = [found[pin.cell] for pin in family if pin.cell in found and found[pin.cell].outcome is Outcome.OK]
        for key in _scores(family):
            yield _mean(key, family, again, rules, pins.environments, results.environments)


def _mean(
    key: ValueKey,
    family: Sequence[Pin],
    again: Sequence[Pin],
    rules: Rules,
    pinned_on: Mapping[str, Environment],
    found_on: Mapping[str, Environment],
) -> Verdict:
    first = family[0]
    before = sample([pin.numbers[key] for pin in family if key in pin.numbers])
    after = sample([pin.numbers[key] for pin in again if key in pin.numbers])
    verdict = Verdict(
        word=Word.INCONCLUSIVE,
        label=first.words.label.removesuffix(f"/seed{first.words.seed}"),
        cell=first.cell,
        subject=f"{key.metric}, mean of trainings",
        unit="fraction" if key.metric != "pearson_r" else "correlation",
        pinned=before.mean,
        found=after.mean if after.values else None,
        rule="",
    )
    for pin in again:
        pinned = next(each for each in family if each.cell == pin.cell)
        compared = _Compared(pinned, pin, pinned_on[pinned.environment], found_on[pin.environment], rules)
        why = _elsewhere(pinned.device, compared.pinned_on, compared.found_on, same_cpu=False) or compared.judged_otherwise()
        if why:
            return replace(verdict, word=Word.NOT_COMPARABLE, rule=why)
    counts = f"{len(after.values)} trainings, pinned {len(before.values)}"
    if min(len(before.values), len(after.values)) < max(rules.seeds, 2):
        return replace(verdict, rule=f"{counts}: a mean needs {rules.seeds}")
    result = welch(before, after, rules.level)
    rule = f"{counts}: {_interval(result, rules.level)} (Welch), margin {_points(rules.training_margin)}, p = {result.p:.2g}"
    return replace(verdict, word=_fallen(result, rules.training_margin), rule=rule)


def _fallen(change: Comparison, margin: float) -> Word:
    """What a change of a score is, by its interval and a margin that does not matter.

    A fall beyond the margin that chance explains as well is inconclusive; a smaller one is a pass, because there is no sign of more.
    """
    if change.high < -margin:
        return Word.REGRESSED
    if change.low > margin:
        return Word.IMPROVED
    return Word.PASS if change.difference >= -margin else Word.INCONCLUSIVE


def _elsewhere(device: str, pinned: Environment, found: Environment, *, same_cpu: bool = True) -> str:
    """Why numbers of two machines are not comparable; empty: they are."""
    if device == "cuda":
        first, second = ([gpu.name for gpu in each.gpus] for each in (pinned, found))
        if first[:1] != second[:1]:
            return f"GPU {_listed(second[:1])}, pinned on {_listed(first[:1])}"
    if device == "cpu" and same_cpu and pinned.cpu != found.cpu:
        return f"CPU {found.cpu}, pinned on {pinned.cpu}"
    return ""


def _versions(pinned: Environment, found: Environment) -> str:
    """Packages whose version changed: what a reader looks at first."""
    names = sorted(pinned.packages.keys() | found.packages.keys())
    changed = [
        f"{name} {found.packages.get(name, 'none')}, pinned with {pinned.packages.get(name, 'none')}"
        for name in names
        if pinned.packages.get(name) != found.packages.get(name)
    ]
    return f" ({'; '.join(changed)})" if changed else ""


def _interval(compared: Comparison, level: float) -> str:
    low, high = (f"{100 * value:+.2f}" for value in (compared.low, compared.high))
    return f"{100 * compared.difference:+.2f} points, {_percent(level)} interval {low} to {high}"


def _points(share: float) -> str:
    return f"{100 * share:g} points"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
