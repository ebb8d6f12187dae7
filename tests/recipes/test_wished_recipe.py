"""A network that sees the wishes of its cases, from the cohort to `vmat plan --wish`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.plan.wishes import WISHES, log_wishes
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.planning import recipe_planner
from lightning_vmat.recipes.runs import channel_settings, check_channels

CONFIG = Path(__file__).parents[2] / "configs" / "regression.yaml"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wished") / "cohort"
    options = ["--count", "4", "--size", "tiny", "--wishes", "1.0", "--plan=true", "--jobs=1"]
    assert main(["prepare", "phantom", "--out", str(root), *options]) == 0
    return root


@pytest.fixture(scope="module")
def run(cohort: Path) -> Path:
    network = "--model.init_args.network.init_args"
    arguments = ["--config", str(CONFIG), "--data.cohort", str(cohort), "--data.voxels", "300", "--data.wishes=true"]
    arguments += ["--data.fluence_evaluations=0", "--data.mirror=false"]
    arguments += [f"{network}.channels", "[8, 8]", "--trainer.max_epochs", "2"]
    arguments += ["--trainer.default_root_dir", str(cohort.parent / "run"), "--trainer.log_every_n_steps", "1"]
    assert main(["fit", *arguments]) == 0
    return cohort.parent / "run"


def test_batches_hold_the_wishes_of_their_cases(cohort: Path) -> None:
    module = CohortDataModule(cohort, ["Rectum"], batch_size=2, voxels=300, wishes=True)
    module.setup("fit")
    (batch,) = module.train_dataloader()
    for name, condition in zip(batch.case_ids, batch.condition, strict=True):
        wishes = yaml.safe_load((cohort / name / "case.yaml").read_text())["wishes"]
        assert condition[-len(WISHES) :, 3, 2, 1].tolist() == pytest.approx(log_wishes(wishes))


def test_a_planner_gives_its_network_the_wishes(run: Path) -> None:
    case = make_phantom(9, "tiny")
    planner = recipe_planner(run, voxels=300)
    cases = [case, case, case.with_settings(wishes={"Rectum": 4.0})]
    plain, again, wished = (planner.start(CaseProblems(one, 300)) for one in cases)
    assert torch.equal(plain, again) and not torch.equal(plain, wished)


def test_a_run_is_not_given_other_channels(run: Path, cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structures = yaml.safe_load((run / "config.yaml").read_text())["data"]["structures"]
    assert channel_settings(run) == ChannelSettings(structures, wishes=True)
    with pytest.raises(ValueError, match=r"data\.wishes false: expected true as in the run"):
        check_channels(run, ChannelSettings(structures))
    weights = cohort.parent / "weights"
    assert main(["release", str(run), "--out", str(weights)]) == 0
    capsys.readouterr()
    arguments = ["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(weights)]
    assert main(arguments) == 0
    assert main([*arguments, "--data.structures", str(structures[::-1])]) == 2
    assert "expected" in capsys.readouterr().err
    assert main([*arguments, "--data.wishes=false"]) == 2
    number, expected = len(ChannelSettings(structures, wishes=True).names), len(structures) + 2
    assert f"condition_channels is {number}, expected {expected}" in capsys.readouterr().err
