from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchctl.data import shape_couples
from benchctl.data.shape_couples import CLASSES, LEVELS, PAIRS, THERE_AND_BACK, Clip, Difficulty, draw_clip
from benchctl.data.shape_scene import BACKGROUND, LOBE_DEPTH, Scene

SIZE, FRAMES = 64, 32
DIFFICULTIES: tuple[Difficulty, ...] = tuple(LEVELS)
#: clips of each class, for statistics
MANY = 90


def clip(motion: str, difficulty: Difficulty, seed: int, frames: int = FRAMES) -> Clip:
    return draw_clip(motion, difficulty, SIZE, frames, np.random.default_rng([seed, CLASSES.index(motion), DIFFICULTIES.index(difficulty)]))


@cache
def many(difficulty: Difficulty) -> dict[str, list[Clip]]:
    return {motion: [clip(motion, difficulty, 1000 + seed) for seed in range(MANY)] for motion in CLASSES}


def logistic_scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray, steps: int = 200) -> np.ndarray:
    """Multinomial logistic regression by gradient descent on standardised features with L2: the likeliest label of each test row."""
    mean, std = train.mean(0), train.std(0) + 1e-9
    x, target = (train - mean) / std, np.eye(labels.max() + 1)[labels]
    weights, bias = np.zeros((x.shape[1], target.shape[1])), np.zeros(target.shape[1])
    rate = 1 / (1 + np.linalg.norm(x, 2) ** 2 / len(x))
    for _ in range(steps):
        scores = x @ weights + bias
        share = np.exp(scores - scores.max(1, keepdims=True))
        slope = (share / share.sum(1, keepdims=True) - target) / len(x)
        weights -= rate * (x.T @ slope + 1e-2 * weights)
        bias -= rate * slope.sum(0)
    found: np.ndarray = (((test - mean) / std) @ weights + bias).argmax(1)
    return found


