"""The relative pose error against its definition with 4 x 4 matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchctl.metrics.relative_pose import error

STAND = [0.0, 0.0, 0.0, 1.0]


def turn_about_z(degrees: float) -> list[float]:
    half = math.radians(degrees) / 2
    return [0.0, 0.0, math.sin(half), math.cos(half)]


def random_path(seed: int, steps: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(steps, 4))
    return np.hstack([rng.normal(size=(steps, 3)), quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)])


def matrix(pose: np.ndarray) -> np.ndarray:
    """By the rotation of the three axes: v + 2 q x (q x v + w v)."""
    vector, w = pose[3:6], pose[6]
    found = np.eye(4)
    for axis in range(3):
        v = np.eye(3)[axis]
        found[:3, axis] = v + 2 * np.cross(vector, np.cross(vector, v) + w * v)
    found[:3, 3] = pose[:3]
    return found


def definition(predicted: np.ndarray, true: np.ndarray, delta: int) -> tuple[float, float]:
    moves, angles = [], []
    for i in range(len(true) - delta):
        p = np.linalg.inv(matrix(predicted[i])) @ matrix(predicted[i + delta])
        q = np.linalg.inv(matrix(true[i])) @ matrix(true[i + delta])
        e = np.linalg.inv(q) @ p
        moves.append(np.linalg.norm(e[:3, 3]) ** 2)
        angles.append(math.acos(min(1.0, max(-1.0, (np.trace(e[:3, :3]) - 1) / 2))) ** 2)
    return math.sqrt(np.mean(moves)), math.degrees(math.sqrt(np.mean(angles)))


@pytest.mark.parametrize("delta", [1, 4])
def test_it_is_the_definition(delta: int):
    predicted, true = random_path(0), random_path(1)
    assert error(predicted, true, delta) == pytest.approx(definition(predicted, true, delta), rel=1e-9)


def test_worked_example():
    """A path that stands still, predicted to move by 3 and 4 metres and to turn by 10 and 0 degrees."""
    true = np.array([[0, 0, 0, *STAND]] * 3, float)
    predicted = np.array([[0, 0, 0, *STAND], [3, 0, 0, *turn_about_z(10)], [3, 4, 0, *turn_about_z(10)]], float)
    found = error(predicted, true)
    assert found.translation == pytest.approx(math.sqrt((9 + 16) / 2))
    assert found.degrees == pytest.approx(math.sqrt(100 / 2))


def test_moving_a_whole_path_changes_nothing():
    true, predicted = random_path(2), random_path(3)
    moved = predicted.copy()
    for i, pose in enumerate(predicted):
        whole = matrix(np.array([5.0, -2, 1, *turn_about_z(40)])) @ matrix(pose)
        moved[i, :3] = whole[:3, 3]
        # the product of two quaternions
        a, b = np.array(turn_about_z(40)), pose[3:]
        moved[i, 3:6] = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
        moved[i, 6] = a[3] * b[3] - a[:3] @ b[:3]
    assert error(moved, true) == pytest.approx(error(predicted, true), rel=1e-9)
    assert error(true, true) == pytest.approx((0, 0), abs=1e-6)


def test_bad_input():
    path = random_path(4)
    with pytest.raises(ValueError, match=r"poses of shape \(11, 7\) and \(12, 7\) cannot be compared"):
        error(path[:-1], path)
    with pytest.raises(ValueError, match="12 poses have none 12 steps later"):
        error(path, path, delta=12)
    torn = path.copy()
    torn[3, 3:] = 0
    with pytest.raises(ValueError, match=r"the quaternion of pose 3 has length 0.000, not 1"):
        error(torn, path)
