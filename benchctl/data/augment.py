"""Augmentation as a recipe asks for it: of single clips, drawn once and the same for all their frames, and of whole batches.

A clip goes through RandAugment (Cubuk et al. 2019, timm's operations and words) and a change of colours before it is normalised, and
through random erasing (Zhong et al. 2020) after it. Batches go through mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019), by chance
where both are asked for, with one draw for the batch and each clip paired with the one as far from the end, as timm's `Mixup` does.

What is drawn for a clip comes from its generator, and for a batch from (seed, step): nothing depends on which process decodes it.
Optical flow that comes with a clip is neither recoloured nor erased.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.data.pyav_file import Frames
from benchctl.errors import UsageError
from benchctl.recipe import Recipe
from benchctl.spec import Modality

if TYPE_CHECKING:
    import torch

#: smallest and largest share of the picture that is erased, width over height of the box, and how often one that does not fit is drawn anew
_ERASED_SHARE, _ERASED_ASPECTS, _ATTEMPTS = (0.02, 1 / 3), (0.3, 1 / 0.3), 10
#: timm's operations after which a pixel is somewhere else
_GEOMETRIC = ("Rotate", "Shear", "Translate")
#: how far timm moves a picture at most, as a share of its side
_TRANSLATE_SHARE = 0.45
#: how grey a colour is (ITU-R BT.601)
_GREY = (0.299, 0.587, 0.114)
#: apart from what else is drawn from (seed, step)
_MIXING_KEY = (1,)
_ONE_AT_A_TIME = threading.Lock()

Box = tuple[int, int, int, int]


# ---- one clip ----


@dataclass(frozen=True)
class ClipAugmentation:
    """What a recipe does to a clip after it is cropped."""

    recipe: Recipe
    #: mean of RGB values between 0 and 1, with which places that move into the picture are filled
    mean: tuple[float, float, float]

    def recoloured(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """uint8 RGB (T, R, R, 3) through RandAugment, then through the change of colours."""
        if self.recipe.rand_augment is not None:
            frames = rand_augmented(frames, self.recipe.rand_augment, self.mean, int(rng.integers(2**32)))
        if self.recipe.color_jitter > 0:
            strength = self.recipe.color_jitter
            factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3)
            frames = jittered(frames, factors.tolist(), rng.permutation(3).tolist())
        return frames

    def erased(self, clip_TCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """A box of the normalised clip filled with normal noise, in place, with the recipe's probability."""
        if self.recipe.random_erasing > 0 and rng.random() < self.recipe.random_erasing:
            box = drawn_box((clip_TCHW.shape[2], clip_TCHW.shape[3]), rng)
            if box is not None:
                erase(clip_TCHW, box, rng)
        return clip_TCHW


def rand_augmented(frames: Frames, words: str, mean: tuple[float, float, float], seed: int) -> Frames:
    """Every frame, uint8 (H, W, 3), through the same operations with the same magnitudes."""
    from PIL import Image

    transform = _rand_augment(words, frames.shape[2], tuple(min(255, round(255 * value)) for value in mean))
    changed = []
    for frame in frames:
        with _drawing(seed):
            changed.append(np.asarray(transform(Image.fromarray(frame))))
    return np.stack(changed)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """For timm, which draws from Python's and numpy's own generators: they start at `seed`, and are put back afterwards."""
    with _ONE_AT_A_TIME:
        of_python, of_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@lru_cache(maxsize=8)
def _rand_augment(words: str, side: int, fill: tuple[int, ...]) -> Any:
    """The transform that timm makes of `words`.

    Raises:
        UsageError: timm does not understand `words`.
    """
    from timm.data.auto_augment import rand_augment_transform

    try:
        return rand_augment_transform(words, {"translate_const": int(side * _TRANSLATE_SHARE), "img_mean": fill})
    except (AssertionError, ValueError, KeyError) as error:
        what = f"rand_augment: timm does not understand '{words}' ({str(error).strip() or type(error).__name__})"
        raise UsageError(what, fix="write it as 'rand-m7-n4-mstd0.5-inc1'") from None


def geometric_operations(words: str) -> tuple[str, ...]:
    """Operations of a RandAugment by which pixels change places; raises UsageError where timm does not understand `words`."""
    return tuple(sorted(op.name for op in _rand_augment(words, 224, (128, 128, 128)).ops if op.name.startswith(_GEOMETRIC)))


def jittered(frames: Frames, factors: list[float], order: list[int]) -> Frames:
    """uint8 RGB (T, H, W, 3) with brightness, contrast and saturation multiplied by `factors`, in `order` (0, 1, 2 in any).

    Contrast is around the mean grey of the whole clip, so that all frames are changed alike; saturation around each pixel's grey.
    """
    pixels: npt.NDArray[np.float32] = frames.astype(np.float32)
    grey = np.array(_GREY, np.float32)
    for change in order:
        if change == 0:
            pixels = pixels * np.float32(factors[0])
        else:
            centre: npt.NDArray[np.float32] = (pixels @ grey)[..., None]
            if change == 1:
                centre = np.asarray(centre.mean(dtype=np.float64), np.float32)
            pixels = (pixels - centre) * np.float32(factors[change]) + centre
        pixels = pixels.clip(0, 255)
    return np.rint(pixels).astype(np.uint8)


