"""The network of all generative recipes: a U-Net over a stack of fluence maps, along one or more arcs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_vmat.networks.arc_blocks import ArcAttention, NoiseEmbedding, ResidualBlock, to_patches
from lightning_vmat.networks.arc_channels import ARC_CHANNELS, joined_points


class FluenceDenoiser(nn.Module):
    """U-Net that halves the maps from level to level and keeps every control point.

    Only the maps are resampled, so that any number of control points fits and the network is exactly equivariant to
    rotations of the arc. The condition is concatenated to the input as channels. A network with `arcs` knows where arcs
    begin and end; it is equivariant to rotations of a single full turn, and to the order of several arcs. A network
    without takes all control points for one ring.

    Args:
        condition_channels: number of condition channels. Left out in a configuration, it is derived from the structures
            and wishes of the data.
        channels: width of each level, multiples of 8; the maps' sides must divide by `patch * 2 ** (levels - 1)`.
        blocks: residual blocks in each level on the way down.
        heads: attention heads of the lowest level, along the arc.
        embedding: width of the noise embedding.
        patch: side of the squares of beamlets that become the channels of one position at the first level. With 2, a
            network of base size is 2.5 times faster than with an additional first level of single beamlets.
        recompute: whether to recompute activations inside the blocks in the backward pass instead of storing them.
        arcs: whether the condition ends with `ARC_CHANNELS`, at whose ends convolutions stop. Left out in a
            configuration, it is that of the data.

    Raises:
        ValueError: no condition channels, widths that are not multiples of 8, or maps and conditions that do not fit.
    """

    def __init__(
        self,
        condition_channels: int | None = None,
        channels: Sequence[int] = (32, 64, 64),
        blocks: int = 1,
        heads: int = 4,
        embedding: int = 64,
        patch: int = 1,
        recompute: bool = False,
        arcs: bool = False,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"denoiser patch is {patch}, expected at least 1")
        if condition_channels is None:
            raise ValueError("denoiser condition_channels: missing, expected the number of condition channels")
        if not channels or any(width < 8 or width % 8 for width in channels):
            raise ValueError(f"denoiser channels {list(channels)}: expected multiples of 8")
        if arcs and condition_channels < len(ARC_CHANNELS):
            raise ValueError(f"denoiser condition_channels {condition_channels}: expected those of the arcs among them")
        self.condition_channels = condition_channels
        self.arcs = arcs
        self.recompute = recompute
        self.patch = patch
        self.reduction = patch * 2 ** (len(channels) - 1)
        self.embed = NoiseEmbedding(embedding)
        self.stem = nn.Conv3d((1 + condition_channels) * patch**2, channels[0], (1, 3, 3), padding=(0, 1, 1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            before = channels[max(level - 1, 0)]
            self.down.append(
                nn.ModuleList(ResidualBlock(before if i == 0 else width, width, embedding) for i in range(blocks))
            )
        self.middle = ArcAttention(channels[-1], heads)
        for level in reversed(range(len(channels) - 1)):
            self.up.append(ResidualBlock(channels[level + 1] + channels[level], channels[level], embedding))
        self.head = nn.Sequential(
            nn.GroupNorm(8, channels[0]), nn.SiLU(), nn.Conv3d(channels[0], patch**2, (1, 3, 3), padding=(0, 1, 1))
        )
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]

    def forward(
        self,
        x: Float[Tensor, "batch control_point leaf_pair beamlet"],
        c_noise: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch channel control_point leaf_pair beamlet"],
    ) -> Float[Tensor, "batch control_point leaf_pair beamlet"]:
        """Returns the raw output `F(x; c_noise, condition)`, from which preconditioning makes clean maps."""
        self._check(x, condition)
        embedding = self.embed(c_noise)
        joined = joined_points(condition) if self.arcs else None
        h = self.stem(self._to_patches(torch.cat((x[:, None], condition), dim=1)))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                skips.append(h)
                h = F.avg_pool3d(h, (1, 2, 2))
            for block in blocks:  # type: ignore[attr-defined]
                h = self._call(block, h, embedding, joined)
        h = self._call(self.middle, h)
        for block in self.up:
            h = h.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            h = self._call(block, torch.cat((h, skips.pop()), dim=1), embedding, joined)
        return self._from_patches(self.head(h))[:, 0]

    def _to_patches(self, maps: Float[Tensor, "batch channel cp lp b"]) -> Float[Tensor, "batch patch cp row column"]:
        return to_patches(maps, self.patch)

    def _from_patches(self, h: Float[Tensor, "batch patch cp row column"]) -> Float[Tensor, "batch channel cp lp b"]:
        return rearrange(h, "n (channel p q) cp lp b -> n channel cp (lp p) (b q)", p=self.patch, q=self.patch)

    def _call(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]
        return block(*inputs)  # type: ignore[no-any-return]

    def _check(self, x: Tensor, condition: Tensor) -> None:
        if condition.shape != (len(x), self.condition_channels, *x.shape[1:]):
            expected = (len(x), self.condition_channels, *x.shape[1:])
            raise ValueError(f"condition of shape {tuple(condition.shape)}, expected {expected}")
        if x.shape[2] % self.reduction or x.shape[3] % self.reduction:
            raise ValueError(f"fluence maps of {tuple(x.shape[2:])}: expected multiples of {self.reduction}")
