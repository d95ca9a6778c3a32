"""Parts of a model that autocast leaves alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device_type: str) -> AbstractContextManager[None]:
    """Autocast off on `device_type`; nothing where there is no autocast, as on the meta device."""
    return torch.autocast(device_type, enabled=False) if torch.amp.is_autocast_available(device_type) else nullcontext()
