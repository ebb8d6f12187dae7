"""A run's directory (`trainer.default_root_dir`): the resolved configuration, and a word on where things are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info

from lightning_vmat.data.atomic import atomic_file

CONFIG_FILE = "config.yaml"


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration to `default_root_dir/config.yaml` once a batch went through the recipe.

    The recipe of a checkpoint is rebuilt from this file, so it is there before any checkpoint; and a run that never
    gets to train leaves that of an earlier run, and no empty folders. Validating or testing never touches it.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, config_filename=CONFIG_FILE, overwrite=True, save_to_log_dir=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: the data, the model and what they read may still be at fault."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_once(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._save_once(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and not self.already_saved:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    remove_empty(Path(logger.log_dir), Path(trainer.default_root_dir))

    def _save_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not self.already_saved:
            self.save_config(trainer, pl_module, "fit")
            self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with atomic_file(Path(trainer.default_root_dir) / self.config_filename) as draft:
            draft.write_text(self.parser.dump(self.config, skip_unset=False))


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those around it up to `top`, as far as they are empty."""
    for place in (folder, *folder.parents):
        if not place.is_relative_to(top) or not place.is_dir() or any(place.iterdir()):
            return
        place.rmdir()


class AnnounceRun(Callback):
    """Says where a run writes, and how to resume it when it stops early."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank_zero_info(f"{type(pl_module).__name__}: writing to {trainer.default_root_dir}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and checkpoint.exists():
            config = checkpoint.parents[1] / CONFIG_FILE
            rank_zero_info(f"resume with: vmat fit --config {config} --ckpt_path {checkpoint}")
