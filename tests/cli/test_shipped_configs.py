"""Every configuration that is shipped parses and explains itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_vmat.cli import main
from lightning_vmat.data.packed import read_pack, shipped_cohorts

CONFIGS = Path(__file__).parents[2] / "configs"
SECTIONS = sorted((CONFIGS / "trainer").glob("*.yaml"))
LOGGERS = sorted((CONFIGS / "logger").glob("*.yaml"))
RECIPES = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem != "network")
OVERLAYS = sorted(path for name in ("demo", "head_and_neck") for path in (CONFIGS / name).glob("[!n]*.yaml"))
COMPOSED = [[path] for path in RECIPES] + [[CONFIGS / path.name, path] for path in OVERLAYS]
DEMO = "runs/demo/cohort"
TRAINING_CASES = {DEMO: 16, "runs/head_and_neck": 104}
OTHERS = SECTIONS + LOGGERS + sorted((CONFIGS / "sweeps").glob("*.yaml")) + sorted(CONFIGS.rglob("network.yaml"))


def name_of(paths: list[Path] | Path) -> str:
    """The last file of a composition, below `configs/`."""
    return str((paths[-1] if isinstance(paths, list) else paths).relative_to(CONFIGS))


def composed(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `vmat fit` makes of configuration files."""
    return printed(["fit", *(f"--config={path}" for path in paths)], capsys)


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `--print_config` prints."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert stopped.value.code in (None, 0)
    content = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("paths", COMPOSED, ids=name_of)
def test_recipe_parses(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Names of classes are resolved, and the one network of `network.yaml` is part of it."""
    content = composed(paths, capsys)
    assert {"model", "data", "trainer", "seed_everything"} <= set(content)
    assert content["model"]["class_path"].startswith("lightning_vmat.recipes.")
    network = content["model"]["init_args"]["network"]
    if network["class_path"].endswith("FluenceDenoiser"):
        shipped: dict[str, Any] = {}
        for path in paths:
            if (beside := path.parent / "network.yaml").is_file():
                shipped |= yaml.safe_load(beside.read_text())["init_args"]
        assert {key: network["init_args"][key] for key in shipped} == shipped


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_an_overlay_holds_nothing_but_what_differs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below = flat(composed([CONFIGS / path.name], capsys))
    own = yaml.safe_load(path.read_text())
    own.get("model", {"init_args": {}})["init_args"].pop("network", None)
    for key, value in flat(own).items():
        assert below[key] != value, key


def flat(content: Any, key: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys."""
    if not isinstance(content, dict):
        return {key: content}
    return {name: value for one, part in content.items() for name, value in flat(part, f"{key}.{one}").items()}


@pytest.mark.parametrize("path", RECIPES + OVERLAYS + OTHERS, ids=name_of)
def test_what_can_be_derived_is_not_stated(path: Path) -> None:
    text = path.read_text()
    assert "condition_channels" not in text
    assert not re.search(r"class_path: \w+\.", text), "expected bare class names"


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
    logger = yaml.safe_load(path.read_text())
    class_path = content["trainer"]["logger"].pop("class_path")
    assert class_path.endswith(f".{logger.pop('class_path')}")
    assert content["trainer"]["logger"] == logger


@pytest.mark.parametrize("path", RECIPES + OVERLAYS + OTHERS, ids=name_of)
def test_configuration_is_short_and_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(lines) <= 60
    plain = [line for line in lines if not line.startswith("#") and not line.rstrip().endswith(":")]
    unexplained = [line for line in plain if "#" not in line and "class_path" not in line and "init_args" not in line]
    assert not unexplained


@pytest.mark.parametrize("paths", COMPOSED, ids=name_of)
def test_averaged_weights_forget_the_initial_ones(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """On the cohort that a configuration names, less than 2 % is left in the end.

    A generator of base size, six epochs from its teacher, still has a third of it.
    """
    content = composed(paths, capsys)
    cohort = content["data"]["cohort"]
    cases = len(read_pack(cohort).split["train"]) if cohort in shipped_cohorts() else TRAINING_CASES[cohort]
    batches = content["trainer"]["max_epochs"] * cases // content["data"]["batch_size"]
    for callback in content["trainer"]["callbacks"]:
        if callback["class_path"].endswith("EMAWeightAveraging"):
            most = 0.02 if cohort == DEMO or "distillation" not in content["model"]["class_path"] else 1 / 3
            assert callback["init_args"]["decay"] ** batches < most


@pytest.mark.parametrize("paths", COMPOSED, ids=name_of)
def test_metrics_follow_the_run_directory(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert composed(paths, capsys)["trainer"]["logger"] is None