def drawn_box(size: tuple[int, int], rng: np.random.Generator) -> Box | None:
    """Top, left, height and width of a box to erase in a picture of `size` (height, width); None where ten draws do not fit."""
    height, width = size
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*_ERASED_SHARE)
        ratio = np.exp(rng.uniform(*np.log(_ERASED_ASPECTS)))
        rows, columns = round(float(np.sqrt(area / ratio))), round(float(np.sqrt(area * ratio)))
        if 0 < rows < height and 0 < columns < width:
            return int(rng.integers(height - rows, endpoint=True)), int(rng.integers(width - columns, endpoint=True)), rows, columns
    return None


def erase(clip_TCHW: torch.Tensor, box: Box, rng: np.random.Generator) -> None:
    """Fill `box` of all frames with normal noise, another value for each pixel, channel and frame, in place."""
    import torch

    top, left, rows, columns = box
    noise = rng.standard_normal((*clip_TCHW.shape[:2], rows, columns), dtype=np.float32)
    clip_TCHW[:, :, top : top + rows, left : left + columns] = torch.from_numpy(noise)


# ---- a batch ----


@dataclass(frozen=True)
class Mixing:
    """How a recipe mixes the clips of a batch."""

    mixup: float
    cutmix: float
    classes: int
    seed: int

    def __call__(self, clips: torch.Tensor, labels: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips (B, T, C, H, W), mixed in place, and int64 labels (B,) to float32 shares of the classes (B, K), for batch `step`."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step], spawn_key=_MIXING_KEY))
        cuts = self.cutmix > 0 and (self.mixup == 0 or bool(rng.random() < 0.5))
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        if cuts:
            share = cut_in(clips, cut_box((clips.shape[3], clips.shape[4]), share, rng))
        else:
            mix_in(clips, share)
        return clips, mixed_labels(labels, self.classes, share)


def mix_in(clips: torch.Tensor, share: float) -> None:
    """Each clip becomes `share` of itself and 1 - `share` of its partner, in place. The partner of clip i of B is B - 1 - i."""
    partners = clips.flip(0)
    clips.mul_(share).add_(partners.mul_(1 - share))


def cut_box(size: tuple[int, int], share: float, rng: np.random.Generator) -> Box:
    """Top, left, height and width of a box with 1 - `share` of the area (height, width), less what is outside the picture."""
    height, width = size
    side = float(np.sqrt(1 - share))
    rows, columns = int(height * side), int(width * side)
    middle_y, middle_x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(0, middle_y - rows // 2), max(0, middle_x - columns // 2)
    return top, left, min(height, middle_y + (rows + 1) // 2) - top, min(width, middle_x + (columns + 1) // 2) - left


def cut_in(clips: torch.Tensor, box: Box) -> float:
    """The box of each clip, in all frames, becomes that of its partner, in place; the share that is left of the clip itself."""
    top, left, rows, columns = box
    clips[..., top : top + rows, left : left + columns] = clips.flip(0)[..., top : top + rows, left : left + columns]
    return 1 - rows * columns / (clips.shape[-2] * clips.shape[-1])


def mixed_labels(labels: torch.Tensor, classes: int, share: float) -> torch.Tensor:
    """int64 (B,) to float32 (B, classes): `share` for a clip's own class, and 1 - `share` for its partner's."""
    import torch

    own = torch.nn.functional.one_hot(labels, classes).float()
    return own * share + own.flip(0) * (1 - share)


# ---- what does not go together ----


def check_augmentation(
    recipe: Recipe, *, batch_size: int, pixels: bool, modality: Modality, flow: bool, tracks: bool, classes: bool
) -> None:
    """Raise UsageError where clips of that kind would be augmented wrongly.

    Args:
        recipe: what it asks for.
        batch_size: clips of a batch.
        pixels: whether pixels are read.
        modality: what the videos hold.
        flow: whether optical flow comes with a clip.
        tracks: whether point tracks come with a clip.
        classes: whether clips have classes; else numbers.
    """
    if (misfit := recipe.misfit(batch_size)) is not None:
        raise UsageError(misfit[0], fix=misfit[1])
    if recipe.mixup or recipe.cutmix:
        _check_mixing(recipe, flow=flow, tracks=tracks, classes=classes)
    if not pixels:
        return
    if modality == "depth" and (recipe.rand_augment or recipe.color_jitter):
        fix = "leave 'rand_augment' and 'color_jitter' out of the recipe"
        raise UsageError("depth is no colour: RandAugment and changes of colour are for RGB", fix=fix)
    moving = geometric_operations(recipe.rand_augment) if recipe.rand_augment else ()
    if moving and (flow or tracks):
        what = f"rand_augment moves pixels ({', '.join(moving)}), and the {'flow' if flow else 'tracks'} of a clip would stay"
        raise UsageError(what, fix="end its words in '-t3a', which has changes of colour only, or leave it out")


def _check_mixing(recipe: Recipe, *, flow: bool, tracks: bool, classes: bool) -> None:
    named = " and ".join(f"'{name}'" for name in ("mixup", "cutmix") if getattr(recipe, name))
    if not classes:
        raise UsageError(f"{named} mixes classes, and clips of this data set have numbers", fix="leave it out of the recipe")
    if tracks:
        raise UsageError(f"{named} cannot mix the point tracks that come with a clip", fix="leave it out of the recipe")
    if flow and recipe.mixup:
        raise UsageError("'mixup' would add up the optical flow of two clips", fix="use 'cutmix', which exchanges it, or neither")
