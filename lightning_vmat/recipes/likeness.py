"""How unlike the cases of its training a case is, judged by what a network sees of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.recipes.runs import find_checkpoint
from lightning_vmat.recipes.weights import SEEN_FILE, read_tensors

LEAST_SPREAD = 0.01  # of a feature; thickness is in units of 100 mm
SHRINKAGE = 0.2  # share of the identity in the correlation matrix of the features
TINY = 1e-12
ONE_IN_A_HUNDRED = 2.326  # standard deviations above the mean of a normal distribution

CaseCondition = Float[Tensor, "channel control_point leaf_pair beamlet"]
Features = Float[Tensor, "*case feature"]


def condition_features(condition: CaseCondition) -> Features:
    """Returns mean and standard deviation of each channel over all beamlets."""
    flat = condition.flatten(1)
    return torch.cat((flat.mean(dim=1), flat.std(dim=1)))


@dataclass(frozen=True)
class SeenCases:
    """Features of the cases that a network was trained and validated on.

    >>> import torch
    >>> from lightning_vmat.recipes.likeness import SeenCases, condition_features
    >>> cases = torch.rand(60, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))  # two channels
    >>> features = torch.stack([condition_features(case) for case in cases])
    >>> seen = SeenCases(train=features[:40], validation=features[40:59])
    >>> seen.unlikeness(cases[59]) < 1 < seen.unlikeness(cases[59] + 1)
    True

    Args:
        train: those of the training cases.
        validation: those of the validation cases, which calibrate the scale.
    """

    train: Float[Tensor, "trained_case feature"]
    validation: Float[Tensor, "validation_case feature"]

    def unlikeness(self, condition: CaseCondition) -> float:
        """Returns how far a case is from the training cases: above 1 where one in a hundred like them would be.

        The Mahalanobis distance of its features over that which one in a hundred validation cases exceeds, if the
        logarithms of their distances are normally distributed.

        Reference: Lee et al., NeurIPS 2018 (arXiv 1807.03888): Mahalanobis distance to detect unlike inputs.
        """
        known = self._distances(self.validation).log()
        spread = known.std() if len(known) > 1 else torch.zeros(())
        limit = math.exp(float(known.mean() + ONE_IN_A_HUNDRED * spread))
        return float(self._distances(condition_features(condition.float().cpu()))) / limit

    def _distances(self, features: Features) -> Float[Tensor, "*case"]:
        spread = self.train.std(dim=0).clamp(min=LEAST_SPREAD)
        centre = self.train.mean(dim=0)
        scaled = (self.train - centre) / spread
        correlation = (1 - SHRINKAGE) * scaled.T @ scaled / (len(scaled) - 1)
        correlation = correlation + SHRINKAGE * torch.eye(len(spread))
        away = (features - centre) / spread
        solved = torch.linalg.solve(correlation, away[..., None])[..., 0]
        squared: Tensor = (away * solved).sum(dim=-1) / len(spread)
        return squared.clamp(min=TINY).sqrt()


def read_seen_cases(run: Path) -> SeenCases | None:
    """Returns the seen cases of released weights; None for runs and weights that do not record them.

    Raises:
        ValueError: a file that does not hold them.
    """
    path = find_checkpoint(run).parent / SEEN_FILE
    if not path.is_file():
        return None
    stored = read_tensors(path)
    try:
        return SeenCases(stored["train"], stored["validation"])
    except KeyError as error:
        raise ValueError(f"{path}: no tensor {error}, expected train and validation") from error
