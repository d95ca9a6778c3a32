"""Feature maps: what convolutions of a method make of each frame of a clip.

Source: "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and Koniusz), Figures 26 and 27: one map of each of
six convolutions of a ResNet-50, with and without the TIME layer.

Reading. The paper does not say which channel of a layer it shows; here it is the one that differs most over the clip, by its standard
deviation. Where no layers are named, they are the first convolutions of each resolution, in the order in which the network runs them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchctl.data.decode import Frames
from benchctl.errors import UsageError
from benchctl.layers.time_layer import TimeLayer
from benchctl.visualize.model import LoadedModel
from benchctl.vocabulary import ClipShape

# T frames that the network works on, R pixels a side; U units, h x w positions of a map, C channels

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureMap:
    """One channel of one convolution."""

    #: the module's name, as `named_modules` calls it
    layer: str
    #: which of the channels, and how many there are
    channel: int
    channels: int
    #: (U, h, w): what the convolution gives, before any normalisation; U is T, or fewer where it joins frames
    cells: Floats

    def unit(self, frame: int, frames: int) -> int:
        """Which of the units shows `frame` of `frames`."""
        return frame * len(self.cells) // frames


@dataclass(frozen=True)
class Features:
    """What one model makes of a clip."""

    method: str
    #: where its weights come from, as the figure says it
    weights: str
    #: what the network is given: uint8 RGB (T, R, R, 3); behind a TIME layer, its grids of small frames
    given: Frames
    maps: tuple[FeatureMap, ...]


def clip_shape(loaded: LoadedModel) -> ClipShape:
    """Frames, and their size, to be read of a video for `loaded`.

    Raises:
        UsageError: it reads other things than pixels, or no convolution of it gives maps.
    """
    where = f"--method {loaded.preset}"
    if loaded.read is None or any(len(shape) != 4 for shape in loaded.config.input_shapes(loaded.read)):
        raise UsageError(f"'{loaded.preset}' reads point tracks, which a clip does not have", where=where, fix="name a method of pixels")
    if not any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in loaded.model.modules()):
        raise UsageError(f"'{loaded.preset}' has no convolution over frames", where=where, fix="name another, for example resnet50")
    return loaded.read


def given(loaded: LoadedModel, frames: Frames) -> Frames:
    """What the network is given of the frames that are read of a clip: (F, r, r, 3) to (T, R, R, 3), uint8."""
    layer = next((module for module in loaded.model.modules() if isinstance(module, TimeLayer)), None)
    if layer is None:
        return frames
    arranged: Frames = layer(torch.from_numpy(frames).permute(0, 3, 1, 2)[None])[0].permute(0, 2, 3, 1).numpy()
    return arranged


def features(loaded: LoadedModel, frames: Frames, layers: Sequence[str] = ()) -> Features:
    """Feature maps of the clip `frames`, uint8 RGB, of the shape that `clip_shape` says.

    Args:
        loaded: the method.
        frames: as they are read of the clip.
        layers: names of convolutions; none: the first one of each resolution.

    Raises:
        UsageError: there is no such convolution, or it gives no map of each frame.
    """
    shown = given(loaded, frames)
    found: dict[str, Tensor] = {}
    with _watched(loaded.model, len(shown), found), torch.inference_mode():
        loaded.model(loaded.prepare(frames))
    if layers:
        chosen = [_checked(name, loaded, found) for name in layers]
    else:
        sizes = {tuple(maps.shape[-2:]): name for name, maps in reversed(found.items())}
        chosen = [name for name in found if name in sizes.values()]
    if not chosen:
        fix = "name another, for example resnet50"
        raise UsageError("no convolution gives a map of each frame", where=f"--method {loaded.preset}", fix=fix)
    return Features(loaded.preset, loaded.said, shown, tuple(_most_varied(name, found[name]) for name in chosen))


@contextmanager
def _watched(model: nn.Module, frames: int, found: dict[str, Tensor]) -> Iterator[None]:
    """Within, what each convolution gives is put into `found`, as (U, C, h, w), in the order in which they first run."""

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def keep(_module: nn.Module, _given: object, output: Tensor) -> None:
            maps = _by_frame(output, frames)
            if maps is not None:
                found.setdefault(name, maps)

        return module.register_forward_hook(keep)

    hooks = [watch(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _by_frame(output: Tensor, frames: int) -> Tensor | None:
    """(U, C, h, w) of what a convolution gives for one clip; None: its positions are not those of frames."""
    if output.ndim == 5 and len(output) == 1:
        maps = output[0].transpose(0, 1)
    elif output.ndim == 4 and len(output) == frames:
        maps = output
    else:
        return None
    # convolutions over tokens or over windows have other axes there
    return maps if len(maps) <= frames and maps.shape[2] == maps.shape[3] > 1 else None


def _most_varied(layer: str, maps_UChw: Tensor) -> FeatureMap:
    spread_C = maps_UChw.double().std(dim=(0, 2, 3), correction=0)
    channel = int(spread_C.argmax())
    return FeatureMap(layer, channel, maps_UChw.shape[1], maps_UChw[:, channel].float().numpy())


def _checked(layer: str, loaded: LoadedModel, found: dict[str, Tensor]) -> str:
    if layer in found:
        return layer
    where, near = f"--layer {layer}", difflib.get_close_matches(layer, found, n=3, cutoff=0.3)
    fix = f"such are {', '.join(near or list(found)[:3])}"
    if layer in dict(loaded.model.named_modules()):
        raise UsageError("gives no map of each frame", where=where, fix=fix)
    raise UsageError(f"'{loaded.preset}' has no such convolution", where=where, fix=fix)
