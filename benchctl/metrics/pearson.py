"""Pearson's correlation coefficient: how close predictions are to a straight line of the values, whatever its slope and height."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def correlation(predictions: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float | None:
    """The covariance of both over the product of their deviations, from -1 to 1; None where one of them is constant.

    Args:
        predictions: float64 (clips,).
        values: float64 (clips,), of the same clips.

    Raises:
        ValueError: there is no clip, or they are not of the same clips.
    """
    if predictions.shape != values.shape or predictions.ndim != 1 or not len(values):
        raise ValueError(f"predictions {predictions.shape} and values {values.shape} have no correlation")
    # constancy is asked before the mean is taken: what rounding leaves of a constant would otherwise correlate
    if np.ptp(predictions) == 0 or np.ptp(values) == 0:
        return None
    # scaled first, so that squares neither overflow nor vanish
    x, y = (_centred(each) for each in (predictions, values))
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _centred(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled = (numbers - numbers[0]) / np.ptp(numbers)
    return np.asarray(scaled - scaled.mean())
