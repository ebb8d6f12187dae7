"""One trained teacher for all tests of the recipes."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning
import pytest
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging
from synthetic import TEACHER, fit, repeated, synthetic_batch

from lightning_vmat.recipes.loading import build_recipe


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a teacher that was trained on one synthetic case: 150 steps of 8 noise levels."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": TEACHER}))
    lightning.seed_everything(0, verbose=False)
    teacher = build_recipe(folder / "config.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and pytrees
        trainer = fit(teacher, repeated(synthetic_batch(1), 8), 150, EMAWeightAveraging(decay=0.9))
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt", weights_only=False)
    return folder
