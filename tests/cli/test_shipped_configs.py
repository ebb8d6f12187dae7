"""Every configuration that is shipped parses and explains itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_vmat.cli import main
from lightning_vmat.data.packed import read_pack, shipped_cohorts

CONFIGS = Path(__file__).parents[2] / "configs"
SECTIONS = sorted((CONFIGS / "trainer").glob("*.yaml"))
LOGGERS = sorted((CONFIGS / "logger").glob("*.yaml"))
RECIPES = sorted(path for folder in (CONFIGS, CONFIGS / "demo") for path in folder.glob("*.yaml"))
OTHERS = SECTIONS + LOGGERS + sorted((CONFIGS / "sweeps").glob("*.yaml"))


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What `--print_config` prints."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert stopped.value.code in (None, 0)
    content = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_recipe_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"model", "data", "trainer", "seed_everything"} <= set(printed(["fit", "--config", str(path)], capsys))


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.stem)
def test_trainer_section_fits_a_recipe(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--trainer", str(path)], capsys)
    trainer = content["trainer"]
    assert isinstance(trainer, dict)
    for key, value in yaml.safe_load(path.read_text()).items():
        if not isinstance(value, dict):
            assert trainer[key] == value


@pytest.mark.parametrize("path", LOGGERS, ids=lambda path: path.stem)
def test_logger_section_fits_a_recipe(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(["fit", "--config", str(CONFIGS / "teacher.yaml"), "--trainer.logger", str(path)], capsys)
    trainer = content["trainer"]
    assert isinstance(trainer, dict) and trainer["logger"] == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", RECIPES + OTHERS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_configuration_is_short_and_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(lines) <= 60
    plain = [line for line in lines if not line.startswith("#") and not line.rstrip().endswith(":")]
    unexplained = [line for line in plain if "#" not in line and "class_path" not in line and "init_args" not in line]
    assert not unexplained


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_averaged_weights_forget_the_initial_ones(path: Path) -> None:
    """On the cohort that a configuration names (the demo's has 16 training cases), less than 2 % is left in the end."""
    content = yaml.safe_load(path.read_text())
    cohort = content["data"]["cohort"]
    cases = len(read_pack(cohort).split["train"]) if cohort in shipped_cohorts() else 16
    batches = content["trainer"]["max_epochs"] * cases // content["data"]["batch_size"]
    for callback in content["trainer"]["callbacks"]:
        if callback["class_path"].endswith("EMAWeightAveraging"):
            assert callback["init_args"]["decay"] ** batches < 0.02


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_metrics_follow_the_run_directory(path: Path) -> None:
    assert "logger" not in yaml.safe_load(path.read_text())["trainer"]
