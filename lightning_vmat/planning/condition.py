"""The condition of a case: everything that a network sees of it, as channels on the grid of the fluence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.networks.arc_channels import arc_channels
from lightning_vmat.networks.bev_conditioning import ChannelSettings, bev_channels, wish_channels
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.problem import CaseProblems


def condition_channels(
    case: Case, settings: ChannelSettings, problems: CaseProblems | None = None
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns the channels that `settings.names` names.

    Args:
        case: the case.
        settings: what the network sees.
        problems: problems of the case, of which the small one gives optimised fluence; None to build them.

    Raises:
        ValueError: a problem that cannot be built, see `build_problem`, if the network sees optimised fluence.
    """
    fluence = None
    if settings.fluence_evaluations:
        fluence = optimised_fluence((problems or CaseProblems(case)).small, settings.fluence_evaluations)
    return joined_channels(case, settings, bev_channels(case, settings.structures), fluence)


def joined_channels(
    case: Case,
    settings: ChannelSettings,
    anatomy: Float[Tensor, "anatomy control_point leaf_pair beamlet"],
    fluence: FluenceMap | None,
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns all channels of a case from those that take time.

    Args:
        case: the case.
        settings: what the network sees.
        anatomy: `bev_channels` of the structures.
        fluence: `optimised_fluence` of the case; None if the network does not see it.
    """
    channels = [anatomy]
    if fluence is not None:
        channels.append(fluence[None])
    channels.append(wish_channels(case, settings.wish_names))
    if settings.arcs:
        channels.append(arc_channels(case))
    return torch.cat(channels)


@torch.no_grad()
def optimised_fluence(small: Problem, evaluations: int) -> FluenceMap:
    """Returns the fluence after so many dose evaluations of L-BFGS from the open field, in units of `scale_mu`.

    It shows a network what the objective asks for, with prescription, weights and wishes of the case. No linac delivers
    it; the network learns what a deliverable plan makes of it.

    Args:
        small: problem of the case.
        evaluations: dose evaluations.
    """
    return run(small, LBFGS(), small.open_field, evaluations).x
