"""`vmat fit` and `vmat test` on a recipe of one weight: what a run leaves behind, and how bad input ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch import nn

from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.commands.condition_channels import fill_condition_channels
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.recipes.base import Fluence, PlanRecipe
from lightning_vmat.recipes.loading import load_recipe


class OneWeight(PlanRecipe):
    """Fluence in proportion to the first condition channel.

    Args:
        start: the weight before training.
        label: anything; None is kept apart from the default.
        breaks: hook that fails.
    """

    def __init__(self, start: float = 0.5, label: str | None = "default", breaks: str = "") -> None:
        super().__init__()
        if start < 0:
            raise ValueError(f"start {start}: expected at least 0")
        self.weight = nn.Parameter(torch.tensor(start))
        self.label = label
        self.breaks = breaks

    def setup(self, stage: str) -> None:
        self._break("setup")

    def _break(self, hook: str) -> None:
        if self.breaks == hook:
            raise ValueError(f"broken in {hook}")

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        self.log("val/distance", (self.weight - 0.25).abs(), batch_size=1)

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        return (self.weight * batch.condition[:, 0]).clamp(min=0.0)

    def training_step(self, batch: PlanBatch, batch_index: int) -> torch.Tensor:
        self._break("training_step")
        loss = (self.generate(batch) - 1.0).square().mean()
        self.log("train/loss", loss, batch_size=1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


CHECKPOINT = "RunCheckpoint"
FILM = "lightning_vmat.callbacks.figures.FluenceFilm"  # a full import path is as good


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        write_case(make_phantom(seed, "tiny"), root / name)
    Cohort(root, {"train": names[:1], "validation": names[1:2], "test": names[2:]}).write({})
    return root


@pytest.fixture
def config(cohort: Path, tmp_path: Path) -> Path:
    """A whole configuration; its run goes to `run` beside it."""
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "log_every_n_steps": 1, "logger": True}
    trainer |= {"enable_progress_bar": False, "default_root_dir": str(tmp_path / "run")}
    content = {
        "model": {"class_path": f"{__name__}.OneWeight", "init_args": {"start": 0.25, "label": None}},
        "data": {"cohort": str(cohort), "structures": ["Rectum"]},
        "trainer": trainer | {"callbacks": [{"class_path": CHECKPOINT}, {"class_path": FILM}]},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command given bad input ends in."""
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_run_leaves_all_that_is_needed_to_test_rebuild_and_resume(config: Path) -> None:
    run = config.parent / "run"
    last = str(run / "checkpoints" / "last.ckpt")
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "2"]) == 0
    saved = (run / "config.yaml").read_text()
    assert yaml.safe_load(saved)["trainer"]["max_epochs"] == 2
    assert (run / "metrics" / "version_0" / "metrics.csv").is_file()
    assert sorted(path.name for path in (run / "figures").iterdir()) == ["fluence_0000.png", "fluence_0001.png"]

    recipe = load_recipe(last)
    assert isinstance(recipe, OneWeight)
    assert recipe.label is None  # a null in the file is not the default
    assert not recipe.training and float(recipe.weight.detach()) != 0.25

    assert main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", last]) == 0
    assert (run / "config.yaml").read_text() == saved  # testing leaves the run's own configuration

    assert main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", last, "--trainer.max_epochs", "3"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 3  # one case: one step an epoch


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--trainer.max_epohcs", "3"], "max_epohcs"),
        (["--model.init_args.strat", "1"], "strat"),
        (["--model.init_args.start", "much"], "start"),
        (["--model.init_args.start", "-1"], "start -1.0: expected at least 0"),
        (["--model.class_path", "lightning_vmat.recipes.Nothing"], "lightning_vmat.recipes.Nothing"),
        (["--model.class_path", "Teachr"], "model: no class Teachr; expected Distillation, LearnedOptimization, "),
        (["--trainer.callbacks+", "Film"], "trainer.callbacks: no class Film; expected "),
        (["--data.cohort", "/nowhere"], "/nowhere"),
        (["--ckpt_path", "/nowhere.ckpt"], "/nowhere.ckpt: no such file"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--trainer.accelerator", "abacus"], "abacus"),
        (["--trainer.accelerator", "tpu"], "trainer.accelerator tpu, trainer.strategy auto: expected one that is"),
    ],
)
def test_bad_input_is_named(options: list[str], named: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(["fit", "--config", str(config), *options], capsys)
    assert named in error
    assert "Union" not in error
    assert not (config.parent / "run" / "checkpoints").exists()


def test_a_typo_in_a_file_names_key_and_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("cohort:", "cohrot:"))
    error = error_of(["fit", "--config", str(config)], capsys)
    assert "data.cohrot" in error and str(config) in error


