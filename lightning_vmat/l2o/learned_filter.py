"""The learned part of the curvature: a filter of fluence by frequency along the arc and over the map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.l2o.quasi_newton import SHARPENING
from lightning_vmat.plan.shapes import FluenceMap

BENDS = (1.0, 4.0)  # periods around the arc at which the features of the arc's frequency reach one half
SPEED = 10.0  # factor on the output, so that the filter learns faster: the LSTM's gradients are larger
BOUND = 2.0  # the gain stays within exp(+-BOUND) of the hand-designed one


class LearnedFilter(nn.Module):
    """A filter with a positive gain for each frequency along the arc and over the map, from a small network.

    Doses of control points and of neighbouring beamlets add up where fluence changes in the same way and cancel where
    it does not, so the inverse Hessian grows with the frequency. `quasi_newton.sharpened` describes this by one number;
    the filter starts there and learns the rest. The arc is periodic and the map is padded with zeros; any number of
    control points and any grid will do. The filter is symmetric and positive definite for all weights.

    Args:
        hidden: units of the hidden layer.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(len(BENDS) + 3, hidden)
        self.log_gain = nn.Linear(hidden, 1)
        nn.init.zeros_(self.log_gain.weight)
        nn.init.zeros_(self.log_gain.bias)

    def forward(self, maps: FluenceMap) -> FluenceMap:
        """Returns the filtered maps."""
        points, rows, columns = maps.shape
        # twice the size over the map, so that its opposite edges do not mix; the arc needs no padding, being periodic
        size = (points, 2 * rows, 2 * columns)
        spectrum = torch.fft.rfftn(maps, size, dim=(0, 1, 2)) * self.gain(size).to(maps)
        filtered: Tensor = torch.fft.irfftn(spectrum, size, dim=(0, 1, 2))[:, :rows, :columns]
        return filtered

    def gain(self, size: tuple[int, int, int]) -> Float[Tensor, "arc leaf_pair beamlet"]:
        """Returns the gain at the frequencies of a real Fourier transform of this size."""
        points, rows, columns = size
        device = self.log_gain.weight.device
        arc, y, x = torch.meshgrid(
            torch.fft.fftfreq(points, 1 / points, device=device).abs(),  # periods around the arc
            2 * torch.fft.fftfreq(rows, device=device).abs(),  # 1 where neighbours alternate
            2 * torch.fft.rfftfreq(columns, device=device),
            indexing="ij",
        )
        varies = (arc > 0).float()  # with zero weights the gain is that of `sharpened`: 1 for the mean, 5 for the rest
        seen = torch.stack([*(arc / (arc + bend) for bend in BENDS), varies, y, x], dim=-1)
        log_gain: Tensor = self.log_gain(self.hidden(seen).tanh())[..., 0]
        return (1 + SHARPENING * varies) * (BOUND * (SPEED * log_gain).tanh()).exp()
