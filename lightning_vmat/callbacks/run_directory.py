"""The run directory (`trainer.default_root_dir`): writes the resolved configuration, and announces the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info

from lightning_vmat.callbacks.metrics_rows import drop_rows_from
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.files.yaml_file import read_mapping

CONFIG_FILE = "config.yaml"
UNFINISHED_FILE = "unfinished.yaml"  # exists from the first batch of a run until its end
METRICS_FILE = "metrics.csv"


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration to `default_root_dir/config.yaml` after the first batch.

    The recipe of a checkpoint is rebuilt from this file, so it is written before any checkpoint. A run that fails
    before its first batch leaves the file of an earlier run, and no empty folders. Validation and test never change it.
    `unfinished.yaml` beside it marks a run that has not ended. A new run renames the
    checkpoints of an earlier one, so that it does not resume from them if it is stopped.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, config_filename=CONFIG_FILE, overwrite=True, save_to_log_dir=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet, because data or model may still raise an error."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the configuration once validation has worked."""
        self._save_once(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the configuration after the first batch, if no sanity check ran before."""
        self._save_once(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the mark of an unfinished run."""
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / UNFINISHED_FILE).unlink(missing_ok=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the empty folders of a run that failed before it began."""
        if trainer.is_global_zero and not self.already_saved:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    remove_empty(Path(logger.log_dir), Path(trainer.default_root_dir))

    def _save_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not self.already_saved:
            self._begin(trainer)
            self.save_config(trainer, pl_module, "fit")
            self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the resolved configuration to the run directory."""
        with atomic_file(Path(trainer.default_root_dir) / self.config_filename) as draft:
            draft.write_text(self.parser.dump(without_start(self.config), skip_unset=False))

    def _begin(self, trainer: Trainer) -> None:
        """Mark the run as unfinished, and drop metrics that an earlier part of it logged after the checkpoint."""
        run = Path(trainer.default_root_dir)
        if trainer.ckpt_path is None:
            for name in ("last", "previous", "best"):
                set_aside(run / "checkpoints" / f"{name}.ckpt")
            for checkpoint in run.glob("hpc_ckpt_*.ckpt"):
                checkpoint.unlink(missing_ok=True)
        earlier = noted_metrics(run)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step of this batch in the log
        for folder in earlier:
            drop_rows_from(run / folder / METRICS_FILE, step)
        logs = [Path(logger.log_dir) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        parts = [str(folder.relative_to(run)) for folder in logs if folder.is_relative_to(run)]
        with atomic_file(run / UNFINISHED_FILE) as draft:
            content = yaml.safe_dump({"metrics": [*earlier, *parts]})
            draft.write_text(f"# The same `vmat fit` goes on from the last checkpoint.\n{content}")


def set_aside(checkpoint: Path) -> None:
    """Rename a checkpoint of an earlier run to `NAME.replaced.ckpt`, from which no run resumes by itself."""
    if checkpoint.is_file():
        checkpoint.replace(checkpoint.with_name(f"{checkpoint.stem}.replaced.ckpt"))


def noted_metrics(run: Path) -> list[str]:
    """Log folders of the parts of a stopped run."""
    path = run / UNFINISHED_FILE
    return list(read_mapping(path)["metrics"]) if path.is_file() else []


def without_start(config: Namespace) -> Namespace:
    """The configuration without the options that only set the starting point of one command."""
    kept = config.clone()
    kept.ckpt_path, kept.resume, kept.profile = None, True, False
    return kept


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and its parents up to `top`, if they are empty."""
    for place in (folder, *folder.parents):
        if not place.is_relative_to(top) or not place.is_dir() or any(place.iterdir()):
            return
        place.rmdir()


class AnnounceRun(Callback):
    """Prints where a run writes, what it resumes from, and how to resume it after an early stop."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print where the run writes and how to resume it."""
        run = Path(trainer.default_root_dir)
        begins = f"resumes from {trainer.ckpt_path}" if trainer.ckpt_path else "starts"
        rank_zero_info(f"{type(pl_module).__name__} {begins}; writing to {run}, settings in {run / CONFIG_FILE}")
        rank_zero_info("after an early stop, the same command resumes from the last checkpoint")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Print the command that resumes an interrupted run."""
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and checkpoint.exists():
            rank_zero_info(f"resume from {checkpoint} with: vmat fit --config {checkpoint.parents[1] / CONFIG_FILE}")
