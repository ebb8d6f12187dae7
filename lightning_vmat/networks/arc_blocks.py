"""Network blocks for stacks of fluence maps, along the control points of arcs.

Without `joined` all control points form a ring. With it (1 where a control point is joined to the next one, else 0, see
`arc_channels`) a convolution stays within an arc.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Joined = Float[Tensor, "batch cp"] | None


def to_patches(
    maps: Float[Tensor, "batch channel cp lp b"], patch: int
) -> Float[Tensor, "batch patch_channel cp row column"]:
    """Rearranges squares of `patch` by `patch` beamlets into channels of one position."""
    return rearrange(maps, "n channel cp (lp p) (b q) -> n (channel p q) cp lp b", p=patch, q=patch)


class ArcConvolution(nn.Module):
    """A convolution within each map (kernel 3 x 3), then one along the arc (kernel 3).

    It has twelve taps instead of the 27 of a full 3-D kernel. On a ring it has no seam between the last and the first
    control point; beyond the end of an arc there is zero.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_map = nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))
        self.along_arc = nn.Conv2d(out_channels, out_channels, (3, 1))  # over (cp, lp b): faster than in 3-D

    def forward(
        self, x: Float[Tensor, "batch channel cp lp b"], joined: Joined = None
    ) -> Float[Tensor, "batch out cp lp b"]:
        """Returns the convolved maps."""
        h = self.in_map(x)
        if joined is not None:
            return self._within_arcs(h.flatten(3), joined).view(h.shape)
        ring = F.pad(h.flatten(3), (0, 0, 1, 1), mode="circular")
        maps: Tensor = self.along_arc(ring).view(h.shape)
        return maps

    def _within_arcs(
        self, h: Float[Tensor, "batch out cp place"], joined: Float[Tensor, "batch cp"]
    ) -> Float[Tensor, "batch out cp place"]:
        """Convolves along the arc with the neighbours to which each control point is joined."""
        link = joined[:, None, :, None].to(h)
        neighbours = torch.cat(((h * link).roll(1, dims=2), h, h.roll(-1, dims=2) * link), dim=1)
        taps = self.along_arc.weight.permute(0, 2, 1, 3).flatten(1, 2)[..., None]  # [out, tap x in, 1, 1]
        return F.conv2d(neighbours, taps, self.along_arc.bias)


class ResidualBlock(nn.Module):
    """Two arc convolutions with group norm; the noise embedding scales and shifts the features between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int = 8) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.first = ArcConvolution(in_channels, out_channels)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels, affine=False)
        self.second = ArcConvolution(out_channels, out_channels)
        self.skip = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.second.along_arc.weight)  # the block starts as its skip connection

    def forward(
        self,
        x: Float[Tensor, "batch channel cp lp b"],
        embedding: Float[Tensor, "batch embedding"],
        joined: Joined = None,
    ) -> Float[Tensor, "batch out cp lp b"]:
        """Returns the skip connection plus the modulated residual."""
        h = self.first(F.silu(self.norm_in(x)), joined)
        scale, shift = self.modulation(embedding)[:, :, None, None, None].chunk(2, dim=1)
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        return self.skip(x) + self.second(h, joined)  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence, without bias in queries, keys and values.

    Parameters, their initialisation and the arithmetic are those of MONAI's `SABlock`, so weights fit both. `SABlock`
    itself is not used because importing MONAI takes longer than running all networks of a plan.

    Args:
        channels: number of channels at each position of the sequence.
        heads: number of heads.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"attention of {channels} channels and {heads} heads: expected heads that divide channels")
        self.heads = heads
        self.out_proj = nn.Linear(channels, channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, x: Float[Tensor, "batch place channel"]) -> Float[Tensor, "batch place channel"]:
        """Returns the attended sequence."""
        qkv = rearrange(self.qkv(x), "batch place (part head c) -> part batch head place c", part=3, head=self.heads)
        attended = F.scaled_dot_product_attention(*qkv)
        mixed: Tensor = self.out_proj(rearrange(attended, "batch head place c -> batch place (head c)"))
        return mixed


class ArcAttention(nn.Module):
    """Self-attention along the arc at each position of the map, so that opposed control points see each other.

    Control points of several arcs see each other too, because their doses add up. There is no positional encoding, so
    the block is equivariant to rotations of the arc; which arc a control point belongs to is told by the condition.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, x: Float[Tensor, "batch channel cp lp b"]) -> Float[Tensor, "batch channel cp lp b"]:
        """Returns the maps plus their attention along the arc."""
        rings = rearrange(x, "batch channel cp lp b -> (batch lp b) cp channel")
        update = self.attention(self.norm(rings))
        _, _, _, rows, columns = x.shape
        update = rearrange(update, "(batch lp b) cp channel -> batch channel cp lp b", lp=rows, b=columns)
        attended: Tensor = x + update
        return attended


class NoiseEmbedding(nn.Module):
    """Sines and cosines of `c_noise` (about -1.5 to 1) at octaves from 1/8 to 16 periods per unit, then two layers."""

    def __init__(self, width: int, octaves: int = 8) -> None:
        super().__init__()
        self.frequency: Tensor
        self.register_buffer("frequency", torch.pi / 4 * 2.0 ** torch.arange(octaves), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * octaves, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, c_noise: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Returns the embedding of each noise level."""
        phase = c_noise[:, None] * self.frequency
        return self.layers(torch.cat((phase.sin(), phase.cos()), dim=1))  # type: ignore[no-any-return]
