"""A device on which tensors have shapes, types and storages, but no memory: the stand-in for a GPU.

`FakeTensorMode` with `device="cuda"` needs a driver as soon as the backward pass starts. torch's extension point for third-party
devices, PrivateUse1, does not: tensors of `FAKE_DEVICE` go through the same autograd engine, autocast and optimizers as CUDA
tensors, and every kernel is a shape rule.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from benchctl.errors import TraceFailed
from benchctl.probes.prediction import attention, autocast

#: what `tensor.device.type` says, and therefore what `torch.autocast(device_type=...)` and `GradScaler(device=...)` take
FAKE_DEVICE = "fakecuda"

_UNNAMED = "privateuseone"


def register() -> None:
    """Make `FAKE_DEVICE` known to torch, with CUDA's autocast lists and attention kernels. Does nothing the second time.

    Raises:
        TraceFailed: another package owns torch's one slot for extra devices, or this torch has no Python backends.
    """
    owner = torch._C._get_privateuse1_backend_name()
    if owner == FAKE_DEVICE:
        return
    if owner != _UNNAMED:
        raise TraceFailed(
            f"the device '{owner}' takes torch's one slot for extra devices", fix="predict in a process that does not import it"
        )
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:
        raise TraceFailed(f"torch {torch.__version__} cannot host a device written in Python", fix="install torch 2.11 or later") from None
    _setup_privateuseone_for_python_backend(FAKE_DEVICE, backend_module=_FakeDeviceModule())
    autocast.register(FAKE_DEVICE)
    attention.register()


class _FakeDeviceModule:
    """What torch looks up under `torch.fakecuda`: one device that is always ready and has nothing to wait for."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def set_device(self, device: object) -> None:
        """There is one device; it is always the current one."""

    def device(self, _: object) -> nullcontext[None]:
        return nullcontext()

    def synchronize(self, device: object = None) -> None:
        """Nothing runs, so nothing is awaited."""

    def manual_seed_all(self, seed: int) -> None:
        """No random number is ever drawn on this device."""

    def get_rng_state(self, _: object = 0) -> torch.Tensor:
        # activation checkpointing saves and restores the state; its content is never read
        return torch.empty(16, dtype=torch.uint8, device="cpu")

    def set_rng_state(self, state: torch.Tensor, device: object = 0) -> None:
        """See `get_rng_state`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def _is_in_bad_fork(self) -> bool:
        return False
