"""Fluence of a trained run, with everything kept that wishes do not change."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from lightning_vmat.networks.bev_conditioning import bev_channels
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.planning.staged import Start
from lightning_vmat.recipes.trained import RECIPES, TrainedStart, read_run

KEPT = 4  # maps kept of networks that do not see wishes


class GeneratedFluence:
    """Makes fluence maps of trained runs for one geometry of a case.

    The rays through the anatomy are traced once for a run, and a network that does not see wishes runs once for a seed.
    """

    def __init__(self) -> None:
        self._anatomy: dict[tuple[str, ...], Tensor] = {}
        self._maps: OrderedDict[tuple[str, int], Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, start: Start, problems: CaseProblems) -> FluenceMap:
        """Returns the fluence of a start, over `scale_mu` of the whole problem.

        Args:
            start: a trained run, or any other start.
            problems: problems of the case with its wishes.
        """
        if not isinstance(start, TrainedStart) or start.maps is None:
            return start(problems)
        case, key = problems.case, (str(start.run), start.seed)
        sees_wishes = bool(start.channels.wishes or start.channels.fluence_evaluations)
        if not sees_wishes and key in self._maps:
            return self._maps[key]
        structures = tuple(start.channels.structures)
        if structures not in self._anatomy:
            start.check(case)
            self._anatomy[structures] = bev_channels(case, structures)
        channels = condition_channels(problems, start.channels, self._anatomy[structures])
        maps = start.generate(channels, problems)
        if not sees_wishes:
            self._maps[key] = maps
            while len(self._maps) > KEPT:
                self._maps.popitem(last=False)
        return maps


def draws(start: Start) -> bool:
    """Whether another seed gives another fluence: for the teacher and the generator, also under a learned optimizer."""
    if not isinstance(start, TrainedStart) or start.maps is None:
        return False
    files = read_run(start.run)
    if files.class_path == RECIPES["learned"]:
        files = read_run(type(files.run)(str(files.settings["generator"])))
    return files.class_path in (RECIPES["teacher"], RECIPES["generator"])
