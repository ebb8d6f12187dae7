"""Recall and precision of generated fluence maps: whether they vary as a cohort's plans do."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

COARSE = (18, 8, 8)  # control points, leaf pairs, beamlets: with fine detail, all maps would be far apart


class CohortRecall(Metric):
    """Share of the reference maps that lie among the generated ones (recall), and the other way round (precision).

    A map lies among others if its distance to one of them is at most that one's distance to the k-th nearest of its
    own kind. Distances are Euclidean over maps averaged to `COARSE`, so that cases of any size can be compared. Recall
    is low if the generator returns similar maps for all patients, precision if its maps resemble no plan.

    Args:
        neighbours: k.

    Reference: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 to 3.
    """

    full_state_update = False
    higher_is_better = True
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, neighbours: int = 3) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(
        self,
        generated: Float[Tensor, "batch control_point leaf_pair beamlet"],
        reference: Float[Tensor, "batch control_point leaf_pair beamlet"],
    ) -> None:
        """Adds the maps of some cases."""
        self.generated.append(_coarse(generated))
        self.reference.append(_coarse(reference))

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """Returns `recall` and `precision`, or nothing for too few cases; every process must have called `update`."""
        generated, reference = dim_zero_cat(self.generated), dim_zero_cat(self.reference)
        if len(generated) <= self.neighbours:
            return {}
        return {
            "recall": _among(reference, generated, self.neighbours),
            "precision": _among(generated, reference, self.neighbours),
        }


def _coarse(maps: Float[Tensor, "batch control_point leaf_pair beamlet"]) -> Float[Tensor, "batch feature"]:
    return F.adaptive_avg_pool3d(maps[:, None].float(), COARSE).flatten(1)


def _among(
    points: Float[Tensor, "point feature"], others: Float[Tensor, "other feature"], neighbours: int
) -> Float[Tensor, ""]:
    """Returns the share of the points that lie in the neighbourhood of at least one of the others."""
    reach = torch.cdist(others, others).kthvalue(neighbours + 1, dim=1).values  # the nearest is itself
    return (torch.cdist(points, others) <= reach).any(dim=1).float().mean()
