"""Figures of the first validation case during training, such as fluence maps along the arc."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.recipes.base import PlanRecipe


def fluence_film(rows: dict[str, FluenceMap], frames: int = 12) -> Figure:
    """Fluence in the beam's-eye view along the arc: a row of frames for each set of maps, on one grey scale.

    Args:
        rows: fluence by row label, MU or relative to the case's scale.
        frames: number of shown control points, evenly spread over the arc.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no fluence maps, expected at least one set")
    points = len(next(iter(rows.values())))
    shown = torch.linspace(0, points - 1, min(frames, points)).round().long().tolist()
    brightest = max(float(maps.max()) for maps in rows.values())
    figure = Figure(figsize=(len(shown), 1.15 * len(rows) + 0.2), layout="constrained")
    grid = figure.subplots(len(rows), len(shown), squeeze=False)
    for axes, (label, maps) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(label, fontsize=8)
        for ax, index in zip(axes, shown, strict=True):
            ax.imshow(maps[index].detach().float().cpu().numpy(), cmap="gray", vmin=0.0, vmax=brightest or 1.0)
            ax.set(xticks=[], yticks=[])
            ax.set_title(str(index), fontsize=7)
    return figure


class ValidationFigure(Callback, ABC):
    """Draws the first validation case.

    The figure is written to `figures/NAME_EPOCH.png` in the run directory, and to the logger if it accepts images.

    Args:
        every_n_epochs: number of epochs between figures.

    Raises:
        ValueError: `every_n_epochs` below 1.
    """

    name: str

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs {every_n_epochs}: expected at least 1")
        self.every_n_epochs = every_n_epochs

    @abstractmethod
    def draw(self, recipe: LightningModule, batch: PlanBatch) -> Figure:
        """The figure of a batch's first case.

        Raises:
            ValueError: a recipe or batch without the necessary data.
        """

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: PlanBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw and log the figure for the first validation batch of every few epochs."""
        drawing = trainer.is_global_zero and not trainer.sanity_checking
        if batch_idx == 0 and drawing and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            with torch.no_grad():
                self._keep(trainer, self.draw(pl_module, batch))

    def _keep(self, trainer: Trainer, figure: Figure) -> None:
        epoch = trainer.current_epoch
        path = Path(trainer.default_root_dir) / "figures" / f"{self.name}_{epoch:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(self.name, [str(path)], caption=[f"epoch {epoch}"])


class FluenceFilm(ValidationFigure):
    """Draws the generated fluence above that of the reference plan, as `figures/fluence_EPOCH.png`."""

    name = "fluence"

    def draw(self, recipe: LightningModule, batch: PlanBatch) -> Figure:
        """Fluence maps of the batch's first case: generated and reference."""
        if not isinstance(recipe, PlanRecipe):
            raise ValueError(f"{type(recipe).__name__} makes no fluence maps: expected a recipe for FluenceFilm")
        rows = {"generated": recipe.generate(batch)[0]}
        if batch.fluence is not None:
            rows["reference"] = batch.fluence[0]
        return fluence_film(rows)
