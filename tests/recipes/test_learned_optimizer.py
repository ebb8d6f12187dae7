"""The learned optimizer's recipe, through the real command line on tiny phantoms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from synthetic import synthetic_batch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.l2o.aperture_lstm import ApertureLSTM
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.comparison import Comparison
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.recipes.learned_optimizer import LearnedOptimization, mixed, varied_start, with_other_weights
from lightning_vmat.recipes.loading import load_recipe
from lightning_vmat.recipes.planning import recipe_planner
from lightning_vmat.recipes.runs import check_channels
from lightning_vmat.recipes.trained import step_correction

CONFIGS = Path(__file__).parents[2] / "configs"


def recipe() -> LearnedOptimization:
    return LearnedOptimization(LearnedOptimizer(hidden=4), lambda p: torch.optim.Adam(p, lr=1e-3), evaluations=3)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, a fit and a test."""
    folder = tmp_path_factory.mktemp("l2o")
    cohort = str(folder / "cohort")
    assert main(["prepare", "phantom", "--out", cohort, "--count", "6", "--size", "tiny", "--jobs", "1"]) == 0
    arguments = [f"--config={folder / 'learned_optimizer.yaml'}" for folder in (CONFIGS, CONFIGS / "demo")]
    arguments += ["--data.cohort", cohort]
    arguments += ["--data.voxels", "500", "--model.init_args.generator", "null"]
    arguments += ["--trainer.default_root_dir", str(folder), "--trainer.enable_progress_bar", "false"]
    arguments += ["--trainer.max_epochs", "4", "--model.init_args.network.init_args.hidden", "4"]
    assert main(["fit", *arguments]) == 0
    assert main(["test", *arguments, "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]) == 0
    return folder


def test_table_compares_all_from_the_same_start(run_directory: Path) -> None:
    """The plumbing alone: four epochs on four tiny phantoms teach nothing (learning is tested on toy problems)."""
    result = json.loads((run_directory / "comparison.json").read_text())
    table = result["median"]
    assert result["start"] == "open field"
    assert set(table) == {"learned", "lbfgs", "accelerated_gradient", "adam", "lbfgs_from_open_field"}
    assert set(result["adam_rates"]) == {"5", "10", "20"}
    assert len({row["0"] for row in table.values()}) == 1
    for row in table.values():
        assert row["20"] <= row["10"] <= row["5"] <= row["0"]
    assert {k: table["lbfgs"][k] for k in ("5", "20")} == {k: table["lbfgs_from_open_field"][k] for k in ("5", "20")}


def test_open_field_shows_what_the_start_is_worth() -> None:
    problem = build_problem(make_phantom(42, "tiny"), voxels=500)
    comparison = Comparison()
    comparison.add(problem, LearnedOptimizer(hidden=4), 0.1 * torch.ones_like(problem.open_field))
    table = comparison.table()
    assert table["lbfgs_from_open_field"]["0"] == pytest.approx(float(problem.value(problem.open_field)))
    assert table["lbfgs"]["0"] == table["learned"]["0"] != table["lbfgs_from_open_field"]["0"]


def test_a_generator_of_other_structures_is_refused(
    run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Condition channels in another order than the generator's would go unnoticed."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    structures = ["Bladder", "Rectum"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"structures": structures}}))
    config = run_directory / "config.yaml"
    options = ["--model.init_args.generator", str(tmp_path), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", "--config", str(config), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "expected [Bladder, Rectum]" in error and str(tmp_path) in error
    check_channels(tmp_path, ChannelSettings(structures))
    with pytest.raises(ValueError, match=r"data\.structures \[Rectum, Bladder\]: expected \[Bladder, Rectum\]"):
        check_channels(tmp_path, ChannelSettings(structures[::-1]))


def test_mirror_images_are_refused(run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.mirror=true", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", "--config", str(run_directory / "config.yaml"), *options]) == 2
    assert "data.mirror true: expected false" in capsys.readouterr().err


def test_a_planner_refuses_a_generator_of_other_structures(run_directory: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((run_directory / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"structures": ["Bladder"]}}))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    content["model"]["init_args"]["generator"] = str(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(run_directory / "checkpoints", run / "checkpoints")
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"expected \[Bladder\] as in the run"):
        recipe_planner(run)


def test_run_can_be_read_back_and_plans(run_directory: Path) -> None:
    loaded = load_recipe(run_directory)
    assert isinstance(loaded, LearnedOptimization)
    problem = build_problem(make_phantom(40, "tiny"), voxels=500)
    batch = replace(
        synthetic_batch(1), problems=(problem,), condition=torch.zeros(1, 8, *problem.open_field.shape), fluence=None
    )
    x = loaded.generate(batch)
    assert x.min() >= 0
    assert problem.value(x[0]) < 0.7 * problem.value(problem.open_field)


def test_a_quick_planner_corrects_the_steps_of_apertures(run_directory: Path) -> None:
    correction = step_correction(run_directory)
    assert isinstance(correction, ApertureLSTM)
    assert not any(parameter.requires_grad for parameter in correction.parameters())
    assert float(correction.tip_gains.weight.abs().max()) > 0  # training changed it
    for budget, corrected in ((8, True), (20, False)):
        for optimizer in (None, LBFGS()):
            staged = recipe_planner(run_directory, voxels=500, budget=budget, optimizer=optimizer)
            assert staged.apertures is not None
            assert isinstance(staged.apertures.correction, ApertureLSTM) == corrected


def test_both_modes_are_logged(run_directory: Path) -> None:
    tables = run_directory.glob("metrics*/**/metrics.csv")
    logged = {name for table in tables for name in table.read_text().splitlines()[0].split(",")}
    assert {"train/aperture_loss", "val/aperture_log_ratio", "test/aperture_correction"} <= logged


def test_without_apertures_there_is_no_correction(run_directory: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((run_directory / "config.yaml").read_text())
    del content["model"]["init_args"]["apertures"]
    shutil.copytree(run_directory / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert step_correction(tmp_path) is None


def test_problems_are_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="with_problems"):
        recipe().generate(synthetic_batch(1))


@pytest.mark.parametrize("settings", [{"evaluations": 0}, {"window": 0}, {"window": 21, "horizon": 21}])
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        LearnedOptimization(LearnedOptimizer(hidden=4), torch.optim.Adam, **settings)  # type: ignore[arg-type]


def test_other_weights_change_the_objective_and_leave_the_problem_alone() -> None:
    problem = build_problem(make_phantom(41, "tiny"), voxels=500)
    before = problem.value(problem.open_field)
    torch.manual_seed(0)
    other = with_other_weights(problem, 1.0)
    assert other.value(problem.open_field) != before
    assert problem.value(problem.open_field) == before
    torch.testing.assert_close(with_other_weights(problem, 0.0).value(problem.open_field), before)


def test_varied_starts_are_non_negative_and_keep_the_field_closed() -> None:
    x = torch.rand(4, 3, 5, 5) * (torch.rand(4, 3, 5, 5) > 0.5)
    varied = varied_start(x)
    assert varied.min() >= 0
    assert (varied[x == 0] == 0).all()


def test_mixed_starts_come_from_either() -> None:
    torch.manual_seed(0)
    ones, twos = torch.ones(400, 1, 1, 1), 2 * torch.ones(400, 1, 1, 1)
    assert torch.equal(mixed(ones, twos, 0.0), ones)
    assert torch.equal(mixed(ones, twos, 1.0), twos)
    assert mixed(ones, twos, 0.25).mean().item() == pytest.approx(1.25, abs=0.06)
