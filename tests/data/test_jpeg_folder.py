"""Clips that are folders of frames: JPEGs, and 16-bit PNGs of depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchctl.data import clip_set, depth_folder
from benchctl.data.clip_set import Row
from benchctl.data.content_files import VideoDigests, digest_of
from benchctl.data.decode import decode, probe
from benchctl.errors import ClipUnreadable


def write_jpegs(folder: Path, frames: np.ndarray, first: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=first):
        assert cv2.imwrite(str(folder / f"{number:05}.jpg"), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


@pytest.fixture
def jpegs(tmp_path: Path, textured_frames: Callable[..., np.ndarray]) -> Path:
    return write_jpegs(tmp_path / "7", textured_frames(12))


def refused(folder: Path) -> str:
    with pytest.raises(ClipUnreadable) as caught:
        probe(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(folder))
    return caught.value.what


def test_frames_in_the_order_of_their_numbers(jpegs: Path, textured_frames: Callable[..., np.ndarray]) -> None:
    (jpegs / "Thumbs.db").write_bytes(b"not a frame")
    (jpegs / ".00001.jpg").write_bytes(b"not a frame either")
    info = probe(jpegs)
    assert (info.frames, info.width, info.height, info.codec, info.decoder) == (12, 64, 48, "mjpeg", "jpeg_folder")
    frames = decode(jpegs, [11, 0, 3, 3], info=info)
    assert (frames.shape, frames.dtype) == ((4, 48, 64, 3), np.uint8)
    loss = np.abs(frames[:, None].astype(int) - textured_frames(12)).mean((2, 3, 4))  # of each frame, against each of the originals
    assert loss.argmin(1).tolist() == [11, 0, 3, 3]
    assert loss.min(1).max() < 4
    assert decode(jpegs, []).shape == (0, 48, 64, 3)


def test_each_frame_is_what_the_jpeg_holds(jpegs: Path) -> None:
    one_by_one = np.stack([cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in sorted(jpegs.glob("*.jpg"))])
    assert np.array_equal(decode(jpegs, range(12)), one_by_one)


def test_grey_frames_become_three_channels(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    grey = np.full((8, 10), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "1" / "img_00001.JPG"), grey)
    assert np.abs(decode(tmp_path / "1", [0]).astype(int) - 77).max() <= 1


def test_numbers_may_begin_at_0_and_need_no_zeros_before_them(tmp_path: Path, textured_frames: Callable[..., np.ndarray]) -> None:
    folder = write_jpegs(tmp_path / "1", textured_frames(12), first=0)
    before = decode(folder, range(12))
    for file in folder.iterdir():
        file.rename(folder / f"frame{int(file.stem)}.jpg")  # frame10 stands before frame2
    assert np.array_equal(decode(folder, range(12)), before)


def test_a_missing_frame_is_named(jpegs: Path) -> None:
    (jpegs / "00004.jpg").unlink()
    assert refused(jpegs) == "frame 4 is missing: '00003.jpg' is followed by '00005.jpg'"


def test_missing_first_frames_are_named(jpegs: Path) -> None:
    (jpegs / "00001.jpg").unlink()
    assert refused(jpegs) == "frame 1 is missing: the first is '00002.jpg'"


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_torn_frame_is_named(kept: float, jpegs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = (jpegs / "00005.jpg").read_bytes()
    (jpegs / "00005.jpg").write_bytes(content[: int(kept * len(content))])
    assert refused(jpegs).startswith("frame '00005.jpg' is cut short")
    assert capfd.readouterr().err == ""  # no word of a C library's own


def test_frames_that_are_none(jpegs: Path, tmp_path: Path) -> None:
    (jpegs / "00002.jpg").write_bytes(b"<html>\xff\xd9")
    assert refused(jpegs) == "frame '00002.jpg' is no JPEG that can be decoded"
    (jpegs / "00002.jpg").write_bytes(b"")
    assert refused(jpegs) == "frame '00002.jpg' is cut short (0 bytes, no end mark)"
    (jpegs / "00002.jpg").unlink()
    (jpegs / "00002.jpg").mkdir()
    assert refused(jpegs) == "frame '00002.jpg' cannot be read: Is a directory"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == "not a file, and as a folder it holds no .jpg or .jpeg frame"


def test_frames_of_two_sizes_numbers_and_none(jpegs: Path) -> None:
    small = np.zeros((8, 8, 3), np.uint8)
    cv2.imwrite(str(jpegs / "00012.jpg"), small)
    assert refused(jpegs) == "frame '00012.jpg' has 8 x 8 pixels, the first one 64 x 48"
    (jpegs / "00012.jpg").rename(jpegs / "flow_00003.jpg")
    assert refused(jpegs) == "frames '00003.jpg' and 'flow_00003.jpg' have the same number"
    (jpegs / "flow_00003.jpg").rename(jpegs / "cover.jpg")
    assert refused(jpegs) == "frame 'cover.jpg' has no number"


def test_a_folder_that_changed_since_it_was_probed(jpegs: Path) -> None:
    info = probe(jpegs)
    (jpegs / "00012.jpg").unlink()
    with pytest.raises(ClipUnreadable, match="12 frames when it was probed, 11 now"):
        decode(jpegs, [0], info=info)


def test_the_fingerprint_counts_the_frames_of_a_folder(jpegs: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return clip_set.clip_set("x", tmp_path, ["c"], [Row("7", 0, "train", "list:1")], flip_safe=True).fingerprint

    before = fingerprint()
    (jpegs / ".DS_Store").write_bytes(b"x")
    assert fingerprint() == before
    (jpegs / "00013.jpg").write_bytes(b"x")
    assert fingerprint() != before


def test_what_was_computed_of_a_folder_is_filed_by_its_frames(jpegs: Path, tmp_path: Path) -> None:
    digests = VideoDigests(tmp_path / "computed")
    before = digests.of(jpegs)
    assert digests.of(jpegs) == before == digest_of(jpegs)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in sorted(jpegs.iterdir(), reverse=True):
        (copy / file.name).write_bytes(file.read_bytes())
    assert digests.of(copy) == before
    (copy / "00003.jpg").write_bytes((copy / "00004.jpg").read_bytes())
    assert digests.of(copy) != before


# ---- depth ----


@pytest.fixture
def depth_frames() -> np.ndarray:
    depth = np.random.default_rng(0).integers(400, 4000, (5, 6, 8)).astype(np.uint16)
    depth[:, 0, 0] = 0
    depth[2, 3, 4] = 4095
    return depth


@pytest.fixture
def pngs(tmp_path: Path, depth_frames: np.ndarray) -> Path:
    folder = tmp_path / "a01_s01_e01"
    folder.mkdir()
    for number, frame in enumerate(depth_frames, start=1):
        cv2.imwrite(str(folder / f"MDepth-{number:08}.png"), frame)
    return folder


def test_depth_is_relative_to_the_largest_of_the_clip(pngs: Path, depth_frames: np.ndarray) -> None:
    assert np.array_equal(depth_folder.read_depth(pngs)[..., 0], depth_frames)
    info = probe(pngs)
    assert (info.frames, info.width, info.height, info.decoder) == (5, 8, 6, "depth")
    frames = decode(pngs, [4, 0], info=info)
    assert np.array_equal(frames[..., 0], np.rint(depth_frames[[4, 0]] * (255.0 / 4095)))
    assert (frames == 0).sum() == 2
    assert decode(pngs, []).shape == (0, 6, 8, 1)


def test_depth_frames_that_are_none(pngs: Path) -> None:
    frame = pngs / "MDepth-00000002.png"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:-5])
    assert refused(pngs).startswith("frame 'MDepth-00000002.png' is cut short")
    frame.write_bytes(b"GIF89a")
    assert refused(pngs) == "frame 'MDepth-00000002.png' is no PNG (6 bytes)"
    cv2.imwrite(str(frame), np.zeros((6, 8, 3), np.uint8))
    assert refused(pngs) == "frame 'MDepth-00000002.png' is not a PNG of one 16-bit channel, as depth is"
    cv2.imwrite(str(frame), np.zeros((6, 9), np.uint16))
    assert refused(pngs) == "frame 'MDepth-00000002.png' has 9 x 6 pixels, the first one 8 x 6"
    frame.unlink()
    assert refused(pngs).startswith("frame 2 is missing")


def test_a_depth_frame_whose_bytes_changed_is_damaged(pngs: Path) -> None:
    frame = pngs / "MDepth-00000002.png"
    info = probe(pngs)
    content = bytearray(frame.read_bytes())
    content[45:60] = bytes(15)
    frame.write_bytes(content)
    with pytest.raises(ClipUnreadable, match=r"frame 'MDepth-00000002\.png' is damaged"):
        decode(pngs, [0], info=info)
