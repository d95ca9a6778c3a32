"""Side4Video: a spatial-temporal side network beside a frozen CLIP (Yao et al. 2023, arXiv 2311.15769).

Reading. Blocks and tokenizer as `benchctl.layers.side_network` states; a T-Block after every block of the encoder; after the last,
batch normalisation, mean over all positions, one linear classifier. CLIP's own activation (QuickGELU) is kept. This gives, at
8 x 224 with the 174 classes of Something-Something, 21.11 M trainable parameters and 175.97 G MACs for B/16 with side width 320, and
102.1 M and about 870 G for L/14 with side width 512: the paper's figures. Side width 192 and 6 T-Blocks, after every second block of
B/16, are the baseline of MOSS-S: 4.53 M and 148.37 G.

The recipe is the authors' for Something-Something V2: 30 epochs of which 4 warm up, 40 on V1; L/14 trains with a tenth of the rate.
Their steps are of 16 videos for each GPU, each of them twice; with 8 GPUs, which their configuration does not say, the rate is for
256 clips. On Kinetics-400 clips come once and without RandAugment. They flip Something-Something too, with exchanged labels: here
clips are flipped where that changes no label. Left out: grey clips (one in five, on Kinetics-400). On Diving48 it is MOSS's, whose
authors trained it there.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.side_network import SideConfig, SideTuned
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Config(SideConfig):
    """Sizes of one Side4Video."""


PRESETS: dict[str, dict[str, Any]] = {
    "side4video-b": {},
    "side4video-l": {"encoder": "clip-l14", "side_width": 512, "side_layers": 24, "side_heads": 8},
    "side4video-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3, "side_width": 96, "side_layers": 2, "side_heads": 3},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.15,
    warmup_fraction=4 / 30,
    label_smoothing=0.1,
    sampling="segment",
    flip="if-safe",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    repeated_augmentation=2,
    eval_clips=2,
    eval_crops=3,
    epochs=30,
    batch_size=256,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv1": {"warmup_fraction": 4 / 40, "epochs": 40},
    "kinetics400": {"rand_augment": None, "repeated_augmentation": 1, "eval_clips": 4},
    "diving48": {"rand_augment": None, "repeated_augmentation": 1, "batch_size": 128},
    "side4video-l": {"learning_rate": 1e-4},
}


def build(spec: ModelSpec) -> VideoClassifier[SideTuned]:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    return VideoClassifier(spec, SideTuned(config, spec), config.side_width, rest="side network")
