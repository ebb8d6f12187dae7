"""The regression baseline: one network straight from the beam's-eye view to fluence maps."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.recipes.base import Fluence, PlanRecipe, require_finite, warmup_cosine
from lightning_vmat.recipes.fluence_models import regressed_maps


class Regression(PlanRecipe):
    """Learns the reference plan's fluence by absolute plus squared error; blurs where several plans are good.

    Args:
        network: raw network, `network(x, c_noise, condition)`; the first two are fed zeros.
        optimizer: makes the optimizer from the parameters.
        warmup_steps: optimizer steps of rising learning rate.

    Reference: Arberet et al. 2025 (arXiv 2502.03360).
    """

    def __init__(self, network: nn.Module, optimizer: OptimizerCallable, warmup_steps: int = 0) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer = optimizer
        self.warmup_steps = warmup_steps

    @torch.no_grad()
    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        return self(batch.condition).clamp(min=0.0)  # type: ignore[no-any-return]

    def forward(self, condition: Tensor) -> Fluence:
        """Fluence maps, not clamped, so that gradients reach every beamlet."""
        return regressed_maps(self.network, condition)

    def training_step(self, batch: PlanBatch, batch_index: int) -> Tensor:
        error = self(batch.condition) - batch.reference
        loss = require_finite(error.abs().mean() + error.square().mean(), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(error))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer(self.network.parameters())
        return warmup_cosine(optimizer, self.warmup_steps, self.trainer.estimated_stepping_batches)
