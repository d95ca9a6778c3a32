from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from benchctl.data import augment
from benchctl.data.augment import ClipAugmentation, Mixing, check_augmentation, cut_box, cut_in, erase, jittered, mix_in, mixed_labels
from benchctl.errors import UsageError
from benchctl.recipe import Recipe

MEAN = (0.485, 0.456, 0.406)


def textured(frames: int = 4, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def still(frames: int = 4, side: int = 40) -> np.ndarray:
    return np.repeat(textured(1, side), frames, axis=0)


# ---- one clip ----


def test_rand_augment_does_the_same_to_all_frames() -> None:
    changed = 0
    for seed in range(10):
        found = augment.rand_augmented(still(), "rand-m9-n3-mstd0.5-inc1", MEAN, seed)
        assert found.shape == (4, 40, 40, 3)
        assert all(np.array_equal(frame, found[0]) for frame in found)
        changed += not np.array_equal(found, still())
        # each frame is what timm makes of it by itself, from the same start
        own = [augment.rand_augmented(frame[None], "rand-m9-n3-mstd0.5-inc1", MEAN, seed)[0] for frame in textured()]
        assert np.array_equal(augment.rand_augmented(textured(), "rand-m9-n3-mstd0.5-inc1", MEAN, seed), np.stack(own))
    assert changed > 5  # each operation is applied half the time


def test_rand_augment_of_one_operation_is_that_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.data import auto_augment

    only = auto_augment.RandAugment(auto_augment.rand_augment_ops(prob=1.0, transforms=["Invert"]), num_layers=1)
    monkeypatch.setattr(augment, "_rand_augment", lambda *_: only)
    assert np.array_equal(augment.rand_augmented(textured(), "rand", MEAN, 0), 255 - textured())


def test_drawing_leaves_the_generators_of_others_as_they_were() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = [random.random(), np.random.rand()]
    random.seed(1)
    np.random.seed(1)
    augment.rand_augmented(textured(), "rand-m9-n3", MEAN, 7)
    assert [random.random(), np.random.rand()] == expected


@pytest.mark.parametrize("words", ["random", "rand-q3", "rand-mx9"])
def test_words_that_timm_does_not_understand_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="timm does not understand"):
        augment.geometric_operations(words)


def test_operations_that_move_pixels_are_known() -> None:
    assert augment.geometric_operations("rand-m7-n4") == ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
    assert augment.geometric_operations("rand-m7-n2-t3a") == ()


def test_colours_by_hand() -> None:
    clip = np.array([100, 200, 50], np.uint8).reshape(1, 1, 1, 3)
    grey = 0.299 * 100 + 0.587 * 200 + 0.114 * 50
    assert jittered(clip, [1.5, 1, 1], [0, 1, 2]).ravel().tolist() == [150, 255, 75]
    assert jittered(clip, [1, 1, 0.4], [0, 1, 2]).ravel().tolist() == [round(grey + 0.4 * (v - grey)) for v in (100, 200, 50)]
    # contrast is around the grey of the whole clip: two frames, 50 and 150
    two = np.stack([np.full((1, 1, 3), 50, np.uint8), np.full((1, 1, 3), 150, np.uint8)])
    assert jittered(two, [1, 0.5, 1], [2, 1, 0])[:, 0, 0, 0].tolist() == [75, 125]
    assert np.array_equal(jittered(textured(), [1, 1, 1], [2, 0, 1]), textured())


def test_a_box_is_erased_in_all_frames_alike() -> None:
    clip = torch.full((4, 3, 10, 12), 7.0)
    erase(clip, (2, 3, 4, 5), np.random.default_rng(0))
    inside = torch.zeros(10, 12, dtype=torch.bool)
    inside[2:6, 3:8] = True
    assert ((clip != 7) == inside).all()
    assert abs(clip[:, :, inside].mean()) < 0.2
    assert abs(clip[:, :, inside].std() - 1) < 0.2


def test_erased_boxes_have_their_share_and_their_probability() -> None:
    boxes = [augment.drawn_box((40, 60), np.random.default_rng(seed)) for seed in range(300)]
    areas = np.array([box[2] * box[3] for box in boxes if box]) / 2400
    assert 0.015 < areas.min() < 0.05
    assert 0.28 < areas.max() < 0.34
    assert all(box[0] + box[2] <= 40 and box[1] + box[3] <= 60 for box in boxes if box)
    changes = ClipAugmentation(Recipe(random_erasing=0.25), MEAN)
    erased = [bool(changes.erased(torch.zeros(1, 1, 16, 16), np.random.default_rng(seed)).any()) for seed in range(400)]
    assert 70 < sum(erased) < 130


def test_without_augmentation_nothing_is_drawn() -> None:
    changes, rng = ClipAugmentation(Recipe(), MEAN), np.random.default_rng(3)
    assert changes.recoloured(textured(), rng) is not None
    changes.erased(torch.zeros(1, 1, 4, 4), rng)
    assert rng.random() == np.random.default_rng(3).random()


# ---- a batch ----


def batch(size: int = 4, side: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((size, 2, 3, side, side), dtype=np.float32))


def test_a_mixed_pair() -> None:
    clips = torch.stack([torch.full((1, 1, 2, 2), 10.0), torch.full((1, 1, 2, 2), 20.0)])
    mix_in(clips, 0.75)
    assert clips[0].unique().tolist() == [12.5]
    assert clips[1].unique().tolist() == [17.5]
    assert mixed_labels(torch.tensor([2, 0]), 3, 0.75).tolist() == [[0.25, 0, 0.75], [0.75, 0, 0.25]]
    assert mixed_labels(torch.tensor([1, 1]), 3, 0.3).tolist()[0] == pytest.approx([0, 1, 0])


