"""Scenes of couples of shapes: eighteen motions in nine pairs, at three difficulties.

Layout, the same for every class. The picture lies on a torus that reaches beyond it by a shape's extent. The torus is cut into cells by
a grid with a random origin, and each cell holds a couple of two shapes: its centre is uniform in the middle part of the cell, so small
that the centre of a couple is always in the picture; the couple's direction is uniform on the circle, the logarithms of its separation
and of its radius are uniform; each of the two has a texture, an outline and a uniform angle of its own. Distractors are further couples
of the same kind, each anywhere on the torus. Which covers which is a random order.

No frame tells the class, since every motion leaves the joint distribution of all this as it is, in every frame:

- left, right, up, down, the there-and-backs, speed-up, slow-down and the orbits move all centres of the grid by one path that does not
  depend on where they are: the grid has another origin, and the origin is uniform;
- clockwise and counterclockwise add to angles that are uniform on the circle, each at its own rate;
- grow, shrink, approach and part move the logarithm of a radius or separation, each at its own rate, round an interval on which it is
  uniform: where it reaches its end it starts again at the other, as a new couple elsewhere in the cell;
- a distractor moves alone by another class's motion or stands still; its centre is uniform on the torus, whatever its path;
- the camera's shake and the wobble of each shape are drawn alike in all classes and have uniform phases, so they are stationary.

Nor do the frames of a clip, without their order, tell the classes of a pair apart. Played backwards, a clip of one class is as likely a
clip of the other: paths, phases and angles are turned round, and the places in which they start are uniform. The there-and-backs are
their own reversals. They are told from their opposites by which half comes first, and exchanging the halves makes a clip of one as
likely a clip of the other: a path is at as many places near its one end as near its other, shake and wobble come round with the clip's
length, and distractors, too, go there and back or stand still.

A shape that goes round the torus comes back as another surface, out of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from benchctl.data.shape_scene import BACKGROUND_CYCLES, LOBE_DEPTH, LOBES, SHAPE_CYCLES, Floats, Scene, Shape, Texture

Difficulty = Literal["easy", "medium", "hard"]
Range = tuple[float, float]

#: class and its opposite, side by side
PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("clockwise", "counterclockwise"),
    ("grow", "shrink"),
    ("approach", "part"),
    ("orbit-clockwise", "orbit-counterclockwise"),
    ("left-then-right", "right-then-left"),
    ("up-then-down", "down-then-up"),
    ("speed-up", "slow-down"),
)
CLASSES = tuple(name for pair in PAIRS for name in pair)
#: those whose twin has the same halves in the other order; of all others it is the reversal in time
THERE_AND_BACK = tuple(name for name in CLASSES if "-then-" in name)
#: what a distractor may do beside the motions of the classes
STILL = "still"

#: rates are given over a clip of 32 frames
_STEPS = 31
#: x grows to the right and y downwards
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
#: y grows downwards, so an angle that grows turns clockwise on the screen
_TURNS = {"clockwise": 1, "counterclockwise": -1}
_ZOOMS = {"grow": 1, "shrink": -1}
_CLOSINGS = {"part": 1, "approach": -1}
#: of speed-up, the first speed over the mean one
_SLOWEST = 0.25
#: sinusoids whose sum is a shake or a wobble, and how many periods each may have over the clip: whole ones, so that it has no ends
_SINUSOIDS, _PERIODS = 3, (1, 2, 3)


@dataclass(frozen=True)
class Level:
    """What a difficulty sets. Lengths are over the picture's side; rates are over a clip of 32 frames, slowest and fastest."""

    #: cells along each side of the torus
    cells: int
    #: part of a cell, along each side, that a couple's centre may be in
    spread: float
    radii: Range
    separations: Range
    #: what centres move by
    drift: Range
    #: radians that angles turn by
    spin: Range
    #: change of the logarithm of a radius
    zoom: Range
    #: change of the logarithm of a separation
    closing: Range
    orbit_radii: Range
    #: radians
    orbit: Range
    #: couples that do something else
    distractors: int = 0
    #: how far colours are from grey, over how far they are at most
    contrast: float = 1.0
    #: at most, along x and y: of the camera, and of each shape by itself
    shake: float = 0.0
    wobble: float = 0.0


