"""Weights that are passed on: they do what the run did, and bring nothing of it that planning does not need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from synthetic import synthetic_batch

from lightning_vmat.cli import main
from lightning_vmat.commands.release import release
from lightning_vmat.recipes.card import training_hours
from lightning_vmat.recipes.likeness import read_seen_cases
from lightning_vmat.recipes.loading import build_recipe, load_recipe
from lightning_vmat.recipes.planning import recipe_planner
from lightning_vmat.recipes.runs import channel_settings, find_checkpoint
from lightning_vmat.recipes.weights import WEIGHTS_FILE, shipped_weights, write_weights

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression on a few tiny phantoms."""
    folder = tmp_path_factory.mktemp("release")
    cohort = str(folder / "cohort")
    assert main(["prepare", "phantom", "--out", cohort, "--count", "4", "--size", "tiny", "--plan", "true"]) == 0
    arguments = ["--config", str(CONFIGS / "regression.yaml"), "--data.cohort", cohort, "--data.voxels", "300"]
    arguments += ["--model.init_args.network.init_args.channels", "[8, 8]", "--trainer.max_epochs", "2"]
    arguments += ["--trainer.default_root_dir", str(folder / "run"), "--trainer.log_every_n_steps", "1"]
    arguments += ["--data.cache_dir", str(folder / "rays")]
    assert main(["fit", *arguments]) == 0
    return folder / "run"


def test_released_weights_do_what_the_run_does(run_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    assert main(["release", str(run_directory), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "card.yaml",
        "config.yaml",
        "seen_cases.safetensors",
        "weights.safetensors",
    ]
    like, channels = synthetic_batch(1), len(channel_settings(out).names)
    batch = replace(like, condition=torch.rand(1, channels, *like.condition.shape[2:]))
    torch.testing.assert_close(load_recipe(out).generate(batch), load_recipe(run_directory).generate(batch))
    assert channel_settings(out) == channel_settings(run_directory)
    assert yaml.safe_load((out / "config.yaml").read_text())["data"]["cache_dir"] is None
    assert recipe_planner(out).optimizer is None
    seen = read_seen_cases(out)
    assert seen is not None and [len(part) for part in (seen.train, seen.validation)] == [2, 1]
    card = yaml.safe_load((out / "card.yaml").read_text())
    assert (
        card["recipe"] == "Regression"
        and card["epochs_to_checkpoint"] == 2
        and card["optimizer_steps_to_checkpoint"] == 2
    )
    assert card["cases"] == {"train": 2, "validation": 1, "test": 1}
    assert card["cohort_manifest"]["source"] == "phantom" and card["trainer"]["max_epochs"] == 2
    assert [set(row) for row in card["figures"].values()] == [{"objective", "fluence_error"}]


def test_what_only_training_needs_stays_behind(teacher_run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((teacher_run / "config.yaml").read_text())["model"]["init_args"]
    adam = {"class_path": "torch.optim.Adam"}
    generator = {
        "class_path": "lightning_vmat.recipes.distillation.Distillation",
        "init_args": {
            **{name: settings[name] for name in ("network", "sigma_data")},
            "sigma_max": 20.0,
            "teacher": "nowhere",
            "generator_optimizer": adam,
            "fake_optimizer": adam,
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": generator}))
    recipe = build_recipe(tmp_path / "config.yaml")
    write_weights(recipe, {"model": generator}, {}, tmp_path / "weights")
    with safe_open(tmp_path / "weights" / "weights.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("fake.")]  # noqa: SIM118 -- no dictionary
    batch = synthetic_batch(1)
    torch.testing.assert_close(load_recipe(tmp_path / "weights").generate(batch), recipe.eval().generate(batch))


def test_bad_weights_are_one_line(run_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    assert main(["release", str(run_directory), "--out", str(out)]) == 0
    whole = (out / "weights.safetensors").read_bytes()
    (out / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"weights.safetensors: not readable as safetensors") as caught:
        load_recipe(out)
    assert "\n" not in str(caught.value)


def test_bad_releases_are_one_line(run_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(tmp_path / "nowhere"), "--out", str(tmp_path / "new")], "expected a .ckpt file, a run directory"),
        ([str(run_directory), "--out", str(run_directory)], "exists"),
        ([str(run_directory), "--out", str(tmp_path / "new"), "--generator", "a"], "no run of a learned optimizer"),
    ):
        capsys.readouterr()
        assert main(["release", *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines
        assert not (tmp_path / "new").exists()


def test_names_of_shipped_weights_are_found_where_no_such_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        find_checkpoint(Path("prostate_wished/generator"))
        == shipped_weights()["prostate_wished/generator"] / WEIGHTS_FILE
    )
    with pytest.raises(ValueError, match="one of the shipped weights"):
        find_checkpoint(Path("prostate_wished/nothing"))


def test_hours_follow_from_the_logged_throughput(tmp_path: Path) -> None:
    """7200 cases an epoch, at 2 and 4 a second."""
    assert training_hours(tmp_path, 7200) is None
    (tmp_path / "metrics" / "version_0").mkdir(parents=True)
    rows = ["epoch,throughput/cases_per_s,val/loss", "0,2.0,", "0,,1.0", "1,4.0,"]
    (tmp_path / "metrics" / "version_0" / "metrics.csv").write_text("\n".join(rows))
    assert training_hours(tmp_path, 7200) == 1.5


def test_a_learned_optimizer_goes_with_shipped_generators_only(tmp_path: Path) -> None:
    """Another run's path would not travel."""
    folder = tmp_path / "run"
    folder.mkdir()
    shipped = shipped_weights()["prostate_wished/learned"]
    config = yaml.safe_load((shipped / "config.yaml").read_text())
    config["model"]["init_args"]["generator"] = "runs/generator"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "weights.safetensors").write_bytes((shipped / "weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"runs/generator: expected --generator with one of .*prostate_wished/"):
        release(folder, out=tmp_path / "out")
    with pytest.raises(ValueError, match="run: holds released weights, expected a run directory"):
        release(folder, out=tmp_path / "out", generator="prostate_wished/regression")
