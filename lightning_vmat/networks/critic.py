"""The critic, which discriminates maps of reference plans from generated ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.networks.arc_blocks import NoiseEmbedding, ResidualBlock, to_patches
from lightning_vmat.networks.arc_channels import joined_points


class FluenceCritic(nn.Module):
    """A convolutional critic of noisy fluence maps and their condition, with one logit for each position of a map.

    Args:
        condition_channels: number of condition channels. Left out in a configuration, it is derived from the structures
            and wishes of the data.
        channels: width, a multiple of 8.
        blocks: residual blocks.
        embedding: width of the noise embedding.
        patch: side of the squares of beamlets that form one position.
        arcs: see `FluenceDenoiser`.

    Raises:
        ValueError: no condition channels, or a condition of others.
    """

    def __init__(
        self,
        condition_channels: int | None = None,
        channels: int = 32,
        blocks: int = 2,
        embedding: int = 64,
        patch: int = 1,
        arcs: bool = False,
    ) -> None:
        super().__init__()
        if condition_channels is None:
            raise ValueError("critic condition_channels: missing, expected the number of condition channels")
        self.condition_channels, self.patch, self.arcs = condition_channels, patch, arcs
        self.embed = NoiseEmbedding(embedding)
        self.stem = nn.Conv3d((1 + condition_channels) * patch**2, channels, (1, 3, 3), padding=(0, 1, 1))
        self.blocks = nn.ModuleList(ResidualBlock(channels, channels, embedding) for _ in range(blocks))
        self.head = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv3d(channels, 1, 1))

    def forward(
        self,
        x: Float[Tensor, "batch control_point leaf_pair beamlet"],
        c_noise: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch channel control_point leaf_pair beamlet"],
    ) -> Float[Tensor, "batch control_point row column"]:
        """Returns logits, high where the maps resemble those of reference plans."""
        if condition.shape[1] != self.condition_channels:
            raise ValueError(
                f"condition of {condition.shape[1]} channels, expected the critic's {self.condition_channels}"
            )
        h = self.stem(to_patches(torch.cat((x[:, None], condition), dim=1), self.patch))
        embedding = self.embed(c_noise)
        joined = joined_points(condition) if self.arcs else None
        for block in self.blocks:
            h = block(h, embedding, joined)
        return self.head(h)[:, 0]  # type: ignore[no-any-return]