def test_a_box_that_is_exchanged() -> None:
    clips = torch.stack([torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), 2.0)])
    assert cut_in(clips, (1, 0, 2, 3)) == 1 - 6 / 16
    assert clips[0, 0, 0].tolist() == [[1, 1, 1, 1], [2, 2, 2, 1], [2, 2, 2, 1], [1, 1, 1, 1]]
    assert clips[1, 1, 0].tolist() == [[2, 2, 2, 2], [1, 1, 1, 2], [1, 1, 1, 2], [2, 2, 2, 2]]


def test_a_box_has_its_area_and_is_cut_off_at_the_border() -> None:
    boxes = [cut_box((40, 60), 0.75, np.random.default_rng(seed)) for seed in range(200)]
    assert {box[2:] for box in boxes} >= {(20, 30)}  # a quarter of the area
    tops, lefts, heights, widths = np.array(boxes).T
    assert min(tops.min(), lefts.min()) == 0
    assert ((tops + heights).max(), (lefts + widths).max()) == (40, 60)
    assert heights.min() < 20


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_is_that_of_timm(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.data import mixup

    theirs = mixup.Mixup(1.0, 1.0, label_smoothing=0.0, num_classes=5)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (0.6, kind == "cutmix"))
    centres = iter([2, 5])
    monkeypatch.setattr(mixup.np.random, "randint", lambda *_, **__: next(centres))

    class Fixed:
        """A generator that draws what timm draws."""

        def __init__(self) -> None:
            self.centres = iter([2, 5])

        def integers(self, _: int) -> int:
            return next(self.centres)

    clips, labels = batch(side=6), torch.tensor([0, 1, 2, 4])
    # timm knows no frames: they are channels
    expected, soft = theirs(clips.clone().flatten(1, 2), labels)
    ours = clips.clone()
    share = 0.6
    if kind == "cutmix":
        share = cut_in(ours, cut_box((6, 6), 0.6, Fixed()))  # type: ignore[arg-type]
    else:
        mix_in(ours, share)
    assert torch.equal(ours.flatten(1, 2), expected)
    assert torch.allclose(mixed_labels(labels, 5, share), soft)


def test_mixing_follows_seed_and_step() -> None:
    labels = torch.tensor([0, 1, 2, 4])

    def mixed(seed: int, step: int, **alphas: float) -> tuple[torch.Tensor, torch.Tensor]:
        given: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0, **alphas}
        return Mixing(classes=5, seed=seed, **given)(batch(), labels, step)

    assert all(torch.equal(a, b) for a, b in zip(mixed(0, 3), mixed(0, 3)))
    assert not torch.equal(mixed(0, 3)[1], mixed(0, 4)[1])
    assert not torch.equal(mixed(0, 3)[1], mixed(1, 3)[1])
    # both happen, about as often
    cut = [bool(((clips == batch()) | (clips == batch().flip(0))).all()) for clips, _ in (mixed(0, step) for step in range(60))]
    assert 18 < sum(cut) < 42
    # a beta distribution of large alpha is narrow around a half
    shares = [mixed(0, step, mixup=500.0, cutmix=0.0)[1][0, 0].item() for step in range(20)]
    assert 0.4 < min(shares) < max(shares) < 0.6


# ---- what does not go together ----

PLAIN = {"batch_size": 4, "pixels": True, "modality": "rgb", "flow": False, "tracks": False, "classes": True}


@pytest.mark.parametrize(
    ("recipe", "clips", "reason"),
    [
        ({"repeated_augmentation": 3}, {}, "3 times in a batch, and a batch has 4 clips; use a multiple of 3"),
        ({"mixup": 0.8}, {"batch_size": 5}, "pairs clips, and a batch has 5; set an even batch size"),
        ({"cutmix": 0.8}, {"classes": False}, "'cutmix' mixes classes"),
        ({"mixup": 0.8, "cutmix": 1.0}, {"tracks": True}, "'mixup' and 'cutmix' cannot mix the point tracks"),
        ({"mixup": 0.8}, {"flow": True}, "'mixup' would add up the optical flow"),
        ({"rand_augment": "rand-m7-n4"}, {"flow": True}, r"moves pixels \(Rotate, .*\), and the flow"),
        ({"rand_augment": "rand-m7-n4"}, {"tracks": True}, "and the tracks of a clip would stay; end its words in '-t3a'"),
        ({"rand_augment": "rand-m7-n4"}, {"modality": "depth"}, "depth is no colour"),
        ({"color_jitter": 0.4}, {"modality": "depth"}, "depth is no colour"),
        ({"rand_augment": "rant-m7"}, {}, "does not understand 'rant-m7'"),
    ],
)
def test_what_would_be_wrong_is_refused(recipe: dict[str, Any], clips: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_augmentation(Recipe.model_validate(recipe), **(PLAIN | clips))


@pytest.mark.parametrize(
    ("recipe", "clips"),
    [
        ({"cutmix": 1.0, "rand_augment": "rand-m7-n2-t3a", "color_jitter": 0.4, "random_erasing": 0.2, "crop_scale": 0.5}, {"flow": True}),
        ({"rand_augment": "rand-m7-n4"}, {"pixels": False, "tracks": True}),
        ({"random_erasing": 0.3, "repeated_augmentation": 2}, {"modality": "depth"}),
    ],
)
def test_what_goes_together(recipe: dict[str, Any], clips: dict[str, Any]) -> None:
    check_augmentation(Recipe.model_validate(recipe), **(PLAIN | clips))
