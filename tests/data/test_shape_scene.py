from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchctl.data.shape_scene import BACKGROUND, CLASSES, PAIRS, Scene, Texture, View, draw_scene

SIZE, FRAMES = 64, 24


def scene(motion: str, seed: int) -> Scene:
    return draw_scene(motion, SIZE, FRAMES, np.random.default_rng([seed, CLASSES.index(motion)]))


def bilinear(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`image` (H, W, C) at `points` (N, 2) as x, y inside the picture."""
    x, y = points[:, 0], points[:, 1]
    left, top = np.clip(np.floor(x).astype(int), 0, SIZE - 2), np.clip(np.floor(y).astype(int), 0, SIZE - 2)
    a, b = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - a) * image[top, left] + a * image[top, left + 1]
    lower = (1 - a) * image[top + 1, left] + a * image[top + 1, left + 1]
    return (1 - b) * upper + b * lower


def solid(drawn: Scene, frame: int, points: np.ndarray) -> np.ndarray:
    """Which surface lies at `points` and at four places 1.5 pixels around them; BACKGROUND - 1 where they differ."""
    surface = drawn.view(frame, points).surfaces
    for shift in ((1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5)):
        surface = np.where(drawn.view(frame, points + shift).surfaces == surface, surface, BACKGROUND - 1)
    return surface


@pytest.mark.parametrize("motion", CLASSES)
def test_the_next_frame_warped_by_the_flow_is_this_frame(motion: str) -> None:
    compared = 0
    for seed in range(4):
        drawn = scene(motion, seed)
        for frame in (0, 11, FRAMES - 2):
            flow, exists = drawn.flow(frame)
            target = drawn.grid + flow.reshape(-1, 2)
            inside = np.all((target >= 0) & (target <= SIZE - 1), axis=1) & exists.ravel()
            here, there = solid(drawn, frame, drawn.grid), solid(drawn, frame + 1, target)
            seen_twice = inside & (here == there) & (here > BACKGROUND)
            compared += int(seen_twice.sum())
            now = drawn.views[frame].colours[seen_twice]
            # the equations: the same surface point has the same colour, wherever between pixels it has moved to
            assert np.abs(drawn.view(frame + 1, target[seen_twice]).colours - now).max(initial=0) < 1e-9
            # the pixels: what a user does with them, up to the error of interpolating
            error = np.abs(bilinear(drawn.pixels(frame + 1).astype(float), target[seen_twice]) - 255 * now)
            assert error.mean() < 3
            assert np.array_equal(flow.reshape(-1, 2)[here == BACKGROUND], np.zeros((int((here == BACKGROUND).sum()), 2)))
    assert compared > 2000


def test_flow_does_not_exist_where_a_surface_ends() -> None:
    ends = 0
    for seed in range(10):
        for motion in ("grow", "shrink"):
            drawn = scene(motion, seed)
            for frame in range(FRAMES - 1):
                flow, exists = drawn.flow(frame)
                surfaces = drawn.views[frame].surfaces.reshape(SIZE, SIZE)
                gone = np.array([s != BACKGROUND and drawn.shapes[s].last == frame for s in surfaces.ravel()]).reshape(SIZE, SIZE)
                assert np.array_equal(exists, ~gone)
                assert not flow[gone].any()
                ends += bool(gone.any())
    assert ends > 5


@pytest.mark.parametrize("motion", CLASSES)
def test_tracks_follow_the_flow_and_the_visible_surface(motion: str) -> None:
    compared = 0
    for seed in range(3):
        drawn = scene(motion, seed)
        tracks = drawn.tracks(24, np.random.default_rng(seed)).astype(np.float64)
        assert tracks.shape == (FRAMES, 24, 3)
        assert set(np.unique(tracks[..., 2])) <= {0.0, 1.0}
        assert tracks[..., 2].any(axis=0).all()  # every point is seen at least in the frame in which it was picked
        for frame in range(FRAMES - 1):
            both = (tracks[frame, :, 2] == 1) & (tracks[frame + 1, :, 2] == 1)
            points, later = tracks[frame, both, :2], tracks[frame + 1, both, :2]
            near = solid(drawn, frame, points)  # all four pixels around are of one surface, and flow is linear on it
            ok = (near >= BACKGROUND) & np.all((points >= 1) & (points <= SIZE - 2), axis=1)
            flow = bilinear(drawn.flow(frame)[0], points[ok])
            assert np.abs(points[ok] + flow - later[ok]).max(initial=0) < 1e-3
            compared += int(ok.sum())
    assert compared > 300


def test_invisible_means_covered_outside_or_gone() -> None:
    drawn = scene("right", 1)
    tracks = drawn.tracks(64, np.random.default_rng(0))
    hidden = tracks[tracks[..., 2] == 0]
    outside = ((hidden[:, :2] < -0.5) | (hidden[:, :2] >= SIZE - 0.5)).any(axis=1)
    assert outside.any()
    for x, y, visible in tracks.reshape(-1, 3):
        assert not visible or (-0.5 <= x < SIZE - 0.5 and -0.5 <= y < SIZE - 0.5)


def test_directions_are_what_their_names_say() -> None:
    def mean_flow(motion: str) -> np.ndarray:
        drawn = scene(motion, 0)
        flow, _ = drawn.flow(0)
        moving = flow.any(axis=-1)
        return flow[moving].mean(axis=0)

    assert mean_flow("right")[0] > 0 > mean_flow("left")[0]
    assert mean_flow("down")[1] > 0 > mean_flow("up")[1]  # y grows downwards
    shape = scene("clockwise", 0).shapes[0]
    # twelve o'clock moves towards three o'clock
    top = shape.to_local(0, shape.poses[0, :2] + np.array([[0.0, -5.0]]))
    assert shape.to_picture(1, top)[0, 0] > shape.poses[1, 0]
    for motion, sign in (("grow", 1), ("shrink", -1)):
        for drawn in scene(motion, 0).shapes:
            radii = drawn.poses[drawn.first : drawn.last + 1, 3]
            assert (np.sign(np.diff(radii)) == sign).all()


@pytest.mark.parametrize("frame", [0, FRAMES - 1])
def test_poses_have_one_distribution_in_every_frame_of_every_class(frame: int) -> None:
    """Kolmogorov-Smirnov distance of each pose coordinate from that of all classes together, at the first and the last frame."""
    poses = {}
    for motion in CLASSES:
        found = []
        for seed in range(300):
            shapes = draw_scene(motion, SIZE, FRAMES, np.random.default_rng([seed, CLASSES.index(motion), 7])).shapes
            found += [shape.poses[frame] for shape in shapes if shape.alive(frame)]
        poses[motion] = np.array(found)
        poses[motion][:, 2] %= 2 * np.pi
    together = np.concatenate(list(poses.values()))
    for motion, own in poses.items():
        assert len(own) == 9 * 300  # nine shapes in every frame, whatever comes and goes
        for coordinate in range(4):
            pooled, mine = np.sort(together[:, coordinate]), np.sort(own[:, coordinate])
            at = np.searchsorted(mine, pooled, side="right") / len(mine)
            distance = np.abs(at - np.arange(1, len(pooled) + 1) / len(pooled)).max()
            assert distance < 1.95 / np.sqrt(len(own)), (motion, coordinate)  # one in a thousand by chance


def test_pairs_are_time_reversals() -> None:
    """Turned round in time, a clip of one class has the steps of the other."""
    for one, other in PAIRS:
        steps = {}
        for motion in (one, other):
            shapes = [s for seed in range(60) for s in scene(motion, seed).shapes if s.last - s.first > 2]
            poses = [np.column_stack([s.poses[:, :3], np.log(s.poses[:, 3])])[s.first : s.last + 1] for s in shapes]
            steps[motion] = np.array([np.median(np.diff(p, axis=0), axis=0) for p in poses])
        assert np.abs(steps[one].mean(0) + steps[other].mean(0)).max() < 0.12
        assert np.abs(steps[one].mean(0)).max() > 0.01


def test_a_texture_on_a_grid_is_the_texture() -> None:
    rng = np.random.default_rng(0)
    for contrast in (1.0, 0.3):
        texture = Texture.drawn(rng, (1.0, 6.0)).faded(contrast)
        across, down = rng.random(7), rng.random(5)
        places = np.array([[x, y] for y in down for x in across])
        assert np.abs(texture.on_grid(across, down) - texture.colours(places)).max() < 1e-12
        assert np.abs(texture.colours(places) - 0.5).max() <= 0.5


def test_a_camera_that_moves_takes_the_background_along() -> None:
    still = scene("right", 2)
    camera = np.cumsum(np.random.default_rng(0).normal(size=(FRAMES, 2)), axis=0)
    moved = replace(still, camera=camera)
    for frame in (0, 9):
        bare = (moved.views[frame].surfaces == BACKGROUND) & (still.views[frame].surfaces == BACKGROUND)
        clear = bare & (solid(moved, frame, moved.grid) == BACKGROUND)
        before = moved.background.colours((moved.grid[clear] - camera[frame]) / SIZE)
        assert np.abs(moved.views[frame].colours[clear] - before).max() < 1e-12
        flow, exists = moved.flow(frame)
        assert np.abs(flow.reshape(-1, 2)[bare] - (camera[frame + 1] - camera[frame])).max() < 1e-12
        assert exists.ravel()[bare].all()
        assert np.array_equal(flow.reshape(-1, 2)[~bare], still.flow(frame)[0].reshape(-1, 2)[~bare])


def test_pieces_of_a_view() -> None:
    view = View(np.zeros((6, 3)), np.array([2, BACKGROUND, 2, 0, BACKGROUND, 2]))
    assert [(index, points.tolist()) for index, points in view.pieces] == [(BACKGROUND, [1, 4]), (0, [3]), (2, [0, 2, 5])]
