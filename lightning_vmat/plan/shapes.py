"""Tensor types that the whole package uses."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

FluenceMap = Float[Tensor, "control_point leaf_pair beamlet"]
"""Fluence of all control points of a case, in MU of one fraction unless another unit is given."""

FluenceMaps = Float[Tensor, "*batch control_point leaf_pair beamlet"]
"""Fluence maps of any number of plans, also of one without a batch axis."""
