"""MovT, a transformer over tracks, alone or beside another network (Davison, Hao and Sevilla-Lara, "It's a Matter of Time", 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from benchctl.layers.clip_input import check_input
from benchctl.layers.point_transformer import PointSizes, PointTransformer, TrackTokens, initialise, point_head
from benchctl.layers.pretrained import RANDOM
from benchctl.spec import ClipTracks, ModelSpec

# B batch, T frames, N points, C width


class MovT(nn.Module):
    """Tracks to logits.

    Args:
        spec: shape, classes and attention backend; its config may be another method's.
        sizes: of the transformer.
        tracks: what is read.
    """

    def __init__(self, spec: ModelSpec, sizes: PointSizes, tracks: ClipTracks) -> None:
        super().__init__()
        self.expected = (tracks.frames, tracks.points, 3)
        self.tokens = TrackTokens(sizes.point_width)
        self.transformer = PointTransformer(sizes, sizes.attention(spec.attention))
        self.head = point_head(sizes.point_width, spec.num_classes)
        initialise(self)
        self.weights = RANDOM

    def forward(self, tracks_BTN3: Tensor) -> Tensor:
        """(B, T, N, 3), x and y from -1 to 1 and 1 where visible, to logits (B, classes)."""
        return self.judge(self.features(tracks_BTN3))

    def features(self, tracks_BTN3: Tensor) -> Tensor:
        """A token for each point: (B, N, C)."""
        check_input(tracks_BTN3, self.expected, "track")
        features: Tensor = self.transformer(self.tokens(tracks_BTN3))
        return features

    def judge(self, tokens_BNC: Tensor) -> Tensor:
        """(B, N, C) to logits (B, classes)."""
        logits: Tensor = self.head(tokens_BNC.mean(1))
        return logits
