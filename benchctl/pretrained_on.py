"""What published weights were trained on before a method takes them over: data, and GPU-hours where they are published.

A method that starts from 400 million pairs of images and texts is not given equally what one is that starts from nothing. So a cell that
is judged says what it brings along, beside what it used.

GPU-hours are as the source prints them, with the GPU; "unknown" where it prints none for that model. Sources: CLIP's section 2.5 (its
largest transformer, 12 days on 256 V100); MOOSE's Table 1 for TimeSformer on Kinetics-400; torchvision's references for video
classification (64 V100 for 24 hours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from benchctl.spec import MethodConfig

UNKNOWN = "unknown"
#: what cells say whose weights are random
NONE = "none"


@dataclass(frozen=True)
class Pretraining:
    """Of one file of weights."""

    data: str
    gpu_hours: str = UNKNOWN


_CLIP = "WebImageText, 400 M pairs of images and texts"
_MERGED = "images without labels, then Merged-2B, 2 G pairs of images and texts"

#: by the name that a method's `weights` has
KNOWN: Mapping[str, Pretraining] = MappingProxyType(
    {
        "timm/vit_base_patch16_clip_224.openai": Pretraining(_CLIP),
        "timm/vit_large_patch14_clip_224.openai": Pretraining(_CLIP, "73,728 on V100"),
        "timm/vit_base_patch16_224.dino": Pretraining("ImageNet-1k without labels"),
        "timm/vit_base_patch14_reg4_dinov2.lvd142m": Pretraining("LVD-142M, 142 M images without labels, from a larger model"),
        "timm/vit_base_patch16_224.mae": Pretraining("ImageNet-1k without labels"),
        "timm/vit_base_patch16_224.augreg_in1k": Pretraining("ImageNet-1k"),
        "timm/eva02_base_patch16_clip_224.merged2b": Pretraining(_MERGED),
        "timm/eva02_large_patch14_clip_224.merged2b": Pretraining(_MERGED),
        "timm/resnet50.tv_in1k": Pretraining("ImageNet-1k"),
        "facebook/timesformer-base-finetuned-k400": Pretraining(
            "ImageNet, then Kinetics-400", "416 on V100 for Kinetics-400, unknown for ImageNet"
        ),
        "MCG-NJU/videomae-base-finetuned-kinetics": Pretraining("Kinetics-400 without labels, then Kinetics-400"),
        "google/vivit-b-16x2-kinetics400": Pretraining("ImageNet-21k, then Kinetics-400"),
        "Sense-X/uniformer_video:uniformer_small_k400_16x4.pth": Pretraining("ImageNet-1k, then Kinetics-400"),
        "Sense-X/uniformer_video:uniformer_base_k400_16x4.pth": Pretraining("ImageNet-1k, then Kinetics-400"),
        "MViT_V2_S_Weights.KINETICS400_V1": Pretraining("Kinetics-400"),
        "Swin3D_T_Weights.KINETICS400_V1": Pretraining("ImageNet-1k, then Kinetics-400"),
        "R2Plus1D_18_Weights.KINETICS400_V1": Pretraining("Kinetics-400", "1,536 on V100"),
        "raft-large": Pretraining("FlyingChairs, FlyingThings3D, Sintel, KITTI and HD1K"),
        "raft-small": Pretraining("FlyingChairs and FlyingThings3D"),
    }
)


def declared(config: MethodConfig) -> dict[str, str]:
    """What the weights that `pretrained: true` loads were trained on: `data` and `gpu_hours`, both in words."""
    found = [KNOWN.get(name, Pretraining(f"{UNKNOWN} ({name})")) for name in config.brings()]
    joined = {key: " + ".join(getattr(each, key) for each in found) for key in ("data", "gpu_hours")}
    return {key: text or UNKNOWN for key, text in joined.items()}
