"""What methods around an image encoder have in common: their input, a classifier, and where their weights come from."""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.side_network import SideTuned
from benchctl.layers.video_transformer import VideoTransformer
from benchctl.spec import ModelSpec

# B batch, T frames, D channels of a clip's feature

V = TypeVar("V", bound=SideTuned | VideoTransformer)


class VideoClassifier(nn.Module, Generic[V]):
    """Clips to logits; the encoder inside has its published weights where they are asked for.

    Args:
        spec: shape, number of classes, and whether published weights are loaded.
        video: what makes features of clips: (B, T, 3, H, W) to (B, D), with an `encoder`.
        width: D.
        rest: what no published weights are for, in words.
        dropout: before the classifier.
        front: checks and prepares what the model is given; None: frames as they are.

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """

    def __init__(self, spec: ModelSpec, video: V, width: int, *, rest: str, dropout: float = 0.0, front: nn.Module | None = None) -> None:
        super().__init__()
        self.input = front or ClipInput(spec)
        self.video = video
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, spec.num_classes)
        self._rest = rest
        if spec.pretrained:
            video.encoder.load(published(spec.config))

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        loaded = self.video.encoder.weights
        return RANDOM if loaded == RANDOM else f"{loaded}, {self._rest} {RANDOM}"

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        return self.classify(self.video(self.input(clip_BTCHW)))

    def classify(self, feature_BD: Tensor) -> Tensor:
        """(B, D) to logits (B, classes)."""
        logits: Tensor = self.classifier(self.dropout(feature_BD))
        return logits