def test_a_checkpoint_cut_short_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = config.parent / "cut.ckpt"
    torch.save({"state_dict": {}}, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    error = error_of(["test", "--config", str(config), "--ckpt_path", str(checkpoint)], capsys)
    assert "cut.ckpt: not a checkpoint, or truncated" in error


@pytest.mark.parametrize("hook", ["setup", "training_step"])
@pytest.mark.filterwarnings("ignore:.*is not a multiple.*")
def test_a_failed_fit_leaves_an_earlier_run_as_it_was(
    hook: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config.parent / "run"
    failing = ["fit", "--config", str(config), "--model.init_args.breaks", hook, "--trainer.num_sanity_val_steps", "0"]
    assert f"broken in {hook}" in error_of(failing, capsys)
    assert not run.exists()
    assert main(["fit", "--config", str(config)]) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    folders = sorted(run.rglob("*"))
    assert f"broken in {hook}" in error_of(failing, capsys)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert sorted(run.rglob("*")) == folders


def test_a_configuration_that_cannot_be_written_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = config.parent / "run"
    (run / "config.yaml").mkdir(parents=True)  # in the way
    assert "config.yaml" in error_of(["fit", "--config", str(config)], capsys)
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(("steps", "best"), [("-1", 0.25), ("0", None)])
def test_untrained_weights_are_a_candidate_for_the_best(steps: str, best: float | None, config: Path) -> None:
    """Training only leads away from 0.25, what the monitored value asks for."""
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [{"class_path": CHECKPOINT, "init_args": {"monitor": "val/distance"}}]
    config.write_text(yaml.safe_dump(content))
    options = ["--trainer.num_sanity_val_steps", steps, "--trainer.max_epochs", "3"]
    assert main(["fit", "--config", str(config), *options]) == 0
    last = torch.load(config.parent / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3  # to resume from, though it is not the best
    kept = load_recipe(config.parent / "run" / "checkpoints" / "best.ckpt")
    assert isinstance(kept, OneWeight)
    assert (float(kept.weight.detach()) == 0.25) == (best == 0.25)


TEACHER = str(Path(__file__).parents[2] / "configs" / "teacher.yaml")


@pytest.mark.parametrize(
    ("key", "name", "known"),
    [
        ("network", "Denoyser", {"FluenceDenoiser", "FluenceCritic"}),
        ("noise", "HeunSampler", {"LogNormalNoise", "KarrasNoise"}),
        ("optimizer", "Adm", {"Adam", "AdamW", "SGD"}),
    ],
)
def test_an_unknown_class_is_answered_with_those_that_there_are(
    key: str, name: str, known: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(["fit", "--config", TEACHER, f"--model.init_args.{key}.class_path", name], capsys)
    assert f"model.init_args.{key}: no class {name}; expected " in error
    assert known <= set(error.partition("expected ")[2].split(", "))


def test_another_number_of_condition_channels_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.init_args.network.init_args.condition_channels", "9"]
    error = error_of(["fit", "--config", TEACHER, *options], capsys)
    assert "model.init_args.network.init_args.condition_channels is 9, expected 16" in error


@pytest.mark.parametrize(("wishes", "arcs"), [(False, False), (True, False), (True, True)])
def test_condition_channels_follow_the_data(wishes: bool, arcs: bool) -> None:
    """Networks at any depth are given the number, whether they state it already or leave it out."""
    data = {"structures": ["Rectum", "Bladder"], "wishes": wishes, "arcs": arcs}
    expected = len(ChannelSettings(["Rectum", "Bladder"], wishes, arcs).names)
    members = {
        "network": {"class_path": "N", "init_args": {"condition_channels": None, "channels": [8]}},
        "critic": {"class_path": "N", "init_args": {"inner": {"init_args": {"condition_channels": expected}}}},
        "other": {"class_path": "N", "init_args": {"hidden": 3}},
    }
    config = namespace({"data": data, "model": {"class_path": "M", "init_args": members}})
    fill_condition_channels(config)
    assert config["model.init_args.network.init_args.condition_channels"] == expected
    assert config["model.init_args.critic.init_args.inner.init_args.condition_channels"] == expected
    assert "condition_channels" not in config["model.init_args.other.init_args"]


def namespace(content: Any) -> Any:
    """Nested mappings as jsonargparse's parsers give them."""
    if not isinstance(content, dict):
        return content
    made = Namespace()  # type: ignore[no-untyped-call]
    for name, value in content.items():
        made[name] = namespace(value)
    return made
