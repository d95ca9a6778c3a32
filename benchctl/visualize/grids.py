"""Which axes of a tensor are frames, rows and columns of a clip: by its shape, and by a change of the clip where shape is not enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchctl.spec import MethodConfig

# B is 1; t frames of the grid, h rows and w columns of it (h = w: clips are square), N = h w, P prefix tokens, C channels

Layout = Literal["BCthw", "BthwC", "BtChw", "tChw", "thwC", "BtNC", "tNC", "B(tN)C", "B(Nt)C", "B(t(P+N))C", "NtC"]

#: class and register tokens before the patches
_MOST_PREFIX_TOKENS = 8
#: pixels a side of the smallest cell
_SMALLEST_CELL = 4


@dataclass(frozen=True)
class FeatureGrid:
    """How a tensor holds a grid of t x h x h positions."""

    layout: Layout
    frames: int
    side: int
    prefix: int = 0

    def arrange(self, x: Tensor) -> Tensor:
        """The grid alone: (t, h, w, C)."""
        t, h = self.frames, self.side
        match self.layout:
            case "BCthw":
                return x[0].permute(1, 2, 3, 0)
            case "BthwC":
                return x[0]
            case "BtChw":
                return x[0].permute(0, 2, 3, 1)
            case "tChw":
                return x.permute(0, 2, 3, 1)
            case "thwC":
                return x
            case "BtNC":
                return x[0, :, self.prefix :].reshape(t, h, h, -1)
            case "tNC":
                return x[:, self.prefix :].reshape(t, h, h, -1)
            case "B(tN)C":
                return x[0, self.prefix :].reshape(t, h, h, -1)
            case "B(Nt)C":
                return x[0, self.prefix :].reshape(h, h, t, -1).permute(2, 0, 1, 3)
            case "B(t(P+N))C":
                return x[0].reshape(t, self.prefix + h * h, -1)[:, self.prefix :].reshape(t, h, h, -1)
            case "NtC":
                return x.reshape(h, h, t, -1).permute(2, 0, 1, 3)


def candidates(shape: Sequence[int], config: MethodConfig, frames: int, resolution: int) -> list[FeatureGrid]:
    """Every way in which a tensor of `shape` can hold a grid of a clip of `frames` x `resolution` x `resolution`; none: it holds none.

    A grid has as many frames as the clip, as its pairs of neighbours, or fewer by strides of 2. Tokens in a row are a grid only of the
    method's own patches; what has rows and columns of its own may be any, of 2 x 2 cells or more and of whole pixels. Grids of the
    method's patches, and then of its tubelets or pairs, come before all others. Several that are left differ in their order, or in where
    their prefix tokens are.
    """
    patches, tubelets = resolution // config.patch_size, frames // config.tubelet_size
    times = {-(-frames // 2**k) for k in range(frames.bit_length())} | {max(1, frames - 1)}
    sides = [side for side in range(2, resolution // _SMALLEST_CELL + 1) if resolution % side == 0]
    found = [grid for t in times for h in sides for grid in _maps(tuple(shape), t, h)]
    if patches > 1:
        found += [grid for t in times for grid in _tokens(tuple(shape), t, patches)]

    def rank(grid: FeatureGrid) -> tuple[bool, bool, int, int]:
        return grid.side != patches, grid.frames not in (tubelets, frames - 1), -grid.frames, -grid.side

    best = min(map(rank, found), default=None)
    return [grid for grid in found if rank(grid) == best]


def _maps(shape: tuple[int, ...], t: int, h: int) -> list[FeatureGrid]:
    """The layouts with axes for rows and columns in which `shape` is t x h x h positions."""
    axes: dict[Layout, tuple[int, ...]] = {}
    if len(shape) == 5 and shape[0] == 1:
        axes = {"BCthw": shape[2:], "BthwC": shape[1:4], "BtChw": (shape[1], *shape[3:])}
    elif len(shape) == 4:
        axes = {"tChw": (shape[0], *shape[2:]), "thwC": shape[:3]}
    return [FeatureGrid(layout, t, h) for layout, sizes in axes.items() if sizes == (t, h, h)]


def _tokens(shape: tuple[int, ...], t: int, h: int) -> list[FeatureGrid]:
    """The layouts with one axis for all positions of a frame, or of the clip, in which `shape` is t x h x h positions."""
    n = h * h
    found: list[FeatureGrid] = []

    def add(layout: Layout, prefix: int) -> None:
        if 0 <= prefix <= _MOST_PREFIX_TOKENS:
            found.append(FeatureGrid(layout, t, h, prefix))

    if len(shape) == 4 and shape[:2] == (1, t):
        add("BtNC", shape[2] - n)
    if len(shape) != 3:
        return found
    if shape[0] == t:
        add("tNC", shape[1] - n)
    if shape[:2] == (n, t):
        add("NtC", 0)
    if shape[0] == 1 and t > 1:
        add("B(tN)C", shape[1] - t * n)
        add("B(Nt)C", shape[1] - t * n)
        if shape[1] % t == 0 and shape[1] > t * n:
            add("B(t(P+N))C", shape[1] // t - n)
    return found


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module gives, or the first of several."""
    parts: Sequence[object] = ()
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, list | tuple):
        parts = output
    return next((part for part in parts if isinstance(part, Tensor)), None)


def locate(model: nn.Module, clip_BTCHW: Tensor, module: str, grids: Sequence[FeatureGrid]) -> FeatureGrid:
    """The one of `grids` in which the output of `module` is arranged.

    Where several fit the shape, the first cell of the clip's last frames is changed: the right one is that in which the same cell
    changes most, compared with the mean.
    """
    if len(grids) == 1:
        return grids[0]
    before = _output(model, clip_BTCHW, module)

    def share(grid: FeatureGrid) -> float:
        changed = clip_BTCHW.clone()
        frames, cell = -(-clip_BTCHW.shape[1] // grid.frames), clip_BTCHW.shape[-1] // grid.side
        # away from zero, which a cell may be
        changed[:, -frames:, :, :cell, :cell] = 3 - changed[:, -frames:, :, :cell, :cell]
        moved_thw = grid.arrange(_output(model, changed, module) - before).norm(dim=-1)
        return float(moved_thw[-1, 0, 0] / moved_thw.mean().clamp_min(torch.finfo(moved_thw.dtype).tiny))

    return max(grids, key=share)


def _output(model: nn.Module, clip_BTCHW: Tensor, module: str) -> Tensor:
    """What `module` gives for the clip."""
    given: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, output: object) -> None:
        tensor = first_tensor(output)
        assert tensor is not None, "it gave one before"
        given[:] = [tensor]

    hook = model.get_submodule(module).register_forward_hook(keep)
    try:
        with torch.no_grad():
            model(clip_BTCHW)
    finally:
        hook.remove()
    return given[0]
