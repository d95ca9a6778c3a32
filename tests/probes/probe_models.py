"""Models and a training step for the tests of the probes. Nothing here comes from the engine: the probes do not know it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class PlainStep:
    """Cross-entropy, clipping and an optimizer, as in any training loop."""

    def __init__(self, model: nn.Module, optimizer: str = "sgd", dtype: torch.dtype | None = None, scaled: bool = False) -> None:
        self.model, self.dtype = model, dtype
        self.device = next(model.parameters()).device.type
        trained = [p for p in model.parameters() if p.requires_grad]
        if optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
        else:
            self.optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=True)
        self.scaler = torch.amp.GradScaler(self.device, enabled=scaled)

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(self.device, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            return F.cross_entropy(self.model(batch[0]), batch[1])

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def step(**options: Any) -> Callable[[nn.Module], PlainStep]:
    return lambda model: PlainStep(model, **options)


def batch(*shape: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    return lambda: (torch.randn(*shape), torch.zeros(shape[0], dtype=torch.long))


def run_for_real(build: Callable[[], nn.Module], make_step: Callable[[nn.Module], PlainStep], make_batch: Callable[[], Any]) -> None:
    model, data = build().train(), make_batch()
    training = make_step(model)
    for _ in range(2):
        loss = training.forward(data)
        training.backward(loss)
        training.update()
        del loss


class Logits(nn.Module):
    """A `transformers` classifier that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.model(clips).logits


def timesformer(**config: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        return Logits(TimesformerForVideoClassification(TimesformerConfig(**{"num_labels": 400, **config})))

    return build


def videomae(**config: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        return Logits(VideoMAEForVideoClassification(VideoMAEConfig(**{"num_labels": 400, **config})))

    return build


SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384, "num_labels": 10}


def timm_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=10, **options)

    return build


class Mlp(nn.Module):
    """Two layers with a wide middle: small enough to count by hand."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


class Attending(nn.Module):
    """One call of scaled-dot-product attention: heads of `head_dim`, `mask` as given."""

    def __init__(self, heads: int = 4, head_dim: int = 64, **options: Any) -> None:
        super().__init__()
        self.heads, self.options = heads, options
        self.qkv = nn.Linear(heads * head_dim, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        options = dict(self.options)
        if options.pop("masked", False):
            options["attn_mask"] = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self.out(F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2).mean(1))