def far_apart(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples, over what it exceeds once in 100,000 times by chance."""
    at = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max() / (2.47 * np.sqrt(1 / len(one) + 1 / len(other))))


# ---- what moves, and how ----


def signature(drawn: Clip) -> np.ndarray:
    """What the couples that lead do, over the clip's length: nine numbers.

    Path in the first and second half (4), turning of the path, change of its speed, spin, zoom, closing.
    """
    lives = [c for c, leads in zip(drawn.couples, drawn.leading) if leads and c.last - c.first > 3][:5]
    couple, spans = lives[0], [slice(c.first, c.last + 1) for c in lives]
    path = (couple.centres - drawn.camera) / SIZE
    half = FRAMES // 2
    steps = np.diff(path, axis=0)
    turning = float(np.mean(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0])) * FRAMES**2
    speeds = np.hypot(*steps.T)
    spin = np.median([np.median(np.diff(c.angles[0, s])) for c, s in zip(lives, spans)])
    zoom = np.median([np.median(np.diff(np.log(c.radii[s]))) for c, s in zip(lives, spans)])
    closing = np.median([np.median(np.diff(np.log(c.separations[s]))) for c, s in zip(lives, spans)])
    there, back = path[half - 1] - path[0], path[-1] - path[half]
    numbers = [*there, *back, turning, (speeds[-1] - speeds[0]) * FRAMES, spin * FRAMES, zoom * FRAMES, closing * FRAMES]
    return np.round(numbers, 9)


@cache
def signatures(difficulty: Difficulty, motion: str) -> np.ndarray:
    """(clips, 9)."""
    return np.array([signature(c) for c in many(difficulty)[motion]])


def rearranged(drawn: Clip, order: np.ndarray) -> Clip:
    """The couples that lead, with their frames in another order; those whose frames do not stay together are left out."""
    couples = []
    for couple in [c for c, leads in zip(drawn.couples, drawn.leading) if leads][:8]:
        alive = np.flatnonzero((order >= couple.first) & (order <= couple.last))
        if alive[-1] - alive[0] == len(alive) - 1:
            moved = {name: getattr(couple, name)[order] for name in ("centres", "separations", "radii")}
            turned = {"angles": couple.angles[:, order], "wobble": couple.wobble[:, order]}
            couples.append(replace(couple, first=int(alive[0]), last=int(alive[-1]), **moved, **turned))
    return replace(drawn, camera=drawn.camera[order], couples=tuple(couples), leading=(True,) * len(couples))


#: frames in reverse, and the second half before the first
BACKWARDS, EXCHANGED = np.arange(FRAMES)[::-1], np.roll(np.arange(FRAMES), FRAMES // 2)


def test_motions_are_what_their_names_say() -> None:
    names = ("x1", "y1", "x2", "y2", "turning", "faster", "spin", "zoom", "closing")

    def means(motion: str, difficulty: Difficulty) -> dict[str, float]:
        return dict(zip(names, np.mean([signature(clip(motion, difficulty, seed)) for seed in range(6)], axis=0)))

    for difficulty in DIFFICULTIES:
        of = {motion: means(motion, difficulty) for motion in CLASSES}
        assert of["left"]["x1"] < 0 > of["left"]["x2"]
        assert of["right"]["x1"] > 0 < of["right"]["x2"]
        assert of["up"]["y1"] < 0 > of["up"]["y2"]  # y grows downwards
        assert of["down"]["y1"] > 0 < of["down"]["y2"]
        assert of["left-then-right"]["x1"] < 0 < of["left-then-right"]["x2"]
        assert of["right-then-left"]["x1"] > 0 > of["right-then-left"]["x2"]
        assert of["up-then-down"]["y1"] < 0 < of["up-then-down"]["y2"]
        assert of["down-then-up"]["y1"] > 0 > of["down-then-up"]["y2"]
        for name, one, other in (
            ("spin", "clockwise", "counterclockwise"),
            ("zoom", "grow", "shrink"),
            ("closing", "part", "approach"),
            ("turning", "orbit-clockwise", "orbit-counterclockwise"),
            ("faster", "speed-up", "slow-down"),
        ):
            assert of[one][name] > 0 > of[other][name]


def test_easy_motions_are_large() -> None:
    for seed in range(20):
        path = {motion: signature(clip(motion, "easy", seed)) for motion in CLASSES}
        assert path["right"][0] + path["right"][2] > 0.45
        assert abs(path["clockwise"][6]) > np.pi / 2
        assert abs(path["grow"][7]) > np.log(2)
        assert abs(path["part"][8]) > np.log(2)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_a_clip_with_its_time_turned_round_is_a_clip_of_its_twin(difficulty: Difficulty, pair: tuple[str, str]) -> None:
    """For there-and-backs, with its halves exchanged; turned round they are what they were."""
    order = EXCHANGED if pair[0] in THERE_AND_BACK else BACKWARDS
    clips = many(difficulty)
    for one, other in (pair, pair[::-1]):
        turned = np.array([signature(rearranged(c, order)) for c in clips[one]])
        assert max(far_apart(turned[:, i], signatures(difficulty, other)[:, i]) for i in range(9)) < 1, (one, other)
        assert max(far_apart(turned[:, i], signatures(difficulty, one)[:, i]) for i in range(9)) > 1.5  # and not one of its own class
        if one in THERE_AND_BACK:
            turned = np.array([signature(rearranged(c, BACKWARDS)) for c in clips[one]])
            assert max(far_apart(turned[:, i], signatures(difficulty, one)[:, i]) for i in range(9)) < 1


@pytest.mark.parametrize("frames", [2, 5, 7, 8, 31, 32])
def test_there_and_backs_go_through_the_same_places(frames: int) -> None:
    """Up to a shift, which the grid's random origin hides; and so for any number of frames."""
    for one, other, axis in (("left-then-right", "right-then-left", 0), ("up-then-down", "down-then-up", 1)):
        for seed in range(8):
            places = []
            for motion in (one, other):
                path = clip(motion, "easy", seed, frames).couples[0].centres[:, axis]
                gone = np.sort(path - path.min())
                places.append(gone / np.ptp(gone))
            assert np.allclose(places[0], places[1], atol=1e-9)


def test_shake_and_wobble_come_round_with_the_clip() -> None:
    stage = shape_couples.Stage(SIZE, FRAMES, LEVELS["hard"])
    swing = np.array([shape_couples._sway(stage, 0.05, np.random.default_rng(seed)) for seed in range(300)]) / SIZE
    assert 0.02 < np.abs(swing).max() <= 0.05
    steps = np.hypot(*np.diff(swing, axis=1, append=swing[:, :1]).T)  # from the last frame to the first as between any two
    assert abs(steps[-1].mean() / steps[:-1].mean() - 1) < 0.1
    assert not clip("left", "easy", 0).camera.any()
    assert clip("left", "medium", 0).camera.any()


# ---- no frame tells ----


def layout(drawn: Clip, time: int) -> np.ndarray:
    """Of one frame, from its poses: ten numbers that say where and how large shapes are, and how they lie to one another."""
    alive = [c for c in drawn.couples if c.first <= time <= c.last]
    arms = np.array([c.separations[time] / 2 * np.array([np.cos(c.direction), np.sin(c.direction)]) for c in alive])
    middles, wobble = np.array([c.centres[time] for c in alive]), np.array([c.wobble[:, time] for c in alive])
    centres = np.concatenate([middles + arms + wobble[:, 0], middles - arms + wobble[:, 1]]) % drawn.stage.around - drawn.stage.margin
    radii = np.array([c.radii[time] for c in alive] * 2)
    reach = radii * (1 + LOBE_DEPTH)
    seen = np.all((centres > -reach[:, None]) & (centres < SIZE + reach[:, None]), axis=1)
    inside = np.all((centres >= 0) & (centres < SIZE), axis=1)
    apart = np.hypot(*(centres[:, None] - centres[None]).T)
    np.fill_diagonal(apart, np.inf)
    overlap = np.maximum(0, radii[:, None] + radii[None] - apart)
    border = np.minimum(centres, SIZE - centres).min(1)
    separations = np.array([c.separations[time] for c in alive])
    at = middles % drawn.stage.around / drawn.stage.around
    between = np.abs(at[:, None] - at[None])
    between = np.hypot(*np.minimum(between, 1 - between).T) + np.eye(len(at))
    return np.array(
        [seen.sum(), inside.sum(), radii.mean(), radii[0], separations[0], overlap.sum(), border[seen].mean(), *at[0], between.min()]
    )


@cache
def layouts(difficulty: Difficulty) -> dict[str, np.ndarray]:
    """(clips, frames, numbers) of every class, at the first, a middle and the last frame."""
    return {motion: np.array([[layout(c, t) for t in (0, 13, FRAMES - 1)] for c in clips]) for motion, clips in many(difficulty).items()}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_layout_has_one_distribution_in_every_frame_of_every_class(difficulty: Difficulty) -> None:
    found = layouts(difficulty)
    for motion, own in found.items():
        others = np.concatenate([rows for name, rows in found.items() if name != motion]).reshape(-1, own.shape[-1])
        for time in range(own.shape[1]):
            distances = [far_apart(own[:, time, i], others[:, i]) for i in range(own.shape[-1])]
            assert max(distances) < 1, (motion, time, distances)


def test_the_comparison_finds_a_class_whose_layout_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would where radii and separations do not start anywhere."""
    honest = shape_couples._round

    class Low:
        def __init__(self, rng: np.random.Generator) -> None:
            self.random = lambda: 0.4 * rng.random()

    monkeypatch.setattr(shape_couples, "_round", lambda ends, rate, stage, rng: honest(ends, rate, stage, Low(rng)))
    for i in (2, 4):
        rows = np.array([layout(clip("grow", "easy", 1000 + seed), 0) for seed in range(MANY)])
        others = np.concatenate([r[:, 0] for name, r in layouts("easy").items() if name != "grow"])
        assert far_apart(rows[:, i], others[:, i]) > 1


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_centre_of_a_couple_is_always_in_view(difficulty: Difficulty) -> None:
    for size in (32, SIZE):
        for seed in range(150):
            motion = CLASSES[seed % len(CLASSES)]
            drawn = draw_clip(motion, difficulty, size, FRAMES, np.random.default_rng([seed, size]))
            in_view = np.zeros(FRAMES, np.int64)
            for couple in drawn.couples:
                at = couple.centres % drawn.stage.around - drawn.stage.margin
                alive = (np.arange(FRAMES) >= couple.first) & (np.arange(FRAMES) <= couple.last)
                in_view += alive & np.all((at >= 0) & (at <= size), axis=1)
            assert in_view.min() >= 1


def picture_features(scene: Scene, time: int) -> np.ndarray:
    """A frame at 6 x 6 and how much its pixels differ from their neighbours at 3 x 3."""
    places = scene.grid.reshape(SIZE, SIZE, 2)[2:62:2, 2:62:2]
    image = scene.view(time, places.reshape(-1, 2)).colours.reshape(30, 30, 3)
    edges = np.abs(np.diff(image, axis=0)[:, :-1]).sum(-1) + np.abs(np.diff(image, axis=1)[:-1]).sum(-1)
    edges = np.pad(edges, (0, 1))
    return np.concatenate([image.reshape(6, 5, 6, 5, 3).mean((1, 3)).ravel(), edges.reshape(3, 10, 3, 10).mean((1, 3)).ravel()])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_single_frame_tells_the_class(difficulty: Difficulty) -> None:
    """Within three points of chance, from pixels and from poses: for 540 frames, two and a half to three deviations."""
    times = (0, 13, FRAMES - 1)
    pixels, poses, labels = [], [], []
    for label, (motion, clips) in enumerate(many(difficulty).items()):
        for number, drawn in enumerate(clips):
            pixels.append(picture_features(drawn.scene, times[number % 3]))
            poses.append(layouts(difficulty)[motion][number, number % 3])
            labels.append(label)
    split = np.tile(np.arange(MANY) < MANY - 30, len(CLASSES))
    for features in (np.array(pixels), np.array(poses)):
        found = logistic_scores(features[split], np.array(labels)[split], features[~split])
        accuracy = (found == np.array(labels)[~split]).mean()
        assert abs(accuracy - 1 / len(CLASSES)) < 0.03


# ---- nor do all frames, without their order ----


def bag(drawn: Clip) -> np.ndarray:
    """Numbers of a clip that its frames give in any order: moments of what each shows, and of what each shows together.

    Per frame: places and sizes of the shapes in view, and where the camera is; of those the mean, the spread, the skew, and products;
    and how far the camera is from its mean in the frames at either end of where the shapes are.
    """
    path = next(c for c, leads in zip(drawn.couples, drawn.leading) if leads).centres - drawn.camera
    rows = []
    numbers = np.array([np.column_stack([c.centres % drawn.stage.around, c.radii, c.separations]) for c in drawn.couples])
    exists = np.array([[c.first, c.last] for c in drawn.couples])
    for time in range(FRAMES):
        found = numbers[(exists[:, 0] <= time) & (time <= exists[:, 1]), time]
        at, radii, separations = found[:, :2], np.log(found[:, 2]), np.log(found[:, 3])
        rows.append([*at.mean(0), *at.std(0), radii.mean(), radii.std(), separations.mean(), separations.std()])
    per_frame = np.hstack([np.array(rows), path - path.mean(0), drawn.camera])
    per_frame = per_frame - per_frame.mean(0)
    spread = per_frame.std(0)
    scaled = per_frame / np.where(spread > 1e-9, spread, 1.0)
    ends = []
    for axis in (0, 1):
        by_place = drawn.camera[np.argsort(path[:, axis], kind="stable")]
        ends += [by_place[:8].std(0).sum() - by_place[-8:].std(0).sum()]
    upper = np.triu_indices(scaled.shape[1], 1)
    return np.concatenate([spread, (scaled**3).mean(0), (scaled.T @ scaled / FRAMES)[upper], ends])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_frames_without_their_order_do_not_tell_twins_apart(difficulty: Difficulty) -> None:
    """Over nine pairs, 60 test clips each: 4.5 points are two deviations of one half."""
    right, asked, ordered = 0, 0, 0
    for one, other in PAIRS:
        drawn = [c for name in (one, other) for c in many(difficulty)[name]]
        labels = np.repeat([0, 1], MANY)
        split = np.tile(np.arange(MANY) < MANY - 30, 2)
        features = np.array([bag(c) for c in drawn])
        right += int((logistic_scores(features[split], labels[split], features[~split]) == labels[~split]).sum())
        asked += int((~split).sum())
        motion = np.concatenate([signatures(difficulty, name) for name in (one, other)])
        ordered += int((logistic_scores(motion[split], labels[split], motion[~split]) == labels[~split]).sum())
    assert abs(right / asked - 0.5) < 0.045
    assert ordered / asked > 0.95  # the same classifier, shown what the order says


# ---- flow and tracks ----


def solid(drawn: Scene, time: int, points: np.ndarray) -> np.ndarray:
    """Which surface lies at `points` and at four places 1.5 pixels around them; BACKGROUND - 1 where they differ."""
    surface = drawn.view(time, points).surfaces
    for shift in ((1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5)):
        surface = np.where(drawn.view(time, points + shift).surfaces == surface, surface, BACKGROUND - 1)
    return surface


def followed(drawn: Clip, time: int, surface: int, point: np.ndarray) -> np.ndarray | None:
    """Where the point of a surface in a frame is in the next, from the couple's own numbers; None where it ceases to be."""
    if surface == BACKGROUND:
        return np.asarray(point + drawn.camera[time + 1] - drawn.camera[time])
    shape = drawn.scene.shapes[surface]
    couple, side = next((c, i) for c in drawn.couples for i in (0, 1) if c.textures[i] is shape.texture and c.first <= time <= c.last)
    arm = (1, -1)[side] * np.array([np.cos(couple.direction), np.sin(couple.direction)]) / 2
    here, there = (couple.centres[t] + couple.separations[t] * arm + couple.wobble[side, t] for t in (time, time + 1))
    around, margin = drawn.stage.around, drawn.stage.margin
    if couple.last == time or (here // around != there // around).any():
        return None
    turn, scale = couple.angles[side, time + 1] - couple.angles[side, time], couple.radii[time + 1] / couple.radii[time]
    out = point - (here % around - margin)
    turned = np.array([np.cos(turn) * out[0] - np.sin(turn) * out[1], np.sin(turn) * out[0] + np.cos(turn) * out[1]])
    return np.asarray(there % around - margin + scale * turned)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("motion", CLASSES)
def test_flow_is_where_points_go(motion: str, difficulty: Difficulty) -> None:
    drawn = clip(motion, difficulty, 3)
    scene = drawn.scene
    rng = np.random.default_rng(0)
    for time in (0, 15, FRAMES - 2):
        flow, exists = (a.reshape(SIZE * SIZE, -1) for a in scene.flow(time))
        for pixel in rng.choice(SIZE * SIZE, 60, replace=False).tolist():
            place = followed(drawn, time, int(scene.views[time].surfaces[pixel]), scene.grid[pixel])
            assert bool(exists[pixel, 0]) == (place is not None)
            assert np.abs(scene.grid[pixel] + flow[pixel] - (scene.grid[pixel] if place is None else place)).max() < 1e-9
        target = scene.grid + flow
        here = solid(scene, time, scene.grid)
        same = (here == solid(scene, time + 1, target)) & exists[:, 0] & (here >= BACKGROUND)
        assert same.sum() > 500
        # a surface has the same colours, wherever between pixels it has moved to
        assert np.abs(scene.view(time + 1, target[same]).colours - scene.views[time].colours[same]).max() < 1e-9


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("motion", CLASSES)
def test_tracks_stay_on_their_surface(motion: str, difficulty: Difficulty) -> None:
    scene = clip(motion, difficulty, 4).scene
    tracks = scene.tracks(32, np.random.default_rng(4)).astype(np.float64)
    assert tracks[..., 2].any(axis=0).all()
    colours = np.full((FRAMES, 32, 3), np.nan)
    surfaces = np.full((FRAMES, 32), BACKGROUND - 1)
    for time in range(FRAMES):
        places, seen = tracks[time, :, :2], tracks[time, :, 2] == 1
        surfaces[time] = np.where(seen, solid(scene, time, places), BACKGROUND - 1)
        whole = surfaces[time] != BACKGROUND - 1
        colours[time, whole] = scene.view(time, places[whole]).colours
    compared = 0
    for point in range(32):
        whole = surfaces[:, point] != BACKGROUND - 1
        assert len(set(surfaces[whole, point].tolist())) <= 1
        assert not whole.any() or np.ptp(colours[whole, point], axis=0).max() < 1e-4  # places are rounded to float32
        compared += int(whole.sum())
    assert compared > 250
    # from frame to frame, as the flow says
    for time in range(0, FRAMES - 1, 6):
        both = (tracks[time, :, 2] == 1) & (tracks[time + 1, :, 2] == 1) & (surfaces[time] != BACKGROUND - 1)
        flow, _ = scene.flow(time)
        at = np.clip(np.rint(tracks[time, both, :2]).astype(int), 0, SIZE - 1)
        off = tracks[time, both, :2] - at  # flow is linear on a surface: from the nearest pixel's, by the surface's own motion
        for x, step, there, own in zip(tracks[time, both, :2], flow[at[:, 1], at[:, 0]], tracks[time + 1, both, :2], off):
            assert np.abs(x + step - there).max() < 0.2 * np.abs(own).max() + 1e-3


def test_a_surface_that_goes_round_the_torus_ends() -> None:
    """No flow and no track leaps across the picture."""
    for difficulty in DIFFICULTIES:
        for motion in ("left", "down", "speed-up", "orbit-clockwise"):
            scene = clip(motion, difficulty, 5).scene
            for shape in scene.shapes:
                steps = np.diff(shape.poses[shape.first : shape.last + 1, :2], axis=0)
                assert np.abs(steps).max(initial=0) < SIZE / 4
            assert np.abs(np.diff(scene.tracks(64, np.random.default_rng(1))[..., :2], axis=0)).max() < SIZE / 4
