"""Embeddings of a data set's test clips in two dimensions by t-SNE (van der Maaten and Hinton 2008; MOOSE, Figure 6a).

An embedding is what a method's last linear layer, the one that makes its logits, is given for a clip. A picture of points can be read
in many ways, so each comes with a number: the share of clips whose class is that of most of their five nearest neighbours, among the
embeddings themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import Frames
from benchctl.data.named import open_named
from benchctl.errors import ClipUnreadable, DataMissing, UsageError
from benchctl.visualize import clip
from benchctl.visualize.model import LoadedModel

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NEIGHBOURS = 5
#: of the projection; another one is another picture of the same embeddings
_SEED = 0


@dataclass(frozen=True)
class Embedded:
    """What each method makes of the readable clips."""

    #: (clips, D) for each method; D is the method's own
    embeddings: tuple[Floats, ...]
    #: (clips,): index into the classes
    labels: Labels
    #: clip id -> why it could not be read
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Panel:
    """One method's points."""

    preset: str
    #: where its weights come from
    weights: str
    #: (clips, 2)
    points: Floats
    #: of the embeddings, not of the points
    neighbour_accuracy: float


def test_clips(name: str, options: Mapping[str, object], data_root: Path | None, cache: Path) -> ClipSet:
    """The data set `name`; one that can be generated is made in `cache` where it is not there yet.

    Raises:
        UsageError: an option that it does not know, and as the data set's file.
        UnknownName, DataMissing: as the data set's file; or it has no test clip.
    """
    clips = open_named(name, options, data_root=data_root, cache=cache)
    if not clips.test:
        raise DataMissing(f"'{clips.name}' has no test clip", fix="name some in its list")
    return clips


def limited(clips: ClipSet, limit: int) -> ClipSet:
    """`clips` with `limit` test clips at most: the first of every class, then the second of every class, and so on."""
    ranks: Counter[int] = Counter()
    keyed: list[tuple[int, int, ClipRecord]] = []
    for record in clips.test:
        keyed.append((ranks[record.label], record.label, record))
        ranks[record.label] += 1
    chosen = sorted(keyed, key=lambda item: item[:2])[:limit]
    return replace(clips, test=tuple(record for _, _, record in sorted(chosen, key=lambda item: (item[1], item[0]))))


def embed(models: Sequence[LoadedModel], clips: ClipSet, *, frames: int, resolution: int, stride: int | None = None) -> Embedded:
    """The embedding of every readable test clip by every model, each clip decoded once; all models are given the same frames.

    Args:
        models: built for clips of `frames` frames of `resolution` x `resolution` pixels.
        clips: of the data set.
        frames: T.
        resolution: R.
        stride: as `benchctl.visualize.clip.read`.

    Raises:
        DataMissing: no clip can be read.
        UsageError: a model's logits do not come from a linear layer.
    """
    rows: list[list[Tensor]] = [[] for _ in models]
    labels: list[int] = []
    unreadable: dict[str, str] = {}
    for record in clips.test:
        try:
            shown = clip.read(str(record.path), frames=frames, resolution=resolution, stride=stride).frames
        except ClipUnreadable as problem:
            unreadable[record.id] = problem.what
            continue
        for row, model in zip(rows, models):
            row.append(embedding(model, shown))
        labels.append(record.label)
    if not labels:
        first, reason = next(iter(unreadable.items()))
        raise DataMissing(f"none of {len(unreadable)} clips can be decoded (first: {first}: {reason})", fix="check the videos")
    return Embedded(tuple(torch.stack(row).double().numpy() for row in rows), np.array(labels, np.int64), unreadable)


def embedding(loaded: LoadedModel, frames: Frames) -> Tensor:
    """What the last linear layer of the model is given for the clip, uint8 RGB (T, R, R, 3): (D,), float32.

    Where that layer judges several tokens, the mean over them.

    Raises:
        UsageError: the logits do not come from a linear layer.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((given[0], output))

    hooks = [module.register_forward_hook(keep) for module in loaded.model.modules() if isinstance(module, nn.Linear)]
    try:
        with torch.inference_mode():
            logits: Tensor = loaded.model(loaded.prepare(frames))
    finally:
        for hook in hooks:
            hook.remove()
    last = next((given for given, output in reversed(seen) if output.shape[-1] == logits.shape[-1]), None)
    if last is None:
        raise UsageError(f"the logits of '{loaded.preset}' come from no linear layer", where="--method", fix="name another method")
    return last.flatten(0, -2).float().mean(0)


def neighbour_accuracy(embeddings: Floats, labels: Labels, neighbours: int = NEIGHBOURS) -> float:
    """Share of clips with the class of most of their `neighbours` nearest other clips, by Euclidean distance: (clips, D), (clips,).

    Of classes that are equally frequent among them, the one of the nearest neighbour counts.
    """
    squares = (embeddings**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * embeddings @ embeddings.T
    np.fill_diagonal(distances, np.inf)
    nearest = labels[np.argsort(distances, axis=1, kind="stable")[:, :neighbours]]
    # most_common keeps the order of first appearance among equals: the nearest comes first
    voted = [Counter(row.tolist()).most_common(1)[0][0] for row in nearest]
    return float(np.mean(np.array(voted) == labels))


def project(embeddings: Floats, perplexity: float) -> Floats:
    """t-SNE of (clips, D) to (clips, 2), begun at the first two principal components; the same each time."""
    from sklearn.manifold import TSNE

    centred = embeddings - embeddings.mean(0)
    # distances do not depend on the unit, but the optimiser's first step does
    scale = float(np.abs(centred).max()) or 1.0
    points = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=_SEED).fit_transform(
        centred / scale
    )
    return np.asarray(points, np.float64)


def check(clips: int, perplexity: float, where: str = "--limit") -> None:
    """Refuse, before anything is computed, what `panels` could not show of `clips` clips.

    Raises:
        UsageError: they have no five neighbours each, or cannot have this perplexity.
    """
    if clips <= NEIGHBOURS:
        raise UsageError(f"{clips} clips have no {NEIGHBOURS} neighbours each", where=where, fix=f"use {NEIGHBOURS + 1} or more")
    if not 1 <= perplexity < clips:
        raise UsageError(
            f"{clips} clips cannot have that perplexity",
            where=f"--perplexity {perplexity:g}",
            fix=f"use 1 to {clips - 1}, and about a third of the clips at most",
        )


def panels(models: Iterable[LoadedModel], found: Embedded, perplexity: float) -> tuple[Panel, ...]:
    """One panel for each model, in order.

    Raises:
        UsageError: too few clips for the neighbours or for the perplexity.
    """
    check(len(found.labels), perplexity)
    return tuple(
        Panel(model.preset, model.said, project(each, perplexity), neighbour_accuracy(each, found.labels))
        for model, each in zip(models, found.embeddings)
    )
