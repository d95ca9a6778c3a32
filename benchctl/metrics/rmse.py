"""Root mean squared error, in the unit of what is predicted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def error(predictions: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float:
    """The square root of the mean squared difference.

    Args:
        predictions: float64 (clips,).
        values: float64 (clips,), of the same clips.

    Raises:
        ValueError: there is no clip, or they are not of the same clips.
    """
    if predictions.shape != values.shape or predictions.ndim != 1 or not len(values):
        raise ValueError(f"predictions {predictions.shape} and values {values.shape} have no error")
    return float(np.sqrt(np.mean((predictions - values) ** 2)))
