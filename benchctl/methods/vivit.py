"""ViViT: joint space-time attention over tubelets and a class token (Arnab et al. 2021, arXiv 2103.15691), as `transformers` has it.

Reading. Of the paper's four models this is the first, which is the one of the published weights: every token attends to every other
in all layers. Base size, 32 x 224, tubelets of 2 x 16 x 16, 400 classes: 88.95 M parameters, 451.52 G MACs with attention, 270.44 G
without, which is what papers print.

Positions are learned, one per tubelet, in the order time, row, column. Published ones are resized trilinearly for other frame counts
and resolutions; that is our choice, since the authors only go from one image to many frames, and there copy. Published files have the
layers' names of before `transformers` 5.

The recipe is the authors' for Kinetics-400 with this model, from ImageNet-21k: 30 epochs of which 2.5 warm up, the learning rate
being for 64 clips a step. Their crops are of frames scaled by 0.9 to 1.33, ours by 1.14 to 1.43. Left out: what they do to colours
(in 8 of 10 clips, by how much is not in their configuration), and filters that start from those of an image model. For another data
set they print no recipe of this model.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, transformers_backend
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained, published
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)

#: (tubelets, rows, columns)
Grid = tuple[int, int, int]

_POSITIONS = "vivit.embeddings.position_embeddings"
#: parts of the names in published files, and what they are called now
_RENAMED = (
    ("vivit.encoder.layer.", "vivit.layers."),
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


class ViViT(nn.Module):
    """The library's model, fed clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from transformers import VivitConfig, VivitForVideoClassification

        config = spec.config
        assert isinstance(config, Config)
        self.input = ClipInput(spec)
        self.grid = config.grid(spec.shape.frames, spec.padded_resolution)
        self.published_grid = config.grid(config.weights_frames, config.padded(config.weights_resolution))
        self.video = VivitForVideoClassification(
            VivitConfig(
                image_size=spec.padded_resolution,
                num_frames=spec.shape.frames,
                tubelet_size=(config.tubelet_size, config.patch_size, config.patch_size),
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp_width,
                num_labels=spec.num_classes,
                attn_implementation=transformers_backend(config.attention(spec.attention)),
            )
        )
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW)).logits
        return logits

    def load(self, hub_id: str) -> None:
        """Load published weights; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self.video, hub_id, convert=self._convert, head="classifier")

    def _convert(self, state: State) -> State:
        converted = {_renamed(name): tensor for name, tensor in state.items()}
        if _POSITIONS in converted:
            converted[_POSITIONS] = resize_positions(converted[_POSITIONS], self.published_grid, self.grid)
        return converted


def resize_positions(positions_1PC: Tensor, published: Grid, wanted: Grid) -> Tensor:
    """(1, 1 + tubelets * rows * columns, C) of one grid, class token first, to another grid, trilinearly.

    Raises:
        RuntimeError: they are not those of the grid `published`.
    """
    if published == wanted:
        return positions_1PC
    token, tubelets = positions_1PC[:, :1], positions_1PC[:, 1:]
    volume = tubelets.transpose(1, 2).unflatten(2, published)
    resized = F.interpolate(volume, size=wanted, mode="trilinear").flatten(2).transpose(1, 2)
    return torch.cat([token, resized], dim=1)


def _renamed(name: str) -> str:
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


class Config(MethodConfig):
    """Sizes of one ViViT."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    tubelet_size: PositiveInt = 2
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    #: the clip that the position embeddings of `weights` are for
    weights_frames: PositiveInt = 32
    weights_resolution: PositiveInt = 224

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    def grid(self, frames: int, resolution: int) -> Grid:
        """Tubelets, rows and columns of such a clip."""
        return frames // self.tubelet_size, resolution // self.patch_size, resolution // self.patch_size


PRESETS: dict[str, dict[str, Any]] = {
    "vivit-b": {"weights": "google/vivit-b-16x2-kinetics400"},
    "vivit-tiny": {"width": 96, "layers": 4, "heads": 3, "mlp_width": 384},
}

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    momentum=0.9,
    warmup_fraction=2.5 / 30,
    clip_gradient_norm=1.0,
    sampling="dense",
    frame_stride=2,
    flip="if-safe",
    eval_clips=4,
    eval_crops=3,
    epochs=30,
    batch_size=64,
)


def build(spec: ModelSpec) -> ViViT:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = ViViT(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
