"""DeepSpeed as an engine: ZeRO, offload, half-precision weights (Rajbhandari et al. 2020, Ren et al. 2021).

What is told apart here from what DeepSpeed would do by itself:

- The optimizer is torch's, over the groups that every engine has. One that is named in DeepSpeed's configuration is compiled at its first
  use, which takes minutes and a compiler, and is not the same optimizer.
- Its operator for shared memory between CPU ranks is switched off before it is compiled.
- Autocast is the model's own affair, inside its forward pass: DeepSpeed switches off one that is around it.
- Checkpoints are not DeepSpeed's: weights and optimizer state are put together by the names of the parameters, as every engine keeps them,
  so that any number of ranks can go on.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchctl.engine.step import Batch, TrainingStep, autocast
from benchctl.launch import Launch
from benchctl.recipe import Recipe
from benchctl.spec import Objective, Precision

#: most elements of a bucket of gradients or weights that is sent at once: 200 MB of fp32
BUCKET_ELEMENTS = 50_000_000
#: weights of fewer elements stay whole on every rank at stage 3
PERSISTENT_ELEMENTS = 10_000
SUB_GROUP_ELEMENTS = 1_000_000_000


def configuration(
    launch: Launch, recipe: Recipe, precision: Precision, *, batch_size: int, micro_batch: int, elements: int
) -> dict[str, Any]:
    """What DeepSpeed is told; batches are counted in clips, buckets in elements, of which the model has so many."""
    # buffers of that size are there for as long as anything is sent; a small model needs no large one
    bucket = min(BUCKET_ELEMENTS, elements + elements % 2)
    zero: dict[str, Any] = {
        "stage": launch.zero,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_prefetch_bucket_size": bucket,
        "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
        "stage3_max_live_parameters": bucket,
        "stage3_max_reuse_distance": bucket,
        "sub_group_size": SUB_GROUP_ELEMENTS,
    }
    if launch.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if launch.offload == "parameters":
        zero["offload_param"] = {"device": "cpu"}
    half = launch.half == "weights"
    return {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_clipping": recipe.clip_gradient_norm or 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half and precision == "bf16"},
        "fp16": {"enabled": half and precision == "fp16"},
        "steps_per_print": 1_000_000_000,
    }


class DeepSpeedStep(TrainingStep):
    """One rank's part of a step by DeepSpeed."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        precision: Precision,
        objective: Objective = "classes",
        *,
        launch: Launch,
        batch_size: int,
        micro_batch: int,
    ) -> None:
        """Divide the model among the ranks, which have joined before."""
        half = launch.half == "weights"
        super().__init__(model, recipe, precision, objective)
        self._launch = launch
        self.scaler = None
        self.forward_together = launch.divides
        if precision != "fp32" and not half:
            model.forward = _autocast(model.forward, precision, self.device_type)
        deepspeed = _imported(self.device_type)
        elements = sum(parameter.numel() for parameter in model.parameters())
        config = configuration(launch, recipe, precision, batch_size=batch_size, micro_batch=micro_batch, elements=elements)
        #: DeepSpeed's own
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=config, dist_init_required=False, model_parameters=None
        )
        self._cast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision) if half else None
        self.called = self.engine

    @property
    def judged(self) -> nn.Module:
        """What gathers divided weights as it comes to them; the model itself where they are whole."""
        return _Judged(self.engine if self._launch.divides else self.model, self._cast)

    def forward(self, batch: Batch) -> Tensor:
        """As in one process; weights that are half precision take half-precision inputs."""
        inputs, labels = batch
        if self._cast is not None:
            inputs = tuple(tensor.to(self._cast) for tensor in inputs)
        return super().forward((inputs, labels))

    def learn(self, micro_batches: Sequence[Batch]) -> Tensor:
        """As one process; DeepSpeed divides the losses, and knows which micro-batch is the last."""
        losses = []
        for micro_batch in micro_batches:
            loss = self.forward(micro_batch)
            self.engine.backward(loss)
            self.engine.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def set_learning_rate(self, rate: float) -> None:
        """For the next update."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate

    @property
    def _zero(self) -> bool:
        """Whether a ZeRO optimizer is there: not at stage 0 with fp32 weights."""
        return hasattr(self.engine.optimizer, "optimizer")

    @property
    def _base(self) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = self.engine.optimizer.optimizer if self._zero else self.engine.optimizer
        return found

    def weights(self) -> dict[str, Tensor]:
        """The whole model in fp32, put together parameter by parameter."""
        from deepspeed.utils import safe_get_full_fp32_param

        found = {name: value.detach().cpu() for name, value in self._buffers()}
        for name, parameter in self.model.named_parameters():
            whole = safe_get_full_fp32_param(parameter) if parameter.requires_grad and self._launch.zero else None
            found[name] = (self._whole(parameter) if whole is None else whole).detach().float().cpu().clone()
        order = self.model.state_dict().keys()
        return {name: found[name] for name in order}

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        kept = self.model.state_dict().keys()
        return ((name, value) for name, value in self.model.named_buffers() if name in kept)

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        """A parameter as every rank has it, or as all of them have it together."""
        if not self._launch.divides:
            return parameter.detach()
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def state(self) -> dict[str, Any]:
        """As every engine's: whole weights and optimizer state, by the names of the parameters."""
        if not self._launch.zero:
            # torch's optimizer over whole weights
            content = super().state()
            content["scaler"] = self._scaler_state()
            return content
        from deepspeed.utils import safe_get_full_optimizer_state

        flat = self._base.state
        if flat:
            self._link()
        common: dict[str, Any] = next(iter(flat.values()), {})
        divided = [key for key, value in common.items() if torch.is_tensor(value) and key != "step"]
        equal = {key: value for key, value in common.items() if key not in divided}
        kept: dict[str, dict[str, Any]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and flat:
                whole = {key: safe_get_full_optimizer_state(parameter, key).reshape(_shape(parameter)).cpu().clone() for key in divided}
                # a copy for each: optimizers count steps up in place
                kept[name] = {**{key: value.clone() if torch.is_tensor(value) else value for key, value in equal.items()}, **whole}
        return {"model": self.weights(), "optimizer": kept, "scaler": self._scaler_state()}

    def restore(self, content: dict[str, Any]) -> None:
        """Take over what the `state` of any engine gave, whatever the number of its ranks."""
        if not self._launch.zero:
            super().restore({**content, "scaler": None})
        else:
            self._restore_weights(content["model"])
            self._restore_optimizer(content["optimizer"])
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        if scaler is not None and content["scaler"]:
            vars(scaler).update(content["scaler"])

    def _restore_weights(self, whole: dict[str, Tensor]) -> None:
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        with torch.no_grad():
            for name, buffer in self._buffers():
                buffer.copy_(whole[name])
            for name, parameter in self.model.named_parameters():
                value = whole[name].to(self.device)
                if self._launch.divides:
                    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                        parameter.copy_(value)
                else:
                    parameter.copy_(value)
                if parameter.requires_grad:
                    safe_set_full_fp32_param(parameter, value)

    def _restore_optimizer(self, whole: dict[str, dict[str, Any]]) -> None:
        """Optimizer state lies in flat partitions that come into being with the first step: they are made here, then filled."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not whole:
            return
        zero = self.engine.optimizer
        common = next(iter(whole.values()))
        divided = [key for key, value in common.items() if torch.is_tensor(value) and key != "step"]
        partitions = zero.fp32_partitioned_groups_flat if self._launch.divides else zero.single_partition_of_fp32_groups
        for flat in partitions:
            # a number of steps of its own for each, which the optimizer counts up in place
            equal = {key: value.clone() if torch.is_tensor(value) else value for key, value in common.items() if key not in divided}
            self._base.state[flat] = {**equal, **{key: torch.zeros_like(flat) for key in divided}}
        self._link()
        for name, parameter in self.model.named_parameters():
            for key in divided if name in whole else ():
                safe_set_full_optimizer_state(parameter, whole[name][key].to(self.device), key)

    def _link(self) -> None:
        """At stages 1 and 2: let parameters find their part of the optimizer's state.

        DeepSpeed does so once, when the first group of parameters has made its first step and the others have no state yet.
        """
        if not self._launch.divides:
            zero = self.engine.optimizer
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _scaler_state(self) -> dict[str, Any] | None:
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        if scaler is None:
            return None
        return {name: value for name, value in vars(scaler).items() if isinstance(value, bool | int | float)}

    def close(self) -> None:
        """Give back hooks and buffers."""
        self.engine.destroy()


class _Judged(nn.Module):
    """What is called to judge: inputs as the weights have them."""

    def __init__(self, called: nn.Module, cast: torch.dtype | None) -> None:
        super().__init__()
        self.called = called
        self._cast = cast

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the model's."""
        answer: Tensor = self.called(*(tensor.to(self._cast) if self._cast is not None else tensor for tensor in inputs))
        return answer


def _shape(parameter: nn.Parameter) -> torch.Size:
    """The whole parameter's, also where a rank has a part of it."""
    found: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return found


def _autocast(forward: Any, precision: Precision, device_type: str) -> Any:
    @functools.wraps(forward)
    def inside(*inputs: Tensor) -> Tensor:
        with autocast(precision, device_type):
            answer: Tensor = forward(*inputs)
        return answer

    return inside


def _imported(device_type: str) -> Any:
    """DeepSpeed, on the device that is trained on, and silent but for warnings."""
    if device_type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.comm
    import deepspeed.ops

    # compiled at its first use otherwise, for shared memory between CPU ranks
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.comm.init_distributed(dist_init_required=False)
    return deepspeed
