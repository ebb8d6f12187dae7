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
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.problem import CaseProblems


def condition_channels(
    problems: CaseProblems,
    settings: ChannelSettings,
    anatomy: Float[Tensor, "anatomy control_point leaf_pair beamlet"] | None = None,
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns the channels that `settings.names` names.

    Args:
        problems: problems of the case; the small one is built if the network sees optimised fluence.
        settings: what the network sees.
        anatomy: `bev_channels` of the structures, which take time; None to make them.

    Raises:
        ValueError: a problem that cannot be built, see `build_problem`, if the network sees optimised fluence.
    """
    case = problems.case
    channels = [bev_channels(case, settings.structures) if anatomy is None else anatomy]
    if settings.fluence_evaluations:
        channels.append(optimised_fluence(problems.small, settings.fluence_evaluations)[None])
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