LEVELS: dict[Difficulty, Level] = {
    "easy": Level(
        cells=2,
        spread=0.15,
        radii=(0.12, 0.28),
        separations=(0.2, 0.6),
        drift=(0.5, 0.9),
        spin=(math.radians(90), math.radians(270)),
        zoom=(0.7, 1.2),
        closing=(0.7, 1.2),
        orbit_radii=(0.12, 0.2),
        orbit=(math.radians(270), math.radians(500)),
    ),
    "medium": Level(
        cells=3,
        spread=1.0,
        radii=(0.07, 0.17),
        separations=(0.14, 0.4),
        drift=(0.25, 0.5),
        spin=(math.radians(45), math.radians(120)),
        zoom=(0.4, 0.8),
        closing=(0.5, 0.9),
        orbit_radii=(0.06, 0.1),
        orbit=(math.radians(220), math.radians(420)),
        distractors=2,
        shake=0.03,
    ),
    "hard": Level(
        cells=3,
        spread=1.0,
        radii=(0.06, 0.14),
        separations=(0.12, 0.34),
        drift=(0.15, 0.3),
        spin=(math.radians(25), math.radians(75)),
        zoom=(0.25, 0.5),
        closing=(0.3, 0.6),
        orbit_radii=(0.04, 0.07),
        orbit=(math.radians(200), math.radians(380)),
        distractors=4,
        contrast=0.5,
        shake=0.05,
        wobble=0.015,
    ),
}


@dataclass(frozen=True)
class Stage:
    """What all couples of a clip share."""

    size: int
    frames: int
    level: Level

    @property
    def margin(self) -> float:
        """How far the torus reaches beyond the picture, in pixels."""
        return self.level.radii[1] * self.size * (1 + LOBE_DEPTH) + 1

    @property
    def around(self) -> float:
        """Side of the torus in pixels."""
        return self.size + 2 * self.margin

    @property
    def times(self) -> Floats:
        """Frames since the first (T,), over those in which the rates are given."""
        return np.arange(self.frames) / _STEPS


@dataclass(frozen=True)
class Couple:
    """Two shapes of one radius, from the frame in which they come to be to the frame in which they cease to."""

    first: int
    last: int
    #: (T, 2) pixels on the torus, unwrapped
    centres: Floats
    #: radians, from the second shape to the first
    direction: float
    #: (T,) pixels
    separations: Floats
    #: (T,) pixels
    radii: Floats
    #: (2, T) radians
    angles: Floats
    #: (2, T, 2) pixels that each shape is off its place
    wobble: Floats
    textures: tuple[Texture, Texture]
    lobes: tuple[int, int]

    def shapes(self, stage: Stage) -> list[Shape]:
        """The two, cut into what exists between one time round the torus and the next."""
        arm = self.separations[:, None] / 2 * np.array([math.cos(self.direction), math.sin(self.direction)])
        found: list[Shape] = []
        for index, side in enumerate((1, -1)):
            places = self.centres + side * arm + self.wobble[index]
            poses = np.column_stack([places % stage.around - stage.margin, self.angles[index], self.radii])
            rounds = np.floor(places[self.first : self.last + 1] / stage.around)
            starts = self.first + 1 + np.flatnonzero(np.diff(rounds, axis=0).any(axis=1))
            for first, end in zip((self.first, *starts.tolist()), (*starts.tolist(), self.last + 1)):
                found.append(Shape(self.textures[index], self.lobes[index], first, end - 1, poses))
        return found


@dataclass(frozen=True)
class Clip:
    """A drawn clip, before it is a scene."""

    stage: Stage
    background: Texture
    #: (T, 2) pixels
    camera: Floats
    #: what is covered comes first
    couples: tuple[Couple, ...]
    #: whether each couple moves by the motion of the class
    leading: tuple[bool, ...]

    @cached_property
    def scene(self) -> Scene:
        """Its surfaces."""
        shapes = tuple(shape for couple in self.couples for shape in couple.shapes(self.stage))
        return Scene(self.stage.size, self.stage.frames, self.background, shapes, self.camera if self.camera.any() else None)


def draw_clip(motion: str, difficulty: Difficulty, size: int, frames: int, rng: np.random.Generator) -> Clip:
    """A random clip of class `motion`, one of `CLASSES`."""
    level = LEVELS[difficulty]
    stage = Stage(size, frames, level)
    background = Texture.drawn(rng, BACKGROUND_CYCLES).faded(level.contrast)
    camera = _sway(stage, level.shake, rng)
    origin, path = rng.random(2), _path(motion, stage, rng)
    couples: list[Couple] = []
    leading: list[bool] = []
    for cell in rng.permutation(level.cells**2 + level.distractors).tolist():  # any may be in front
        leads = cell < level.cells**2
        if leads:
            width = level.spread / level.cells
            corner = origin + (np.array(divmod(cell, level.cells)) + (1 - level.spread) / 2) / level.cells
            lives = _in_cell(motion, _Cell(corner, width, path + camera), stage, rng)
        else:
            others = THERE_AND_BACK if motion in THERE_AND_BACK else CLASSES
            other = str(rng.choice([name for name in (*others, STILL) if name != motion]))
            lives = _in_cell(other, _Cell(np.zeros(2), 1.0, _path(other, stage, rng) + camera), stage, rng)
        couples += lives
        leading += [leads] * len(lives)
    return Clip(stage, background, camera, tuple(couples), tuple(leading))


