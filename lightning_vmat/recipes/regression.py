"""The regression baseline: a network from the beam's-eye view directly to fluence maps."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.recipes.base import Fluence, PlanRecipe, require_finite, warmup_cosine
from lightning_vmat.recipes.fluence_models import regressed_maps


class Regression(PlanRecipe):
    """Learns the reference plan's fluence by absolute plus squared error; averages over equally good plans.

    Args:
        network: raw network, `network(x, c_noise, condition)`; the first two arguments are zeros.
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
        """Returns the predicted maps of the cases, non-negative, in units of `scale_mu`; the seed has no effect."""
        return self(batch.condition).clamp(min=0.0)  # type: ignore[no-any-return]

    def forward(self, condition: Tensor) -> Fluence:
        """Returns fluence maps, not clamped, so that gradients reach every beamlet."""
        return regressed_maps(self.network, condition)

    def training_step(self, batch: PlanBatch, batch_index: int) -> Tensor:
        """Returns absolute plus squared error to the reference plan's fluence."""
        error = self(batch.condition) - batch.reference
        loss = require_finite(error.abs().mean() + error.square().mean(), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(error))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns the optimizer of the network with warm-up and cosine decay."""
        optimizer = self.make_optimizer(self.network.parameters())
        return warmup_cosine(optimizer, self.warmup_steps, self.trainer.estimated_stepping_batches)
