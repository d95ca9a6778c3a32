"""VideoMAE's pre-training against the library's own."""

from __future__ import annotations

import pytest
import torch

from benchctl.layers.videomae import MaskedVideoMAE, VideoMAESizes, hidden_tubes
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SIZES = {"width": 48, "layers": 2, "heads": 4, "mlp_width": 96, "mask_ratio": 0.75}


def masked(frames: int = 4, side: int = 64, **changes: object) -> MaskedVideoMAE:
    torch.manual_seed(0)
    sizes = VideoMAESizes(**{**SIZES, **changes})
    return MaskedVideoMAE(ModelSpec(sizes, ClipShape(frames=frames, resolution=side), 2, "sdpa"), sizes)


@pytest.mark.parametrize(("frames", "side"), [(4, 64), (2, 96)])
def test_the_loss_is_the_librarys(frames: int, side: int):
    """On the same weights and mask. The library undoes the normalisation of pixels first, which cancels when patches are normalised."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    ours = masked(frames, side).eval()
    config = ours.video.config.to_dict() | {"num_frames": frames, "image_size": side}
    theirs = VideoMAEForPreTraining(VideoMAEConfig(**config)).eval()
    theirs.load_state_dict(ours.video.state_dict())
    clip = (torch.rand(2, frames, 3, side, side) - MEAN) / STD
    torch.manual_seed(3)
    _, hidden = ours._tubes(2, frames // 2, clip.device)
    mask = torch.zeros(2, frames // 2 * (side // 16) ** 2, dtype=torch.bool).scatter(1, hidden, True)
    torch.manual_seed(3)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip, bool_masked_pos=mask).loss, rtol=1e-4, atol=1e-5)


def test_tubes_hide_the_same_places_at_all_times():
    model = masked(frames=6)
    visible, hidden = model._tubes(3, 3, torch.device("cpu"))
    assert (visible.shape, hidden.shape) == ((3, 12), (3, 36))
    for seen, unseen in zip(visible, hidden):
        assert sorted([*seen.tolist(), *unseen.tolist()]) == list(range(48))
        places = [sorted(i % 16 for i in unseen.tolist() if i // 16 == time) for time in range(3)]
        assert places[0] == places[1] == places[2]
    assert not torch.equal(hidden[0], hidden[1]), "each clip has a mask of its own"


@pytest.mark.parametrize(("ratio", "expected"), [(0.9, 176), (0.75, 147), (0.001, 1), (0.999, 195)])
def test_something_is_hidden_and_something_seen(ratio: float, expected: int):
    assert hidden_tubes(196, ratio) == expected


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1])
def test_a_mask_ratio_that_leaves_nothing_is_refused(ratio: float):
    with pytest.raises(ValueError, match=r"mask_ratio\n.*(less|greater) than"):
        VideoMAESizes(mask_ratio=ratio)


def test_patches_and_frames_are_inverse():
    model, clip = masked(), torch.rand(1, 4, 3, 64, 64)
    patches = model.patches(clip)
    assert patches.shape == (1, 32, 2 * 16 * 16 * 3)
    assert torch.equal(model._frames(patches, clip.shape[1:]), clip[0])
    # the first patch: time, row and column in it, then channel
    assert torch.equal(patches[0, 0].reshape(2, 16, 16, 3), clip[0, :2, :, :16, :16].permute(0, 2, 3, 1))


def test_what_is_visible_is_rebuilt_as_it_is():
    model, clip = masked().eval(), torch.rand(1, 4, 3, 64, 64)
    found = model.reconstruct(clip, seed=5)
    assert found.hidden.float().mean() == 0.75
    seen = ~found.hidden[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(found.rebuilt[seen], clip[0][seen])
    assert not torch.equal(found.rebuilt, clip[0])
    assert torch.equal(found.rebuilt, model.reconstruct(clip, seed=5).rebuilt)
    assert not torch.equal(found.hidden, model.reconstruct(clip, seed=6).hidden)
