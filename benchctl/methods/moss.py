"""MOSS: multi-order space-time self-similarity inside efficient video transformers.

Source: "Exploring High-Order Self-Similarity for Video Understanding"; tables and equations below are its own.

Reading. The module is `benchctl.layers.multi_order_similarity`; its sizes are what every cost in Tables 3, 4, 6 and 10 agrees with to
0.2 %: similarities are taken of the encoder's own C-wide patches, the U x V similarities with a frame become D = 64 channels (96
beside L/14), three 3 x 3 convolutions follow, L x D channels become C, and each order has an FC of its own to the side network. FC(F)
of equation 5 is the side network's own feed, which is averaged with the side tokens as in Side4Video. At 8 x 224 with 174 classes:

    moss-s 151.4 G, 5.55 M   moss-b 179.3 G, 22.33 M   moss-m 706.0 G, 24.10 M   moss-l 832.1 G, 82.14 M

The paper's counts leave the similarities' own products out; ours hold them, as executed, and leave them out under the kind
`without_correlation`. Only orders that are chosen have an FC: the paper's parameters for higher orders alone (Table 4a) hold those of
the orders below too.

Hosts (Table 10d): `side4video`; `finetune` and `aim`, where the module's output is added to the patches after a block, all orders
share one FC, as their published costs say, and it starts at zero. `alternative` puts one of the other temporal modules in the place of
the second order (with order 1) or of the whole module (without orders).

The recipe is Table 7's for S and B: 30 epochs of which 4 warm up, 1e-3 for 128 clips; M and L train with 2e-4 for 96, and for 80 on
Diving48 and FineGym. Readings: the table's columns are shifted, and its 40 epochs are taken as those of Something-Something V1,
where Side4Video's code, on which it is built, has them too; with repeated augmentation its 128 and 96 are videos, as in that code,
so clips are twice as many; "uniform" sampling is that code's, one frame of each segment; it flips Something-Something with
exchanged labels, and here clips are flipped where that changes no label. Views are those of Tables 1 and 2; for Diving48 none are
printed, and they are Something-Something's. Left out: grey clips (one in five, on Kinetics-400).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from benchctl.errors import ShapeError
from benchctl.layers.motion_modules import Alternative, AlternativeShape, alternative
from benchctl.layers.multi_order_similarity import Fusion, MossShape, MultiOrderSelfSimilarity
from benchctl.layers.side_network import SideConfig, SideTuned
from benchctl.layers.stss import Window, check_window
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import Aim, FineTuned
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# B batch, T frames, N patches of a frame, H x W grid, C encoder width, K width given to the host

Host = Literal["side4video", "finetune", "aim"]
Order = Annotated[int, Field(ge=1, le=4, strict=True)]
Side = Annotated[int, Field(gt=0, strict=True)]


class Motion(nn.Module):
    """What a host is given at one position: the chosen orders of self-similarity, an alternative, or both."""

    def __init__(self, spec: ModelSpec, *, out_width: int, residual: bool) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        self.grid = spec.padded_resolution // config.patch_size
        windows = config.windows
        sizes = MossShape(
            width=config.encoder_width,
            out_width=out_width,
            orders=config.orders,
            windows=windows,
            channels=config.channels,
            conv_blocks=config.conv_blocks,
            fusion=config.fusion,
            one_projection=residual,
        )
        self.moss = MultiOrderSelfSimilarity(sizes) if windows else None
        other = AlternativeShape(
            width=config.encoder_width,
            out_width=out_width,
            inner=config.alternative_width,
            window=config.window_of(1),
            channels=config.channels,
            conv_blocks=config.conv_blocks,
        )
        self.other = alternative(config.alternative, other, config.attention(spec.attention))
        if residual and self.moss:
            # the host starts as its encoder
            for projection in self.moss.projections:
                assert isinstance(projection, nn.Linear)
                nn.init.zeros_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(self, patches_BTNC: Tensor) -> Tensor:
        """(B, T, N, C) to (B, T, N, K)."""
        features = patches_BTNC.unflatten(2, (self.grid, self.grid))
        given, first_motion = self.moss(features) if self.moss else (None, None)
        if self.other is not None:
            # beside the first order, it stands where the second would: it reads what that would read
            beside = self.other(features if first_motion is None else first_motion)
            given = beside if given is None else given + beside
        assert given is not None
        result: Tensor = given.flatten(2, 3)
        return result


class Moss(VideoClassifier[SideTuned | FineTuned | Aim]):
    """A host with motion at its positions, and a classifier."""

    def __init__(self, spec: ModelSpec) -> None:
        config = spec.config
        assert isinstance(config, Config)
        residual = config.host != "side4video"
        width = config.encoder_width if residual else config.side_width
        super().__init__(spec, _host(config, spec), width, rest="all else")
        positions = config.positions if config.orders or config.alternative != "none" else ()
        # by encoder layer, counted from 1
        self.motion = nn.ModuleDict({str(k): Motion(spec, out_width=width, residual=residual) for k in positions})

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        beside = {int(layer): module for layer, module in self.motion.items()}
        return self.classify(self.video(self.input(clip_BTCHW), beside))


def _host(config: Config, spec: ModelSpec) -> SideTuned | FineTuned | Aim:
    """The host, as its own method has it by default."""
    if config.host == "side4video":
        return SideTuned(config, spec)
    if config.host == "finetune":
        return FineTuned(config, spec, temporal_conv=True)
    return Aim(config, spec, bottleneck=config.encoder_width // 4, scale=0.5, adapt_time_twice=True)


def _as_windows(value: Any) -> Any:
    """One window may be written without the list around it."""
    return [value] if isinstance(value, list | tuple) and value and isinstance(value[0], int) else value


class Config(SideConfig):
    """Sizes and choices of one MOSS."""

    host: Host = "side4video"
    #: orders of self-similarity that reach the host; none: the baseline
    orders: tuple[Order, ...] = (1, 2)
    #: (L, U, V), odd: one for all orders, or one for each up to the highest
    window: Annotated[tuple[tuple[Side, Side, Side], ...], BeforeValidator(_as_windows), Field(min_length=1)] = ((5, 9, 9),)
    #: whether the window may be larger than the grid: what lies outside is zero
    pad_window: bool = True
    #: D
    channels: PositiveInt = 64
    #: convolutions in each order's encoder
    conv_blocks: PositiveInt = 3
    #: k: layers of the encoder after which the module stands, counted from 1
    positions: tuple[PositiveInt, ...] = Field((4,), min_length=1)
    #: what of the visual features joins the first order before the second is taken (Table 4c)
    fusion: Fusion = "none"
    #: another temporal module (Tables 4d and 10c)
    alternative: Alternative = "none"
    #: its inner channels, where it has them
    alternative_width: PositiveInt = 256
    # of MOSS-S; for the host `side4video`
    side_width: PositiveInt = 192
    side_layers: PositiveInt = 6
    side_heads: PositiveInt = 3

    @property
    def windows(self) -> tuple[Window, ...]:
        """The window of each order that is computed."""
        return tuple(self.window_of(order) for order in range(1, max(self.orders, default=0) + 1))

    def window_of(self, order: int) -> Window:
        """The window of one order."""
        return self.window[min(order, len(self.window)) - 1]

    @field_validator("orders", "positions")
    @classmethod
    def _rising(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"{info.field_name} {', '.join(map(str, value))} must rise and name each once")
        return value

    @model_validator(mode="after")
    def _windows_fit_orders(self) -> Self:
        highest = max(self.orders, default=0)
        if len(self.window) not in (1, highest):
            raise ValueError(
                f"window has {len(self.window)} entries, and the highest of the orders is {highest}: give one window, or one for each"
            )
        for window in self.window:
            try:
                check_window(window)
            except ShapeError as error:
                raise ValueError(f"window: {error.what}; {error.fix}") from None
        return self

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if self.alternative != "none" and self.orders not in ((), (1,)):
            raise ValueError("alternative stands in the place of the second order or of the whole module: orders must be [1] or []")
        if self.fusion != "none" and max(self.orders, default=0) < 2:
            raise ValueError(f"fusion '{self.fusion}' is about the second order, and orders do not reach it")
        return self

    @model_validator(mode="after")
    def _positions_exist(self) -> Self:
        if max(self.positions) > self.encoder_layers:
            raise ValueError(f"positions {max(self.positions)} is beyond the {self.encoder_layers} layers of the encoder")
        unfed = [k for k in self.positions if k % self.every]
        if self.host == "side4video" and unfed:
            raise ValueError(f"positions {unfed[0]} feeds no side block: they are fed after every {self.every} encoder layers")
        return self

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """As for every method; and without `pad_window`, the window must fit into the clip and the grid."""
        super().check(shape, pad=pad)
        if self.pad_window:
            return
        grid = self.padded(shape.resolution) // self.patch_size
        for window in self.windows or (self.window_of(1),):
            for name, side, there in zip(("L", "U", "V"), window, (shape.frames, grid, grid), strict=True):
                if side > there:
                    raise ShapeError(
                        f"window side {name} is {side} and there are only {there} to look at",
                        fix="make 'window' smaller, or set 'pad_window: true': what lies outside is then zero",
                    )


PRESETS: dict[str, dict[str, Any]] = {
    "moss-s": {},
    "moss-b": {"side_width": 320, "side_layers": 12, "side_heads": 5},
    "moss-m": {"encoder": "clip-l14", "positions": [8], "channels": 96, "side_width": 320, "side_layers": 12, "side_heads": 5},
    "moss-l": {"encoder": "clip-l14", "positions": [8], "channels": 96, "side_width": 448, "side_layers": 24, "side_heads": 7},
    "moss-tiny": {
        "patch_size": 8,
        "encoder_width": 96,
        "encoder_layers": 4,
        "encoder_heads": 3,
        "window": [5, 7, 7],
        "channels": 32,
        "positions": [2],
        "side_width": 96,
        "side_layers": 2,
        "side_heads": 3,
    },
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
    "kinetics400": {"sampling": "dense", "frame_stride": 8, "rand_augment": None, "eval_clips": 4},
    "diving48": {"rand_augment": None, "repeated_augmentation": 1, "batch_size": 128},
    "finegym": {"rand_augment": None, "repeated_augmentation": 1, "batch_size": 128},
    "moss-m": {"learning_rate": 2e-4, "batch_size": 192},
    "moss-l": {"learning_rate": 2e-4, "batch_size": 192},
    "moss-m/diving48": {"batch_size": 80},
    "moss-l/diving48": {"batch_size": 80},
    "moss-m/finegym": {"batch_size": 80},
    "moss-l/finegym": {"batch_size": 80},
}


def build(spec: ModelSpec) -> Moss:
    """The model for `spec`: clips (B, T, 3, H, W), normalised for its encoder, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    return Moss(spec)