@dataclass(frozen=True)
class _Cell:
    """Where the centres of a succession of couples may be: a square, in shares of the torus' side, and its path in pixels (T, 2)."""

    corner: Floats
    width: float
    path: Floats


def _in_cell(motion: str, cell: _Cell, stage: Stage, rng: np.random.Generator) -> list[Couple]:
    """What one cell holds through all frames: a single couple, or where radii or separations move a succession of them."""
    level = stage.level
    radii, radius_ages = _round(level.radii, _ZOOMS.get(motion, 0) * rng.uniform(*level.zoom), stage, rng)
    separations, separation_ages = _round(level.separations, _CLOSINGS.get(motion, 0) * rng.uniform(*level.closing), stage, rng)
    ages = radius_ages + separation_ages  # one of the two is constant
    starts = [0, *(1 + np.flatnonzero(np.diff(ages))).tolist()]
    couples: list[Couple] = []
    for first, end in zip(starts, [*starts[1:], stage.frames]):
        centre = (cell.corner + cell.width * rng.random(2)) * stage.around
        turns = _TURNS.get(motion, 0) * rng.uniform(*level.spin, (2, 1))
        couples.append(
            Couple(
                first=first,
                last=end - 1,
                centres=centre + cell.path,
                direction=rng.uniform(0, 2 * math.pi),
                separations=separations,
                radii=radii,
                angles=rng.uniform(0, 2 * math.pi, (2, 1)) + turns * stage.times,
                wobble=np.stack([_sway(stage, level.wobble, rng) for _ in range(2)]),
                textures=(_texture(level, rng), _texture(level, rng)),
                lobes=(int(rng.choice(LOBES)), int(rng.choice(LOBES))),
            )
        )
    return couples


def _texture(level: Level, rng: np.random.Generator) -> Texture:
    return Texture.drawn(rng, SHAPE_CYCLES).faded(level.contrast)


def _round(ends: Range, rate: float, stage: Stage, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A length in pixels (T,) whose logarithm goes round between its ends, and how often it has come to the end (T,)."""
    smallest, span = math.log(ends[0] * stage.size), math.log(ends[1] / ends[0])
    phases = rng.random() + rate / span * stage.times
    ages = np.floor(phases)
    return np.exp(smallest + span * (phases - ages)), ages


def _sway(stage: Stage, most: float, rng: np.random.Generator) -> Floats:
    """A smooth random movement about 0, in pixels (T, 2), along x and y at most `most` of the picture's side."""
    if not most:
        return np.zeros((stage.frames, 2))
    periods, phases = rng.choice(_PERIODS, (_SINUSOIDS, 2)), rng.uniform(0, 2 * math.pi, (_SINUSOIDS, 2))
    part = np.arange(stage.frames)[:, None, None] / stage.frames
    found: Floats = np.sin(2 * math.pi * periods * part + phases).mean(axis=1)
    return most * stage.size * found


def _path(motion: str, stage: Stage, rng: np.random.Generator) -> Floats:
    """How far the centres have come in each frame, in pixels (T, 2)."""
    level, times, steps = stage.level, stage.times, np.arange(stage.frames)
    speed, around = rng.uniform(*level.drift) * stage.size, rng.uniform(0, 2 * math.pi)
    if motion in _WAYS:
        return speed * times[:, None] * np.array(_WAYS[motion])
    if motion in THERE_AND_BACK:
        # a quarter of a step off the middle, so that the places near both ends mirror each other for odd numbers of frames too
        gone = stage.frames / 2 - np.abs(steps + rng.choice((0.25, 0.75)) - stage.frames / 2)
        return speed / _STEPS * gone[:, None] * np.array(_WAYS[motion.partition("-")[0]])
    if motion in ("speed-up", "slow-down"):
        gone = speed * times * (_SLOWEST + (1 - _SLOWEST) * steps / (stage.frames - 1))
        gone = gone if motion == "speed-up" else gone[-1] - gone[::-1]
        return gone[:, None] * np.array([math.cos(around), math.sin(around)])
    orbit, _, turn = motion.partition("-")
    if orbit == "orbit":
        angles = around + _TURNS[turn] * rng.uniform(*level.orbit) * times
        return rng.uniform(*level.orbit_radii) * stage.size * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.zeros((stage.frames, 2))
