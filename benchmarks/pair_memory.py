"""Predicts and measures the same training steps on a machine with a GPU, and writes the pairs: what calibrates the prediction.

    python benchmarks/pair_memory.py pairs.json

Needs torch with CUDA, timm and transformers. Each step runs in a process of its own, so that no cached segment is inherited.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchctl.probes.memory import cuda_peaks, cuda_unavailable, is_out_of_memory
from benchctl.probes.prediction import TracedDevice, predict
from benchctl.probes.prediction.cuda_workspaces import CUBLAS_WORKSPACE_BYTES, CUBLAS_WORKSPACE_BYTES_HOPPER
from benchctl.spec import Attention

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One training step."""

    model: str
    clips: int
    frames: int
    resolution: int
    precision: str
    optimizer: str
    attention: Attention


CASES = [
    *(Case("timesformer-b", 1, 8, r, p, "sgd", "eager") for r in (224, 448) for p in ("fp32", "fp16", "bf16")),
    Case("timesformer-b", 16, 8, 224, "fp32", "sgd", "eager"),
    Case("timesformer-b", 4, 16, 224, "bf16", "adamw", "eager"),
    *(Case("videomae-b", 8, 16, 224, p, "adamw", a) for p in ("fp32", "bf16") for a in ("eager", "sdpa", "math", "efficient")),
    Case("videomae-b", 8, 16, 224, "bf16", "adamw", "flash"),
    *(Case("vit-b", 16, 1, 224, p, "adamw", "sdpa") for p in ("fp32", "fp16", "bf16")),
    *(Case("resnet50", 32, 1, 224, p, "sgd", "auto") for p in ("fp32", "bf16")),
]


class Classifier(nn.Module):
    """Logits of a video or an image model on (B, T, 3, H, W) clips; an image model sees the first frame."""

    def __init__(self, model: nn.Module, video: bool) -> None:
        super().__init__()
        self.model, self.video = model, video

    def forward(self, clips_BTCHW: torch.Tensor) -> torch.Tensor:
        return self.model(clips_BTCHW).logits if self.video else self.model(clips_BTCHW[:, 0])


def build(case: Case) -> nn.Module:
    if case.model in ("vit-b", "resnet50"):
        import timm

        name = {"vit-b": "vit_base_patch16_224", "resnet50": "resnet50"}[case.model]
        return Classifier(timm.create_model(name, num_classes=400), video=False)
    import transformers

    shape = {"num_frames": case.frames, "image_size": case.resolution, "num_labels": 400}
    if case.model == "timesformer-b":
        return Classifier(transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**shape)), video=True)
    backend = "eager" if case.attention == "eager" else "sdpa"
    config = transformers.VideoMAEConfig(**shape, attn_implementation=backend)
    return Classifier(transformers.VideoMAEForVideoClassification(config), video=True)


class Step:
    """Cross-entropy, autocast, scaled gradients in fp16, SGD or AdamW."""

    def __init__(self, model: nn.Module, case: Case) -> None:
        self.model, self.dtype = model, DTYPES[case.precision]
        self.device = next(model.parameters()).device.type
        if case.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=True
            )
        else:
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype is torch.float16)

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(self.device, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            return F.cross_entropy(self.model(batch[0]), batch[1])

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def make_batch(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    clips = torch.zeros(case.clips, case.frames, 3, case.resolution, case.resolution)
    return clips, torch.zeros(case.clips, dtype=torch.long)


def predicted(case: Case) -> dict[str, Any]:
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 9
    device = TracedDevice("cuda", CUBLAS_WORKSPACE_BYTES_HOPPER if hopper else CUBLAS_WORKSPACE_BYTES)
    trace = predict(lambda: build(case), lambda m: Step(m, case), lambda: make_batch(case), attention=case.attention, device=device)
    peak = trace.peak()
    return {"allocated_bytes": peak.allocated_bytes, "reserved_bytes": peak.reserved_bytes, "by_category": dict(peak.by_category)}


def measured(case: Case) -> dict[str, Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = {"math": SDPBackend.MATH, "efficient": SDPBackend.EFFICIENT_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
    allowed = [kernels[case.attention]] if case.attention in kernels else list(kernels.values())

    def run() -> None:
        model = build(case).cuda().train()
        step, batch = Step(model, case), tuple(tensor.cuda() for tensor in make_batch(case))
        for _ in range(2):
            loss = step.forward((batch[0], batch[1]))
            step.backward(loss)
            step.update()
            del loss

    try:
        with sdpa_kernel(allowed):
            peaks = cuda_peaks(run)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {"outcome": "oom"}
    return {f"{p.kind}_bytes": p.value_bytes if p.reason is None else p.reason for p in (peaks.allocated, peaks.reserved, peaks.device)}


def in_a_process(what: str, index: int) -> dict[str, Any]:
    found = subprocess.run([sys.executable, __file__, what, str(index)], capture_output=True, text=True, env=os.environ, check=False)
    if found.returncode:
        return {"error": found.stderr.strip().splitlines()[-1]}
    return json.loads(found.stdout.splitlines()[-1])


def pairs() -> dict[str, Any]:
    rows = []
    for index, case in enumerate(CASES):
        row = {**asdict(case), "predicted": in_a_process("predict", index), "measured": in_a_process("measure", index)}
        for kind in ("allocated_bytes", "reserved_bytes"):
            if all(isinstance(row[side].get(kind), int) for side in ("predicted", "measured")):
                row[f"residual_{kind}"] = row["predicted"][kind] / row["measured"][kind] - 1
        print(json.dumps(row), flush=True)
        rows.append(row)
    return {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "pairs": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="file to write, or 'predict' or 'measure' with a case's number")
    parser.add_argument("index", nargs="?", type=int)
    options = parser.parse_args()
    work: dict[str, Callable[[Case], dict[str, Any]]] = {"predict": predicted, "measure": measured}
    if options.index is not None:
        print(json.dumps(work[options.what](CASES[options.index])))
        return
    reason = cuda_unavailable()
    if reason is not None:
        sys.exit(f"nothing can be paired here: {reason}")
    Path(options.what).write_text(json.dumps(pairs(), indent=2) + "\n")


if __name__ == "__main__":
    main()
