"""How many processes train a cell together, and by which engine."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveFloat, model_validator

from benchctl.vocabulary import Count, Vocabulary

EngineName = Literal["plain", "deepspeed"]
#: ZeRO (Rajbhandari et al. 2020): 1 divides the optimizer's state among the ranks, 2 gradients too, 3 weights too
ZeroStage = Literal[0, 1, 2, 3]
#: what lies in the memory of the CPU and not in that of the GPU; `parameters`: those, and the optimizer's state
Offload = Literal["none", "optimizer", "parameters"]
#: what fp16 and bf16 mean: `autocast`: weights are fp32, as without a launch; `weights`: they are cast, with fp32 copies in the optimizer
HalfPrecision = Literal["autocast", "weights"]


class Launch(Vocabulary):
    """Several processes, one for each GPU (on a machine without any: CPU processes), that train one cell together.

    The batch of the cell's shape is that of all of them together: micro-batch x accumulation x ranks.
    """

    engine: EngineName = "plain"
    #: ZeRO stage; of DeepSpeed
    zero: ZeroStage = 0
    #: processes on each node
    gpus: Count = 1
    nodes: Count = 1
    #: of DeepSpeed
    offload: Offload = "none"
    #: clips of one forward pass of one rank; null: its whole share of the batch; `auto`: the most that the predicted memory allows
    micro_batch: Count | Literal["auto"] | None = None
    #: of DeepSpeed
    half: HalfPrecision = "autocast"
    #: compute activations again in the backward pass instead of keeping them, block by block
    activation_checkpointing: bool = False
    #: a rank that makes no progress for this long is hung
    hang_timeout_s: PositiveFloat = 600.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.engine == "plain":
            for name, plain in (("zero", 0), ("offload", "none"), ("half", "autocast")):
                if (value := getattr(self, name)) != plain:
                    raise ValueError(f"'{name}: {value}' is of DeepSpeed: add 'engine: deepspeed', or leave it out")
        if self.offload == "parameters" and self.zero != 3:
            raise ValueError(f"'offload: parameters' needs 'zero: 3', which divides them; at stage {self.zero} use 'offload: optimizer'")
        if self.offload == "optimizer" and self.zero == 0:
            raise ValueError("'offload: optimizer' needs 'zero: 1' or more: stage 0 keeps the optimizer's state on each GPU")
        return self

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.gpus * self.nodes

    def __str__(self) -> str:
        """As tables say it: `deepspeed zero2 8 ranks`."""
        parts: list[str] = [self.engine if self.engine == "deepspeed" else "ddp" if self.ranks > 1 else "plain"]
        if self.engine == "deepspeed":
            parts.append(f"zero{self.zero}")
        parts.append(f"{self.ranks} rank{'s' if self.ranks > 1 else ''}")
        if self.nodes > 1:
            parts.append(f"on {self.nodes} nodes")
        if self.offload != "none":
            parts.append(f"offload {self.offload}")
        if self.half == "weights":
            parts.append("half weights")
        if self.micro_batch is not None:
            parts.append(f"micro {self.micro_batch}")
        if self.activation_checkpointing:
            parts.append("recomputed")
        return " ".join(parts)

    @property
    def divides(self) -> bool:
        """Whether a rank holds only a part of the weights."""
        return self.zero == 3

    def misfit(self, batch_size: int, precision: str) -> tuple[str, str] | None:
        """Why steps of `batch_size` clips cannot be made like this, and what helps; None: they can."""
        if batch_size % self.ranks:
            below = batch_size // self.ranks * self.ranks
            near = f"{below} or {below + self.ranks}" if below else f"{self.ranks}"
            return f"a batch of {batch_size} clips cannot be divided among {self.ranks} ranks", f"use a batch size of {near}"
        share = batch_size // self.ranks
        if isinstance(self.micro_batch, int) and share % self.micro_batch:
            divisors = ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
            what = f"micro-batches of {self.micro_batch} x {self.ranks} ranks do not add up to a batch of {batch_size} clips"
            return what, f"use a micro-batch of {divisors}"
        if self.engine == "deepspeed" and self.half == "autocast" and precision == "fp16":
            what = "fp16 by autocast needs a loss scaler, and DeepSpeed's is of its fp16 weights"
            return what, "set 'precision: bf16', or 'half: weights'"
        if self.half == "weights" and precision == "fp32":
            return "'half: weights' is about fp16 and bf16, and the precision is fp32", "leave it out, or set 'precision: bf16'"
        if self.half == "weights" and precision == "bf16" and self.zero == 0:
            return (
                "bf16 weights at ZeRO stage 0 are trained wrongly by DeepSpeed: starting its optimizer makes a real step",
                "use 'zero: 1' or more, or 'half: autocast'",
            )
        return None

    def micro_batches(self, batch_size: int) -> tuple[int, ...]:
        """Clips of one forward pass of one rank that are possible, from the most to the fewest."""
        share = batch_size // self.ranks
        if isinstance(self.micro_batch, int):
            return (self.micro_batch,)
        if self.micro_batch is None:
            return (share,)
        return tuple(n for n in range(share, 0, -1) if share % n == 0)
