"""CUDA peak memory of a whole training step, predicted on any machine.

`predict` traces two steps on a device without memory; the `StepTrace` it returns answers for any memory cap. Against real CPU
steps the traced bytes are exact (see the tests); against a GPU they are uncalibrated, which `CALIBRATION` says.
"""

from benchctl.probes.prediction.fake_device import FAKE_DEVICE
from benchctl.probes.prediction.predict import CPU, CUDA, Step, TracedDevice, predict
from benchctl.probes.prediction.trace import CATEGORIES, Category, Failure, PeakMemory, StepTrace

#: shown wherever a predicted figure is; replaced by the residual once steps have been both predicted and measured on a GPU
CALIBRATION = "uncalibrated: no prediction has been paired with a measurement on a GPU"

__all__ = [
    "CALIBRATION",
    "CATEGORIES",
    "CPU",
    "CUDA",
    "FAKE_DEVICE",
    "Category",
    "Failure",
    "PeakMemory",
    "Step",
    "StepTrace",
    "TracedDevice",
    "predict",
]
