"""The generator: the teacher's distribution in one step, by distribution matching."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.diffusion.adversarial import AdversarialLoss
from lightning_vmat.diffusion.denoising_loss import DenoisingLoss
from lightning_vmat.diffusion.distribution_matching import DistributionMatchingLoss
from lightning_vmat.diffusion.noise import KarrasNoise
from lightning_vmat.diffusion.preconditioning import EDMPreconditioning
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.recipes.base import Fluence, PlanRecipe, require_finite
from lightning_vmat.recipes.fluence_models import one_step_maps
from lightning_vmat.recipes.loading import check_condition, load_recipe
from lightning_vmat.recipes.teacher import Teacher


class Distillation(PlanRecipe):
    """Trains a one-step generator against a frozen teacher, with several fake-score updates for each of the generator.

    Generator and fake score start as copies of the teacher, which is read when training starts and not stored in
    checkpoints.

    Args:
        network: raw network, of the same architecture as the teacher's.
        sigma_data: `sigma_data` of the teacher.
        sigma_max: noise level at which the generator is called; the teacher's sampler starts there.
        teacher: the teacher's run directory or checkpoint, or the name of shipped weights; only read by `fit`.
        generator_optimizer: makes the generator's optimizer.
        fake_optimizer: makes the optimizer of fake score and critic.
        sigma_min: lowest noise level of matching and of the fake score's training.
        fake_updates: updates of the fake score for each of the generator.
        pairs: number of teacher samples of each case for the regression loss; 0 for no regression.
        pairs_weight: weight of the regression loss.
        dose_weight: weight of the log objective of the generated maps' dose; needs the batch's problems unless 0.
        critic: discriminates generated maps from reference plans', trained with the fake score; None for no
            adversarial loss.
        critic_weight: weight of the generator's adversarial loss.
        gradient_clip_norm: largest norm of each gradient.

    Reference: Yin et al. 2024 (DMD: matching gradient, regression pairs); Yin et al. 2024 (DMD2: two time scales).
    """

    TRAINING_ONLY = ("fake.", "critic.")

    def __init__(
        self,
        network: nn.Module,
        sigma_data: float,
        sigma_max: float,
        teacher: str,
        generator_optimizer: OptimizerCallable,
        fake_optimizer: OptimizerCallable,
        sigma_min: float = 0.002,
        fake_updates: int = 5,
        pairs: int = 4,
        pairs_weight: float = 0.25,
        dose_weight: float = 0.0,
        critic: nn.Module | None = None,
        critic_weight: float = 3e-3,
        gradient_clip_norm: float = 1.0,
    ) -> None:
        super().__init__()
        if fake_updates < 1:
            raise ValueError(f"fake_updates is {fake_updates}, expected at least 1")
        self.automatic_optimization = False
        self.generator = EDMPreconditioning(network, sigma_data)
        self.fake = EDMPreconditioning(deepcopy(network), sigma_data)
        self.matching = DistributionMatchingLoss(KarrasNoise(sigma_min, sigma_max, low=0.02, high=0.98))
        self.critic, self.critic_weight = critic, critic_weight
        self.adversarial = AdversarialLoss(KarrasNoise(0.02, 2 * sigma_data), sigma_data)
        self.denoising = DenoisingLoss(KarrasNoise(sigma_min, sigma_max), sigma_data)
        self.sigma_max = sigma_max
        self.teacher_run = teacher
        self.make_optimizers = generator_optimizer, fake_optimizer
        self.fake_updates = fake_updates
        self.pairs, self.pairs_weight, self.dose_weight = pairs, pairs_weight, dose_weight
        self.gradient_clip_norm = gradient_clip_norm
        self._teacher: list[Teacher] = []  # in a list, so that it is no submodule and in no checkpoint
        self._pairs: dict[tuple[str, bool, int], FluenceMap] = {}  # of a case, its mirror image, and a number

    def setup(self, stage: str) -> None:
        """Reads the teacher and copies it; a checkpoint to resume from is read after this hook."""
        if stage != "fit" or self._teacher:
            return
        teacher = load_recipe(self.teacher_run)
        if not isinstance(teacher, Teacher):
            raise ValueError(f"teacher {self.teacher_run}: holds a {type(teacher).__name__}, expected a Teacher")
        mine = self.generator.sigma_data, self.sigma_max
        its = teacher.denoiser.sigma_data, teacher.sampler.sigma_max
        if mine != its:
            raise ValueError(f"teacher {self.teacher_run}: sigma_data, sigma_max are {its}, the generator's {mine}")
        try:
            self.generator.load_state_dict(teacher.denoiser.state_dict())
        except RuntimeError as error:
            raise ValueError(f"teacher {self.teacher_run}: its network differs from the generator's") from error
        self.fake.load_state_dict(teacher.denoiser.state_dict())
        self._teacher = [teacher.requires_grad_(False)]

    def on_fit_start(self) -> None:
        """Checks that the teacher was trained with the cohort's condition channels, and moves it to the device."""
        check_condition(self.teacher_run, self.trainer)
        self._teacher[0].to(self.device)

    @torch.no_grad()
    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Returns the generator's maps of the cases, non-negative, in units of `scale_mu`."""
        return self.one_step(batch.noise(seed), batch.condition).clamp(min=0.0)

    def one_step(self, unit_noise: Fluence, condition: Tensor) -> Fluence:
        """Returns the generator's maps, by one call at the highest noise level; not clamped."""
        return one_step_maps(self.generator, self.sigma_max, unit_noise, condition)

    @property
    def generator_updates(self) -> int:
        """Number of generator updates so far; the trainer's `global_step` counts the steps of both optimizers."""
        return math.ceil(self.global_step / (self.fake_updates + 1))

    def training_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Updates the generator if it is its turn, then fake score and critic."""
        generator_optimizer, fake_optimizer = self.optimizers()  # type: ignore[attr-defined]
        generator_turn = self.global_step % (self.fake_updates + 1) == 0
        with torch.set_grad_enabled(generator_turn):
            generated = self.one_step(torch.randn_like(batch.condition[:, 0]), batch.condition)
        if generator_turn:
            self._step(generator_optimizer, require_finite(self._generator_loss(generated, batch), batch))
        fake_loss = require_finite(self.denoising(self.fake, generated.detach(), batch.condition), batch)
        self._log("train/fake_loss", fake_loss, batch)
        if self.critic is not None:
            critic_loss = self.adversarial.of_critic(self.critic, generated, batch.reference, batch.condition)
            self._log("train/critic_loss", critic_loss, batch)
            fake_loss = fake_loss + critic_loss
        self._step(fake_optimizer, fake_loss)
        self.log("generator_updates", float(self.generator_updates))

    def _generator_loss(self, generated: Fluence, batch: PlanBatch) -> Float[Tensor, ""]:
        loss = self.matching(generated, batch.condition, self._teacher[0].denoiser, self.fake)
        self._log("train/matching_loss", loss, batch)
        if self.pairs:
            regression = self._regression(batch)
            self._log("train/pairs_loss", regression, batch)
            loss = loss + self.pairs_weight * regression
        if self.critic is not None:
            adversarial = self.adversarial.of_generator(self.critic, generated, batch.condition)
            self._log("train/adversarial_loss", adversarial, batch)
            loss = loss + self.critic_weight * adversarial
        if self.dose_weight:
            dose_loss = batch.objective(generated.relu()).log().mean()
            self.dose_evaluations += len(batch)
            self._log("train/log_objective", dose_loss, batch)
            loss = loss + self.dose_weight * dose_loss
        return loss

    def _regression(self, batch: PlanBatch) -> Float[Tensor, ""]:
        """Returns the mean absolute error to the teacher's sample from the same noise; caches these samples."""
        number = int(torch.randint(self.pairs, ()))
        noise = batch.noise(number)
        turned = batch.mirrored or (False,) * len(batch)
        keys = [(case_id, turn, number) for case_id, turn in zip(batch.case_ids, turned, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self._pairs]
        if new:
            teacher = self._teacher[0]
            samples = teacher.sampler(teacher.denoiser, noise[new], batch.condition[new])
            self._pairs.update({keys[i]: x for i, x in zip(new, samples, strict=True)})
        target = torch.stack([self._pairs[key] for key in keys])
        return (self.one_step(noise, batch.condition) - target).abs().mean()

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer.optimizer, gradient_clip_val=self.gradient_clip_norm)
        optimizer.step()

    def _log(self, name: str, loss: Tensor, batch: PlanBatch) -> None:
        self.log(name, loss.detach(), prog_bar=True, batch_size=len(batch.case_ids))

    def configure_optimizers(self) -> list[Optimizer]:
        """Returns the optimizers of the generator, and of fake score and critic."""
        generator, fake = self.make_optimizers
        helpers = [*self.fake.parameters(), *(self.critic.parameters() if self.critic is not None else ())]
        return [generator(self.generator.parameters()), fake(helpers)]
