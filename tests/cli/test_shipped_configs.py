"""Every configuration that is shipped parses, names every key of its classes, and explains itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_vmat.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SECTIONS = sorted((CONFIGS / "trainer").glob("*.yaml"))
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path not in SECTIONS)


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
    assert yaml.safe_load(path.read_text()).items() <= {**trainer, "logger": _given(trainer)}.items()


def _given(trainer: dict[str, object]) -> object:
    return trainer["logger"]


@pytest.mark.parametrize("path", RECIPES + SECTIONS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_value_is_explained(path: Path) -> None:
    """A line that sets a plain value ends in a comment, or is one of a class that the comment above explains."""
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    bare = [
        line
        for line in lines
        if line.strip() and "#" not in line and not line.rstrip().endswith(":") and "class_path" not in line
    ]
    assert not [line for line in bare if "{" not in line and ":" in line], bare
