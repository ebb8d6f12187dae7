"""Weights & Biases is never needed: without a key runs are written to disk, whole, and nobody is asked anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from offline_run import read_run

from lightning_vmat.benchmarks.benchmark_wandb import log_table, table_rows
from lightning_vmat.callbacks.wandb_run import WandbRun, has_key, mode
from lightning_vmat.cli import main

LOGGER = Path(__file__).parents[2] / "configs" / "logger" / "wandb.yaml"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:wandb"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_a_fit_without_a_key_keeps_settings_metrics_and_figures(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    figures = ("figures.FluenceFilm", "dose_volumes.DoseVolumes")
    content["trainer"]["callbacks"] += [{"class_path": f"lightning_vmat.callbacks.{name}"} for name in figures]
    content["data"] |= {"with_problems": True, "voxels": 300}
    config.write_text(yaml.safe_dump(content))
    folder = config.parent / "runs"
    options = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "1", "--trainer.logger", str(LOGGER)]
    assert main(["fit", "--config", str(config), *options, "--trainer.logger.init_args.save_dir", str(folder)]) == 0

    settings, rows = read_run(folder)
    assert settings["model"]["init_args"]["rate"] == 0.1  # a default: the configuration is resolved
    assert settings["trainer"]["max_epochs"] == 1
    logged = {name for row in rows for name in row}
    assert {"train/loss", "val/objective", "val/diversity"} <= logged
    for figure in ("fluence", "dvh"):
        assert any(name.startswith(f"{figure}/") or name == figure for name in logged)
        assert len(list((config.parent / "run" / "figures").glob(f"{figure}_*.png"))) == 1
        assert len(list(folder.glob(f"wandb/offline-run-*/files/media/images/{figure}_*.png"))) == 1


def test_a_key_or_the_mode_asked_for_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not has_key() and mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_key() and mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # the key is of another server
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert mode() == "online"
    assert WandbRun(save_dir=str(tmp_path))._log_model is True  # checkpoints as artifacts
    assert WandbRun(save_dir=str(tmp_path), keep_checkpoints=False)._log_model is False
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode() == "offline"
    assert WandbRun(save_dir=str(tmp_path))._log_model is False


CASES = {"reference": {"a": {"objective": 3.0, "gap": 0.5}, "b": {"objective": 4.0}}, "fluence": {"a": {"hi": 0.1}}}


def test_a_benchmark_becomes_a_table_of_planners_and_cases(tmp_path: Path) -> None:
    columns, rows = table_rows(CASES)
    assert columns == ["planner", "case", "objective", "gap", "hi"]
    assert ["reference", "b", 4.0, None, None] in rows and ["fluence", "a", None, None, 0.1] in rows
    log_table("lightning_vmat", tmp_path / "runs", {"voxels": 300}, CASES)
    settings, logged = read_run(tmp_path / "runs")
    assert settings["voxels"] == 300
    assert [row["benchmark/nrows"] for row in logged] == [3]
    (table,) = (tmp_path / "runs").glob("wandb/offline-run-*/files/media/table/benchmark_*.table.json")
    assert json.loads(table.read_text())["data"] == rows
