"""Dose-volume histograms of generated fluence during training."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from lightning.pytorch import LightningModule
from matplotlib.figure import Figure
from torch import Tensor

from lightning_vmat.callbacks.figures import ValidationFigure
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.recipes.base import PlanRecipe

LINES = ("-", (0, (4, 2)))


def dvh_curves(doses_gy: Mapping[str, Float[Tensor, " voxel"]], plan: PlanObjective) -> Figure:
    """A figure with a curve for each structure and dose: a colour for each structure, a line style for each dose.

    Args:
        doses_gy: doses of the sampled voxels, Gy, by label; one or two.
        plan: objective with the voxels of each structure and their volumes.

    Raises:
        ValueError: no dose, or more than two.
    """
    if not 1 <= len(doses_gy) <= len(LINES):
        raise ValueError(f"{len(doses_gy)} doses: expected one or two to draw histograms of")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, voxels) in enumerate(plan.structures.items()):
        for line, dose_gy in zip(LINES, doses_gy.values(), strict=False):
            dvh = Dvh(dose_gy[voxels.index], voxels.volume_cc)
            fraction = dvh.volume_cc.cumsum(dim=0) / dvh.total_cc
            label = name if line == LINES[0] else None
            axes.step(dvh.dose_gy.cpu(), fraction.cpu(), where="post", color=f"C{number}", linestyle=line, label=label)
    axes.set(xlabel="dose (Gy)", ylabel="fraction of volume", xlim=(0, None), ylim=(0, 1.02))
    axes.set_title(", ".join(f"{dose} {kind}" for dose, kind in zip(doses_gy, ("solid", "dashed"), strict=False)))
    axes.legend(fontsize=8)
    return figure


class DoseVolumes(ValidationFigure):
    """Draws DVHs of the generated fluence and the reference plan, as `figures/dvh_EPOCH.png`."""

    name = "dvh"

    def draw(self, recipe: LightningModule, batch: PlanBatch) -> Figure:
        """DVHs of the batch's first case: the generated fluence's and the reference's."""
        plan = batch.problems[0].objective if batch.problems else None
        if not isinstance(recipe, PlanRecipe) or not isinstance(plan, PlanObjective):
            raise ValueError("DoseVolumes: no dose to draw, expected a recipe and data.with_problems: true")
        doses_gy = {"generated": batch.problems[0].dose(recipe.generate(batch)[0])}
        if batch.fluence is not None:
            doses_gy["reference"] = batch.problems[0].dose(batch.fluence[0])
        return dvh_curves(doses_gy, plan)
