"""Types of the tensors that travel through the whole package."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

FluenceMap = Float[Tensor, "control_point leaf_pair beamlet"]
"""Fluence of all control points of a case, in MU of one fraction unless another unit is given."""

FluenceMaps = Float[Tensor, "*batch control_point leaf_pair beamlet"]
"""The same for any number of plans, also one."""
