"""The generator starts as the teacher, gets better than its one step, and leaves the teacher out of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging
from synthetic import NETWORK, SIGMA_DATA, fit, repeated, small_network, synthetic_batch, synthetic_problem

from lightning_vmat.networks.critic import FluenceCritic
from lightning_vmat.recipes.base import diversity, fluence_error
from lightning_vmat.recipes.distillation import Distillation
from lightning_vmat.recipes.loading import load_recipe
from lightning_vmat.recipes.teacher import Teacher

SIGMA_MAX = 20.0


def adam(learning_rate: float) -> dict[str, object]:
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": learning_rate, "betas": [0.0, 0.99]}}


def distillation(teacher: Path, **changes: object) -> Distillation:
    arguments: dict[str, object] = {
        "network": small_network(),
        "sigma_data": SIGMA_DATA,
        "sigma_max": SIGMA_MAX,
        "teacher": str(teacher),
        "generator_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99)),
        "fake_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99)),
    }
    return Distillation(**{**arguments, **changes})  # type: ignore[arg-type]


def test_all_three_start_as_the_teacher(teacher_run: Path) -> None:
    recipe = distillation(teacher_run)
    recipe.setup("fit")
    teacher = load_recipe(teacher_run)
    assert isinstance(teacher, Teacher)
    for name, value in teacher.denoiser.state_dict().items():
        torch.testing.assert_close(recipe.generator.state_dict()[name], value)
        torch.testing.assert_close(recipe.fake.state_dict()[name], value)


def test_matching_gradient_of_the_first_step_is_zero(teacher_run: Path) -> None:
    """Real and fake score are then the same network, so their difference is exactly nothing."""
    recipe = distillation(teacher_run, pairs=0)
    recipe.setup("fit")
    batch = synthetic_batch(1)
    x = recipe.generate(batch)
    gradient = recipe.matching.gradient(x, batch.condition, recipe._teacher[0].denoiser, recipe.fake)
    assert gradient.abs().max().item() == 0.0


@pytest.mark.filterwarnings("ignore")
def test_matching_alone_beats_one_step_of_the_teacher(teacher_run: Path) -> None:
    """Error of one step over three seeds: teacher 0.063 to 0.083, generator 0.022 to 0.033; 0.05 is asked for."""
    lightning.seed_everything(1, verbose=False)
    recipe = distillation(teacher_run, pairs=0)
    recipe.setup("fit")
    batch = synthetic_batch(1)
    assert batch.fluence is not None
    before = fluence_error(recipe.generate(batch), batch.fluence).item()
    trainer = fit(recipe, repeated(batch, 4), 180, EMAWeightAveraging(decay=0.9))
    after = fluence_error(recipe.generate(batch), batch.fluence).item()
    assert after < 0.05 < before
    assert recipe.generator_updates == 30
    assert trainer.callback_metrics["val/diversity"].item() > 0
    assert not any("teacher" in name for name in recipe.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_trained_generator_loads_without_its_teacher(teacher_run: Path, tmp_path: Path) -> None:
    recipe = distillation(teacher_run, fake_updates=1)
    trainer = fit(recipe, synthetic_batch(2), 4)
    config = {
        "class_path": "lightning_vmat.recipes.distillation.Distillation",
        "init_args": {
            "network": NETWORK,
            "sigma_data": SIGMA_DATA,
            "sigma_max": SIGMA_MAX,
            "teacher": str(tmp_path / "gone"),
            "generator_optimizer": adam(1e-3),
            "fake_optimizer": adam(1e-3),
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": config}))
    trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    batch = synthetic_batch(2)
    loaded = load_recipe(tmp_path)
    torch.testing.assert_close(loaded.generate(batch), recipe.eval().generate(batch))
    assert diversity(loaded.generate(batch), loaded.generate(batch, 1)).min().item() > 0


@pytest.mark.filterwarnings("ignore")
def test_dose_term_lowers_the_objective(teacher_run: Path) -> None:
    """Objective of a new sample over that before: 0.05, and 1.05 without the term; 0.5 is asked for."""
    lightning.seed_everything(0, verbose=False)
    batch = replace(synthetic_batch(1), problems=(synthetic_problem(),))
    recipe = distillation(teacher_run, pairs=0, fake_updates=1, dose_weight=1.0)
    recipe.setup("fit")
    before = batch.objective(recipe.generate(batch, seed=5)).item()
    fit(recipe, batch, 60)
    assert batch.objective(recipe.generate(batch, seed=5)).item() < 0.5 * before


@pytest.mark.filterwarnings("ignore")
def test_dose_term_asks_for_problems(teacher_run: Path) -> None:
    recipe = distillation(teacher_run, pairs=0, dose_weight=1.0)
    with pytest.raises(ValueError, match="with_problems"):
        fit(recipe, synthetic_batch(1), 1)


@pytest.mark.filterwarnings("ignore")
def test_critic_tells_two_levels_from_a_blur_and_its_gradient_leads_back(teacher_run: Path) -> None:
    """After training on the disc and its blur: descent of the generator's loss turns the blur toward the disc."""
    batch = synthetic_batch(2)
    assert batch.fluence is not None
    blurred = torch.nn.functional.avg_pool2d(batch.fluence, 3, 1, 1)
    critic = FluenceCritic(2, channels=16, embedding=32)
    recipe = distillation(teacher_run, critic=critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = recipe.adversarial.of_critic(critic, blurred, batch.fluence, batch.condition)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8  # 2 ln 2 = 1.39 where nothing is told apart
    blurred.requires_grad_()
    recipe.adversarial.of_generator(critic, blurred, batch.condition).backward()
    assert blurred.grad is not None
    assert torch.cosine_similarity(-blurred.grad.flatten(), (batch.fluence - blurred).flatten(), dim=0) > 0.2


@pytest.mark.filterwarnings("ignore")
def test_critic_learns_beside_the_fake_score(teacher_run: Path) -> None:
    critic = FluenceCritic(2, channels=16, embedding=32)
    recipe = distillation(teacher_run, pairs=0, fake_updates=1, critic=critic)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    fit(recipe, synthetic_batch(1), 4)
    assert any(not torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_another_noise_scale_than_the_teachers_is_named(teacher_run: Path) -> None:
    with pytest.raises(ValueError, match=r"sigma_data, sigma_max are \(0\.6, 20\.0\), the generator's \(0\.6, 40\.0\)"):
        distillation(teacher_run, sigma_max=40.0).setup("fit")


def test_another_network_than_the_teachers_is_named(teacher_run: Path) -> None:
    network = type(small_network())(2, channels=(8, 16), heads=2)
    with pytest.raises(ValueError, match="its network differs"):
        distillation(teacher_run, network=network).setup("fit")


def test_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: expected a \.ckpt file, a run directory"):
        distillation(tmp_path / "nowhere").setup("fit")


def test_no_fake_update_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fake_updates is 0"):
        distillation(tmp_path, fake_updates=0)
