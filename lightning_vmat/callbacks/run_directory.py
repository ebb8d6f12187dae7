"""A run's directory (`trainer.default_root_dir`): the resolved configuration, and a word on where things are."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

CONFIG_FILE = "config.yaml"


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration to `default_root_dir/config.yaml` when training starts.

    The recipe of a checkpoint is rebuilt from this file. Validating or testing never touches it.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, config_filename=CONFIG_FILE, overwrite=True, save_to_log_dir=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / self.config_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        half_written = path.with_suffix(".partial")
        half_written.write_text(self.parser.dump(self.config, skip_unset=False))
        half_written.replace(path)


class AnnounceRun(Callback):
    """Says where a run writes, and how to resume it when it stops early."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank_zero_info(f"{type(pl_module).__name__}: writing to {trainer.default_root_dir}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and checkpoint.exists():
            config = checkpoint.parents[1] / CONFIG_FILE
            rank_zero_info(f"resume with: vmat fit --config {config} --ckpt_path {checkpoint}")
