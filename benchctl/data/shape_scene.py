"""Scenes of moving textured shapes: pixels, forward optical flow and point tracks, all from one set of equations.

A scene holds several shapes over a textured background. Every shape has a pose (centre, angle, radius) for each frame, and a texture
that is a function of the shape's own coordinates, so where a surface point is seen in any frame is known exactly.

No frame tells the class. In every frame of every class the poses have the same joint distribution. Centres lie on a torus that
reaches beyond the picture by a shape's extent, so a shape leaves the picture completely before it comes back on the other side; the
torus is cut into cells by a grid with a random origin, and each cell holds one shape, uniformly placed, so some are always in view.
Angles are uniform on the circle and radii log-uniform. All centres moving at one rate, an angle moving at any rate, and the logarithm
of a radius doing so leave this distribution as it is, and the reverse of a clip is as likely in the opposite class as the clip itself.
A radius that reaches its end starts again at the other end, as a new shape elsewhere in the cell.

These are the scenes of the difficulty "plain"; `benchctl.data.shape_couples` has those of the others, drawn by the same `Scene`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: class and its time reversal, side by side
PAIRS = (("left", "right"), ("up", "down"), ("clockwise", "counterclockwise"), ("grow", "shrink"))
CLASSES = tuple(name for pair in PAIRS for name in pair)

#: index of the background among the surfaces of a frame
BACKGROUND = -1
#: cells along each side of the torus; each holds one shape
_CELLS = 3
#: radius over picture side, smallest and largest
_RADII = (0.08, 0.22)
#: how far a lobed outline reaches beyond its radius
LOBE_DEPTH = 0.2
#: lobes that a shape may have
LOBES = (0, 3, 4, 5)
#: periods of a texture, fewest and most: over the picture's side, and over a shape's radius
BACKGROUND_CYCLES, SHAPE_CYCLES = (1.0, 6.0), (0.35, 0.9)
#: per frame, slowest and fastest: share of the picture's side, radians, change of the logarithm of the radius
_RATES = {"translate": (0.012, 0.030), "rotate": (math.radians(3), math.radians(8)), "zoom": (0.015, 0.035)}


@dataclass(frozen=True)
class Texture:
    """RGB as a function of two coordinates: a base colour and a sum of plane waves, clipped to 0 ... 1."""

    base: Floats  # (3,)
    waves: Floats  # (J, 2) radians per unit length
    phases: Floats  # (J,)
    amplitudes: Floats  # (J, 3)

    @classmethod
    def drawn(cls, rng: np.random.Generator, cycles: tuple[float, float]) -> Texture:
        """A random texture of three waves, each of `cycles` (lowest, highest) periods per unit length."""
        frequency, direction = 2 * math.pi * rng.uniform(*cycles, 3), rng.uniform(0, 2 * math.pi, 3)
        waves = frequency[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)
        return cls(rng.uniform(0.2, 0.8, 3), waves, rng.uniform(0, 2 * math.pi, 3), rng.uniform(-0.2, 0.2, (3, 3)))

    def faded(self, contrast: float) -> Texture:
        """The same waves, with colours so many times as far from middle grey."""
        return Texture(0.5 + contrast * (self.base - 0.5), self.waves, self.phases, contrast * self.amplitudes)

    def colours(self, points: Floats) -> Floats:
        """(N, 2) to (N, 3)."""
        return np.clip(self.base + np.sin(points @ self.waves.T + self.phases) @ self.amplitudes, 0, 1)

    def on_grid(self, across: Floats, down: Floats) -> Floats:
        """Colours at every (x, y) of `across` (W,) and `down` (H,): (H * W, 3), row by row, up to rounding as `colours`."""
        x, y = across[:, None] * self.waves[:, 0], down[:, None] * self.waves[:, 1] + self.phases
        # sin(x + y) = sin(y) cos(x) + cos(y) sin(x): sines of sides in the place of sines of pixels
        rows, columns = np.hstack([np.sin(y), np.cos(y)]), np.hstack([np.cos(x), np.sin(x)])
        image = (rows[:, None, :] * np.tile(self.amplitudes, (2, 1)).T) @ columns.T  # H, 3, W
        return np.clip(self.base + image.transpose(0, 2, 1).reshape(-1, 3), 0, 1)


@dataclass(frozen=True)
class Shape:
    """One surface from the frame in which it comes to be to the frame in which it ceases to."""

    texture: Texture
    #: 0 is a disc; otherwise the outline is 1 + depth * cos(lobes * polar angle), in radii
    lobes: int
    first: int
    last: int
    #: (T, 4): centre x, centre y, angle, radius; only frames first ... last mean anything
    poses: Floats

    def alive(self, frame: int) -> bool:
        """Whether the surface exists in `frame`."""
        return self.first <= frame <= self.last

    def to_picture(self, frame: int, local: Floats) -> Floats:
        """Coordinates on the surface (N, 2), in radii, to pixels."""
        x, y, angle, radius = self.poses[frame]
        cos, sin = math.cos(angle), math.sin(angle)
        return np.array([x, y]) + radius * local @ np.array([[cos, sin], [-sin, cos]])

    def to_local(self, frame: int, points: Floats) -> Floats:
        """Pixels (N, 2) to coordinates on the surface, in radii."""
        x, y, angle, radius = self.poses[frame]
        cos, sin = math.cos(angle), math.sin(angle)
        return (points - np.array([x, y])) / radius @ np.array([[cos, -sin], [sin, cos]])

    def coverage(self, frame: int, local: Floats) -> Floats:
        """Share of a pixel at `local` (N, 2) that the surface covers: 1 inside, 0 outside, a ramp one pixel wide between."""
        distance = np.hypot(local[:, 0], local[:, 1])
        outline = 1 + (LOBE_DEPTH * np.cos(self.lobes * np.arctan2(local[:, 1], local[:, 0])) if self.lobes else 0.0)
        return np.clip(0.5 - (distance - outline) * self.poses[frame, 3], 0, 1)


@dataclass(frozen=True)
class View:
    """What one frame shows at some points."""

    colours: Floats  # (N, 3), 0 ... 1
    surfaces: Ints  # (N,) index of the shape that covers most of the point, or BACKGROUND

    @property
    def pieces(self) -> list[tuple[int, Ints]]:
        """Each surface that is seen, and the indices of the points that show it, in order."""
        order = np.argsort(self.surfaces.astype(np.int16), kind="stable")
        parts = np.split(order, 1 + np.flatnonzero(np.diff(self.surfaces[order])))
        return [(int(self.surfaces[part[0]]), part) for part in parts]


@dataclass(frozen=True)
class Scene:
    """`size` x `size` pixels over `frames` frames; later shapes cover earlier ones. Pixel centres have whole coordinates (x, y)."""

    size: int
    frames: int
    background: Texture
    shapes: tuple[Shape, ...]
    #: (frames, 2): how far the background has moved in each frame, in pixels; None: it stands still
    camera: Floats | None = None

    @cached_property
    def grid(self) -> Floats:
        """Every pixel, row by row: (size * size, 2)."""
        rows, columns = np.mgrid[0 : self.size, 0 : self.size]
        return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """What every frame shows at every pixel."""
        still = self._background(0, self.grid)
        side = np.arange(self.size)
        found = []
        for frame in range(self.frames):
            if self.camera is None:
                colours = still.copy()
            else:
                x, y = self.camera[frame]
                colours = self.background.on_grid((side - x) / self.size, (side - y) / self.size)
            found.append(self._covered(frame, self.grid, colours, self._pixels_near))
        return tuple(found)

    def view(self, frame: int, points: Floats) -> View:
        """What `frame` shows at `points` (N, 2), which need not be pixel centres."""

        def near(x: float, y: float, reach: float) -> Ints:
            return np.flatnonzero((np.abs(points[:, 0] - x) < reach) & (np.abs(points[:, 1] - y) < reach))

        return self._covered(frame, points, self._background(frame, points), near)

    def _background(self, frame: int, points: Floats) -> Floats:
        """Colours of the background (N, 3)."""
        return self.background.colours((points if self.camera is None else points - self.camera[frame]) / self.size)

    def _pixels_near(self, x: float, y: float, reach: float) -> Ints:
        """Indices into `grid` of the pixels less than `reach` from (x, y) along both sides."""
        across, down = (np.arange(max(0, math.floor(c - reach) + 1), min(self.size, math.ceil(c + reach))) for c in (x, y))
        return (down[:, None] * self.size + across).ravel()

    def _covered(self, frame: int, points: Floats, colours: Floats, near: Callable[[float, float, float], Ints]) -> View:
        """The shapes of `frame` drawn over the background's `colours`, which are changed; `near` picks the points around a place."""
        surfaces = np.full(len(points), BACKGROUND, np.int64)
        for index, shape in enumerate(self.shapes):
            if not shape.alive(frame):
                continue
            x, y, _, radius = shape.poses[frame].tolist()
            around = near(x, y, radius * (1 + LOBE_DEPTH) + 1)
            if not len(around):
                continue
            local = shape.to_local(frame, points[around])
            share = shape.coverage(frame, local)
            touched = share > 0
            covered, part = around[touched], share[touched, None]
            colours[covered] = part * shape.texture.colours(local[touched]) + (1 - part) * colours[covered]
            surfaces[around[share > 0.5]] = index
        return View(colours, surfaces)

    def pixels(self, frame: int) -> npt.NDArray[np.uint8]:
        """`frame` as uint8 RGB (size, size, 3)."""
        return np.rint(255 * self.views[frame].colours).astype(np.uint8).reshape(self.size, self.size, 3)

    def flow(self, frame: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Forward optical flow from `frame` to the next: displacement (size, size, 2) as (x, y) in pixels, and where it exists.

        It exists on every surface that still exists in the next frame, covered there or not; elsewhere the displacement is 0.
        """
        grid = self.grid
        flow, exists = np.zeros_like(grid), np.ones(len(grid), np.bool_)
        for index, seen in self.views[frame].pieces:
            if index == BACKGROUND:
                flow[seen] = 0.0 if self.camera is None else self.camera[frame + 1] - self.camera[frame]
            elif (shape := self.shapes[index]).alive(frame + 1):
                flow[seen] = shape.to_picture(frame + 1, shape.to_local(frame, grid[seen])) - grid[seen]
            else:
                exists[seen] = False
        return flow.reshape(self.size, self.size, 2), exists.reshape(self.size, self.size)

    def tracks(self, points: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Surface points through all frames: (frames, points, 3) as x, y in pixels and 1 where visible, else 0.

        Each point is picked in a random frame, three of four on a shape where there is one. While its surface does not exist, a
        point stays where the surface came to be or ceased to be, invisible.
        """
        anchors = [self._anchor(frame, rng) for frame in rng.integers(self.frames, size=points).tolist()]
        owners = np.array([surface for surface, _ in anchors], np.int64)
        places = np.stack([place for _, place in anchors])
        tracks = np.empty((self.frames, points, 3), np.float32)
        for frame in range(self.frames):
            positions, exists = places.copy(), np.ones(points, np.bool_)
            for index in np.unique(owners).tolist():
                own = owners == index
                if index == BACKGROUND:
                    positions[own] += 0.0 if self.camera is None else self.camera[frame]
                    continue
                shape = self.shapes[index]
                positions[own] = shape.to_picture(min(max(frame, shape.first), shape.last), places[own])
                exists[own] = shape.alive(frame)
            inside = np.all((positions >= -0.5) & (positions < self.size - 0.5), axis=1)
            tracks[frame, :, :2] = positions
            tracks[frame, :, 2] = exists & inside & (self.view(frame, positions).surfaces == owners)
        return tracks

    def _anchor(self, frame: int, rng: np.random.Generator) -> tuple[int, Floats]:
        """A surface seen in `frame`, and a point (2,) on it: in its own coordinates, or in pixels on the background."""
        surfaces = self.views[frame].surfaces
        on_shape = np.flatnonzero(surfaces != BACKGROUND)
        pixel = int(rng.choice(on_shape if rng.random() < 0.75 and len(on_shape) else np.arange(len(surfaces))))
        owner, place = int(surfaces[pixel]), self.grid[pixel : pixel + 1]
        if owner == BACKGROUND:
            return owner, (place if self.camera is None else place - self.camera[frame])[0]
        return owner, self.shapes[owner].to_local(frame, place)[0]


@dataclass(frozen=True)
class _Cell:
    """One cell of the torus, in shares of the torus' side, and how far all centres move in a frame, in pixels."""

    corner: Floats  # (2,)
    drift: Floats  # (2,)
    #: pixels: side of the torus, and how far it reaches beyond the picture
    around: float
    margin: float


def draw_scene(motion: str, size: int, frames: int, rng: np.random.Generator) -> Scene:
    """A random scene of class `motion`, one of `CLASSES`."""
    background = Texture.drawn(rng, cycles=BACKGROUND_CYCLES)
    margin = _RADII[1] * size * (1 + LOBE_DEPTH) + 1
    origin, speed = rng.random(2), rng.uniform(*_RATES["translate"]) * size
    # x grows to the right and y downwards
    x, y = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    shapes: list[Shape] = []
    for cell in rng.permutation(_CELLS**2).tolist():  # any cell may be in front
        corner = origin + np.array(divmod(cell, _CELLS)) / _CELLS
        shapes += _in_cell(motion, _Cell(corner, speed * np.array([x, y]), size + 2 * margin, margin), size, frames, rng)
    return Scene(size, frames, background, tuple(shapes))


def _in_cell(motion: str, cell: _Cell, size: int, frames: int, rng: np.random.Generator) -> list[Shape]:
    """What one cell holds through all frames: a single shape, or for grow and shrink a succession of them."""
    zoom = {"grow": 1, "shrink": -1}.get(motion, 0) * rng.uniform(*_RATES["zoom"])
    smallest, span = math.log(_RADII[0] * size), math.log(_RADII[1] / _RADII[0])
    phases = rng.random() + zoom / span * np.arange(frames)
    generations = np.floor(phases).astype(int)
    radii = np.exp(smallest + span * (phases - generations))
    lives = [np.flatnonzero(generations == g) for g in dict.fromkeys(generations.tolist())]
    return [_shape(motion, cell, radii, (int(life[0]), int(life[-1])), rng) for life in lives]


def _shape(motion: str, cell: _Cell, radii: Floats, life: tuple[int, int], rng: np.random.Generator) -> Shape:
    """A shape of random texture, outline, place in the cell, angle and turning rate."""
    texture = Texture.drawn(rng, cycles=SHAPE_CYCLES)
    lobes = int(rng.choice(LOBES))
    start = (cell.corner + rng.random(2) / _CELLS) * cell.around
    # y grows downwards, so an angle that grows turns clockwise on the screen
    turn = {"clockwise": 1, "counterclockwise": -1}.get(motion, 0) * rng.uniform(*_RATES["rotate"])
    angle = rng.uniform(0, 2 * math.pi)
    times = np.arange(len(radii))[:, None]
    centres = (start + cell.drift * times) % cell.around - cell.margin
    return Shape(texture, lobes, life[0], life[1], np.hstack([centres, angle + turn * times, radii[:, None]]))
