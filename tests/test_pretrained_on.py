import pytest

from benchctl import lookup
from benchctl.pretrained_on import KNOWN, UNKNOWN, declared
from benchctl.spec import MethodConfig


def config(preset: str, **options: object) -> MethodConfig:
    module = lookup.load("method", preset)
    found: MethodConfig = module.Config.model_validate({**module.PRESETS[preset], **options})
    return found


@pytest.mark.parametrize("preset", sorted(lookup.entries("method")))
def test_what_a_preset_brings_along_is_declared(preset: str):
    brought = config(preset).brings()
    assert set(brought) <= set(KNOWN)
    said = declared(config(preset))
    assert set(said) == {"data", "gpu_hours"}
    assert (said["data"] == UNKNOWN) == (not brought)


def test_hours_are_unknown_where_none_are_published():
    assert declared(config("moss-b")) == {"data": "WebImageText, 400 M pairs of images and texts", "gpu_hours": UNKNOWN}
    # 12 days of 256 GPUs
    assert declared(config("moss-l"))["gpu_hours"] == f"{12 * 24 * 256:,} on V100"


def test_the_network_that_estimates_flow_is_declared_too():
    said = declared(config("moose-b", precomputed=True))
    assert (
        said["data"] == "LVD-142M, 142 M images without labels, from a larger model + FlyingChairs, FlyingThings3D, Sintel, KITTI and HD1K"
    )
    assert said["gpu_hours"] == "unknown + unknown"
    assert "+" not in declared(config("moose-b", flow="dis"))["data"]


def test_weights_of_ones_own_are_unknown_by_name():
    assert declared(config("videomae-b", weights="me/mine"))["data"] == "unknown (me/mine)"
