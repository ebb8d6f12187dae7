"""Networks of trained runs for planning, loaded without Lightning.

Importing Lightning takes longer than a plan. Only recipes from outside the package are loaded as a `LightningModule`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.data.batch import PlanBatch, unit_noise
from lightning_vmat.diffusion.preconditioning import EDMPreconditioning
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.l2o.aperture_lstm import ApertureLSTM
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.fluence_models import Condition, Fluence, one_step_maps, regressed_maps
from lightning_vmat.recipes.likeness import SeenCases, read_seen_cases
from lightning_vmat.recipes.runs import (
    channel_settings,
    check_channels,
    find_checkpoint,
    find_config,
)
from lightning_vmat.recipes.weights import WEIGHTS_FILE, read_tensors
from lightning_vmat.registry import PACKAGE, import_object

RECIPES = {
    "teacher": "lightning_vmat.recipes.teacher.Teacher",
    "generator": "lightning_vmat.recipes.distillation.Distillation",
    "regression": "lightning_vmat.recipes.regression.Regression",
    "learned": "lightning_vmat.recipes.learned_optimizer.LearnedOptimization",
}
"""Planner -> class path of the recipe whose runs it uses."""

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

Maps = Callable[[Condition, Problem, int], Fluence]
"""Returns fluence maps from the condition of one case, its problem and a seed; batch axes have length 1."""


@dataclass(frozen=True)
class RunFiles:
    """Configuration and weights of a run.

    Args:
        run: run as the user named it.
        config: path of the configuration.
        class_path: class path of the recipe.
        settings: arguments of the recipe.
    """

    run: Path
    config: Path
    class_path: str
    settings: dict[str, Any]

    def load(self, module: nn.Module, prefix: str) -> None:
        """Loads the weights with a prefix into a module, and puts it into evaluation mode.

        Raises:
            ValueError: a broken checkpoint, or one of another network.
        """
        checkpoint = find_checkpoint(self.run)
        try:
            state = _read_state(checkpoint)
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"checkpoint {checkpoint}: does not hold the recipe of {self.config}: {why}") from error
        module.eval().requires_grad_(False)

    def build(self, name: str) -> Any:
        """Builds the object that an argument of the recipe describes by `class_path` and `init_args`.

        Raises:
            ValueError: an object that cannot be built.
        """
        try:
            return _build(self.settings[name])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"configuration {self.config}: no {name}: {' '.join(str(error).split())[:300]}") from error

    def number(self, name: str, default: float | None = None) -> float:
        """Returns an argument of the recipe that is a number.

        Raises:
            ValueError: a missing argument, or one that is not a number.
        """
        value = self.settings.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"configuration {self.config}: {name} is {value!r}, expected a number")
        return value


def read_run(run: Path) -> RunFiles:
    """Reads the configuration of a run, given its directory, a checkpoint, a folder of weights or a shipped name.

    Raises:
        ValueError: no such run, or a configuration without a recipe.
    """
    config = find_config(find_checkpoint(run))
    try:
        model = read_mapping(config)["model"]
        return RunFiles(run, config, str(model["class_path"]), dict(model.get("init_args") or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"configuration {config}: no recipe: {' '.join(str(error).split())[:300]}") from error


def check_recipe(run: Path, planner: str) -> None:
    """Checks that a run was trained by the recipe of a planner.

    Raises:
        ValueError: no such run, or one of another recipe.
    """
    found, expected = read_run(run).class_path, RECIPES[planner]
    if found != expected:
        its, wanted = (path.rpartition(".")[2] for path in (found, expected))
        raise ValueError(f"run {run}: holds a {its}, expected a {wanted} for planner {planner}")


def load_maps(run: Path) -> Maps:
    """Returns the function that makes a run's fluence maps.

    Raises:
        ValueError: no such run, or files that do not fit together.
    """
    files = read_run(run)
    make = {RECIPES["teacher"]: _teacher, RECIPES["generator"]: _generator, RECIPES["regression"]: _regression}
    return make.get(files.class_path, _other_recipe)(files)


def learned_optimizer(run: Path) -> LearnedOptimizer:
    """Returns the optimizer of a trained `LearnedOptimization`, for any case and start.

    Raises:
        ValueError: no such run, or one of another recipe.
    """
    check_recipe(run, "learned")
    return _network(read_run(run), "network", LearnedOptimizer)


def step_correction(run: Path) -> ApertureLSTM | None:
    """Returns the correction of aperture optimization of a trained `LearnedOptimization`; None if it has none.

    Raises:
        ValueError: no such run, or one of another recipe.
    """
    check_recipe(run, "learned")
    files = read_run(run)
    return None if files.settings.get("apertures") is None else _network(files, "apertures", ApertureLSTM)


def _network(files: RunFiles, name: str, kind: type[AnyNetwork]) -> AnyNetwork:
    """Builds a network of a run from the recipe's argument of that name, with its weights."""
    network = files.build(name)
    if not isinstance(network, kind):
        raise ValueError(f"run {files.run}: holds a {type(network).__name__}, expected a {kind.__name__}")
    files.load(network, f"{name}.")
    return network


