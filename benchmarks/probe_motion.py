"""Can self-similarity tell left from right at all? A linear readout of it, without any training of the features.

Run with `python benchmarks/probe_motion.py`; it makes the data set of `suites/moss_motion.yaml` where it is not there yet. Every
description of a clip is an average over all its positions, so that nothing but what is averaged can carry the motion:

    features                 the frozen, random encoder of moss-tiny after layer 2
    change of features       frame to frame
    self-similarity of       those features, and 8 x 8 patches of pixels: L x U x V = 5 x 7 x 7 numbers

The readout is ridge regression on one-hot labels, fitted on the training clips, with the penalty that fits best among the training
clips' own halves. With random features a description without motion stays at chance, 12.5 % of eight classes and 50 % of two.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchctl import lookup, suite_file
from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import LoadSettings, test_batches
from benchctl.data.transforms import Normalisation
from benchctl.layers.stss import Window, stss
from benchctl.methods import moss
from benchctl.recipe import Recipe
from benchctl.spec import DatasetRef, ModelSpec
from benchctl.vocabulary import ClipShape

SUITE = Path(__file__).parents[1] / "suites" / "moss_motion.yaml"
CACHE = Path("results") / "data"
WINDOW: Window = (5, 7, 7)
SHAPE = ClipShape(frames=8, resolution=64, batch_size=32)
PENALTIES = (1.0, 10.0, 100.0, 1000.0)

Descriptions = dict[str, Tensor]


def data() -> ClipSet:
    """The clips of the suite."""
    (ref,) = suite_file.load(str(SUITE)).suite.dataset
    module = lookup.load("dataset", ref.name)
    options = module.Options.model_validate(ref.options)
    clips: ClipSet = module.load(module.prepare(DatasetRef(name=ref.name, options=ref.options), CACHE), options)
    return clips


@torch.no_grad()
def descriptions(clips: ClipSet, split: str) -> tuple[Descriptions, Tensor]:
    """Every description of every clip, (clips, numbers), and the labels."""
    config = moss.Config(**moss.PRESETS["moss-tiny"])
    torch.manual_seed(0)
    encoder = moss.build(ModelSpec(config, SHAPE, len(clips.classes), "sdpa")).eval().video.encoder
    shown = dataclasses.replace(clips, test=clips.train) if split == "train" else clips
    settings = LoadSettings(SHAPE, Recipe(sampling="segment"), Normalisation(moss.MEAN, moss.STD))
    found: dict[str, list[Tensor]] = defaultdict(list)
    labels = []
    for batch in test_batches(shown, settings):
        clip_BTCHW = batch.clips[:, 0]
        tokens = next(encoder.features(clip_BTCHW.flatten(0, 1), every=2))[:, encoder.prefix_tokens :]
        features = tokens.unflatten(0, clip_BTCHW.shape[:2]).unflatten(2, (encoder.grid, encoder.grid))
        patches = F.pixel_unshuffle(clip_BTCHW.flatten(0, 1), config.patch_size).permute(0, 2, 3, 1).unflatten(0, clip_BTCHW.shape[:2])
        patches = patches - patches.mean(dim=-1, keepdim=True)
        everywhere = (1, 2, 3)
        found["features"].append(features.mean(everywhere))
        found["change of features"].append((features[:, 1:] - features[:, :-1]).mean(everywhere))
        found["self-similarity of features"].append(stss(features, WINDOW).mean(everywhere).flatten(1))
        found["self-similarity of pixels"].append(stss(patches, WINDOW).mean(everywhere).flatten(1))
        labels.append(batch.labels)
    return {name: torch.cat(parts).double() for name, parts in found.items()}, torch.cat(labels)


def fitted(x: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Weights of a ridge regression on one-hot labels."""
    target = F.one_hot(labels, classes).double()
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ target)


def scores(train: Tensor, train_labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Scores of the test clips, (clips, classes)."""
    mean, spread = train.mean(0), train.std(0) + 1e-9
    x, x_test = (F.pad((part - mean) / spread, (0, 1), value=1.0) for part in (train, test))
    even = torch.arange(len(x)) % 2 == 0

    def held_out(penalty: float) -> float:
        return sum(
            float(((x[~half] @ fitted(x[half], train_labels[half], classes, penalty)).argmax(1) == train_labels[~half]).double().mean())
            for half in (even, ~even)
        )

    return x_test @ fitted(x, train_labels, classes, max(PENALTIES, key=held_out))


def main() -> None:
    """Print the table."""
    clips = data()
    classes = list(clips.classes)
    (train, train_labels), (test, labels) = descriptions(clips, "train"), descriptions(clips, "test")
    print(f"{len(train_labels)} training clips, {len(labels)} test clips, {len(classes)} classes: {', '.join(classes)}")
    for name in train:
        given = scores(train[name], train_labels, test[name], len(classes))
        pairs = [("left", "right"), ("up", "down"), ("clockwise", "counterclockwise"), ("grow", "shrink")]
        told = []
        for one, other in pairs:
            a, b = classes.index(one), classes.index(other)
            either = (labels == a) | (labels == b)
            told.append(f"{one}/{other} {float(((given[either, a] > given[either, b]) == (labels[either] == a)).double().mean()):.1%}")
        top1 = float((given.argmax(1) == labels).double().mean())
        print(f"{name:28} {train[name].shape[1]:4} numbers  top-1 {top1:6.1%}  {'  '.join(told)}")


if __name__ == "__main__":
    main()
