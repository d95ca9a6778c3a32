"""Clips whose frames do not fit into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchctl.data import room
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import probe
from benchctl.data.loading import LoadSettings, train_batches
from benchctl.errors import MissingError
from benchctl.methods import time_layer
from benchctl.recipe import Recipe
from benchctl.vocabulary import ClipShape


def test_frames_that_do_not_fit_say_how_large_they_are(mp4: Path, monkeypatch: pytest.MonkeyPatch):
    """64 x 48 pixels, 14 x 14 cells in 16 frames: 16 * 196 * 64 * 48 * 3 * 5 bytes are 0.13 GiB."""
    info = probe(mp4)
    small = time_layer.Config(host="videomae", grid=14).pixels(ClipShape(frames=16, resolution=224, batch_size=1))
    assert small is not None
    needed = small.frames * 64 * 48 * 3 * 5
    monkeypatch.setattr(room, "_available_bytes", lambda: needed)
    room.check_room(info, small.frames)
    monkeypatch.setattr(room, "_available_bytes", lambda: needed - 1)
    with pytest.raises(MissingError) as error:
        room.check_room(info, small.frames)
    assert str(error.value) == (
        f"{mp4}: 3136 frames of 64 x 48 pixels take 0.1 GiB while they are scaled, and 0.1 GiB of memory are free; "
        "use fewer frames, a smaller 'grid' of the TIME layer, or smaller videos"
    )


def test_nothing_is_decoded_then_and_no_clip_is_called_unreadable(mp4: Path, monkeypatch: pytest.MonkeyPatch):
    record = ClipRecord(mp4.name, mp4, 0, "train")
    clips = ClipSet("some", ("a",), (record,), (record,), False, "")
    monkeypatch.setattr(room, "_available_bytes", lambda: 1000)
    with pytest.raises(MissingError, match="of memory are free"):
        next(train_batches(clips, LoadSettings(ClipShape(frames=4, resolution=32), Recipe()), seed=0))


def test_this_machine_says_what_is_free():
    found = room._available_bytes()
    assert found is not None
    assert found > 2**20