@dataclass(frozen=True)
class TrainedStart:
    """A run's fluence maps as the `Start` of a planner.

    Args:
        run: run, for messages.
        maps: function of `load_maps`; None to start from the open field.
        channels: what the network sees of a case.
        seed: seed of the noise.
        seen: cases of its training; None if they are not recorded.
    """

    run: Path
    maps: Maps | None
    channels: ChannelSettings
    seed: int
    seen: SeenCases | None = None

    def __call__(self, problems: CaseProblems) -> FluenceMap:
        self.check(problems.case)
        return problems.whole.open_field if self.maps is None else self.generate(self.condition(problems), problems)

    @torch.no_grad()
    def condition(self, problems: CaseProblems) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
        """Returns what the network sees of a case."""
        return condition_channels(problems, self.channels)

    @torch.no_grad()
    def generate(
        self, condition: Float[Tensor, "channel control_point leaf_pair beamlet"], problems: CaseProblems
    ) -> FluenceMap:
        """Returns the maps of a condition, over `scale_mu` of the whole problem; without a network the open field."""
        if self.maps is None:
            return problems.whole.open_field
        return self.maps(condition[None], problems.whole, self.seed)[0]

    def check(self, case: Case) -> None:
        """Checks that the run knows a structure of a case.

        Raises:
            ValueError: a case with none of the structures that the run was trained to see.
        """
        structures = self.channels.structures
        if not any(name in case.structures for name in structures):
            raise ValueError(
                f"case {case.case_id}: none of {', '.join(structures)}, which {self.run} was trained to see"
            )


def load_start(run: Path, seed: int = 0) -> TrainedStart:
    """Returns the start of plans with a run: its own maps, or for a learned optimizer those of its generator.

    Raises:
        ValueError: no such run, or a generator with other condition channels than the run's.
    """
    files = read_run(run)
    seen = channel_settings(run)
    if files.class_path != RECIPES["learned"]:
        return TrainedStart(run, load_maps(run), seen, seed, read_seen_cases(run))
    generator = files.settings.get("generator")
    if generator is None:
        return TrainedStart(run, None, seen, seed)
    check_channels(generator, seen)
    return TrainedStart(run, load_maps(Path(generator)), seen, seed, read_seen_cases(Path(generator)))


def _teacher(files: RunFiles) -> Maps:
    denoiser, sampler = _denoiser(files, "denoiser."), files.build("sampler")

    def maps(condition: Condition, problem: Problem, seed: int) -> Fluence:
        samples: Tensor = sampler(denoiser.to(condition.device), unit_noise([problem.name], condition, seed), condition)
        return samples.clamp(min=0.0)

    return maps


def _generator(files: RunFiles) -> Maps:
    generator, sigma_max = _denoiser(files, "generator."), files.number("sigma_max")

    def maps(condition: Condition, problem: Problem, seed: int) -> Fluence:
        noise = unit_noise([problem.name], condition, seed)
        return one_step_maps(generator.to(condition.device), sigma_max, noise, condition).clamp(min=0.0)

    return maps


def _regression(files: RunFiles) -> Maps:
    network = files.build("network")
    files.load(network, "network.")
    return lambda condition, problem, seed: regressed_maps(network.to(condition.device), condition).clamp(min=0.0)


def _denoiser(files: RunFiles, prefix: str) -> EDMPreconditioning:
    denoiser = EDMPreconditioning(files.build("network"), files.number("sigma_data"))
    files.load(denoiser, prefix)
    return denoiser


def _other_recipe(files: RunFiles) -> Maps:
    """Returns the function that makes the maps of any other `PlanRecipe`."""
    from lightning_vmat.recipes.loading import load_recipe

    return partial(_generated, load_recipe(files.run))


def _generated(recipe: Any, condition: Condition, problem: Problem, seed: int) -> Fluence:
    scale_mu = torch.tensor([problem.scale_mu], device=condition.device)
    batch = PlanBatch((problem.name,), (Path(problem.name),), condition, None, scale_mu, (problem,))
    maps: Tensor = recipe.to(condition.device).generate(batch, seed)
    return maps


def _read_state(checkpoint: Path) -> dict[str, Tensor]:
    if checkpoint.name == WEIGHTS_FILE:
        return read_tensors(checkpoint)
    state: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return state


def _build(value: Any) -> Any:
    """Returns a value of a configuration, with every `class_path` replaced by an object of that class.

    Raises:
        ValueError: a class that is neither a torch module nor the package's own, because configurations must not run
            other code.
    """
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {key: _build(part) for key, part in value.items()}
    kind = import_object("class", str(value["class_path"]))
    if not isinstance(kind, type) or not (issubclass(kind, nn.Module) or kind.__module__.startswith(f"{PACKAGE}.")):
        raise ValueError(f"class {value['class_path']}: expected a torch module")
    return kind(**{key: _build(part) for key, part in (value.get("init_args") or {}).items()})
