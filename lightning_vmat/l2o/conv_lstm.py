"""A convolutional LSTM cell."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Memory = tuple[Float[Tensor, "batch hidden leaf_pair beamlet"], Float[Tensor, "batch hidden leaf_pair beamlet"]]


class ConvLSTMCell(nn.Module):
    """LSTM cell whose gates are convolutions over neighbouring beamlets; fits any map size.

    Args:
        inputs: input channels.
        hidden: channels of output and cell.

    Reference: Shi et al. 2015, equation 3, without peepholes.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def start(self, like: Float[Tensor, "batch channel leaf_pair beamlet"]) -> Memory:
        """Returns an empty memory (output and cell of zeros)."""
        zeros = like.new_zeros(len(like), self.hidden, *like.shape[2:])
        return zeros, zeros

    def forward(self, inputs: Float[Tensor, "batch channel leaf_pair beamlet"], memory: Memory) -> Memory:
        """Returns output and cell after one step."""
        output, cell = memory
        enter, keep, leave, new = self.gates(torch.cat((inputs, output), dim=1)).chunk(4, dim=1)
        # the forget gate starts at sigmoid(1) = 0.73, so that gradients reach earlier steps from the beginning
        cell = (keep + 1).sigmoid() * cell + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell
