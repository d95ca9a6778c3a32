"""Relative pose error: how far a predicted path drifts from the true one from each pose to one some steps later.

Source: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems" (IROS 2012): E_i = (Q_i^-1 Q_i+d)^-1 (P_i^-1 P_i+d) for true
poses Q and predicted poses P. Translational errors are the norms of the translations of E_i, rotational ones the angles of their
rotations. Moving either path as a whole changes nothing.

No data set here carries poses: what loads ADVIO, in whose evaluation MovT's paper uses this, is still to be written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: how far from 1 the norm of a quaternion may be
_UNIT = 1e-3

Floats = npt.NDArray[np.float64]


class RelativePoseError(NamedTuple):
    """Root mean squares over all steps."""

    #: in the unit of the positions
    translation: float
    degrees: float


def error(predicted_T7: Floats, true_T7: Floats, delta: int = 1) -> RelativePoseError:
    """The relative pose error of one path.

    Args:
        predicted_T7: poses x, y, z and a unit quaternion x, y, z, w: float64 (T, 7).
        true_T7: the same of the true path.
        delta: steps from a pose to the one it is compared with.

    Raises:
        ValueError: they differ in length or have fewer than `delta` + 1 poses, or a quaternion is not of unit length.
    """
    if predicted_T7.shape != true_T7.shape or predicted_T7.ndim != 2 or predicted_T7.shape[1] != 7:
        raise ValueError(f"poses of shape {predicted_T7.shape} and {true_T7.shape} cannot be compared: both must be (T, 7)")
    if not 1 <= delta < len(true_T7):
        raise ValueError(f"{len(true_T7)} poses have none {delta} steps later")
    (predicted_turns, predicted_moves), (true_turns, true_moves) = (_relative(poses, delta) for poses in (predicted_T7, true_T7))
    back = true_turns.transpose(0, 2, 1)
    moves = np.einsum("tij,tj->ti", back, predicted_moves - true_moves)
    cosines = (np.trace(back @ predicted_turns, axis1=1, axis2=2) - 1) / 2
    # the sine as well: near 0 the cosine alone tells small angles badly
    turns = back @ predicted_turns
    skew = np.stack([turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]], axis=1) / 2
    angles = np.arctan2(np.linalg.norm(skew, axis=1), cosines)
    return RelativePoseError(float(np.sqrt((moves**2).sum(1).mean())), float(np.degrees(np.sqrt((angles**2).mean()))))


def _relative(poses_T7: Floats, delta: int) -> tuple[Floats, Floats]:
    """Rotations (T - delta, 3, 3) and translations (T - delta, 3) from each pose to the one `delta` steps later, in its own frame."""
    rotations = _rotations(poses_T7[:, 3:])
    back = rotations[:-delta].transpose(0, 2, 1)
    moves = poses_T7[delta:, :3] - poses_T7[:-delta, :3]
    return back @ rotations[delta:], np.einsum("tij,tj->ti", back, moves)


def _rotations(quaternions_T4: Floats) -> Floats:
    """Unit quaternions x, y, z, w to rotation matrices (T, 3, 3)."""
    norms = np.linalg.norm(quaternions_T4, axis=1)
    wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT)
    if len(wrong):
        raise ValueError(f"the quaternion of pose {wrong[0]} has length {norms[wrong[0]]:.3f}, not 1")
    x, y, z, w = (quaternions_T4 / norms[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
