"""A run in Weights & Biases, which nothing needs: without a key it is written to disk, to be synchronised later."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

SERVER = "https://api.wandb.ai"


def has_key() -> bool:
    """Whether W&B can be reached as somebody: by WANDB_API_KEY, or as `wandb login` left it in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def mode() -> str:
    """What WANDB_MODE says, else `online` with a key and `offline` without."""
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


class WandbRun(WandbLogger):
    """The logger: online with a key, offline without, or as WANDB_MODE says. Online, checkpoints become artifacts.

    Args:
        project: W&B project.
        name: of the run; W&B makes one up if not given.
        group: runs that belong together.
        save_dir: folder of W&B's own files, in `wandb/`.
        keep_checkpoints: store `best.ckpt` and `last.ckpt` with W&B at the end, where that is online.
    """

    def __init__(
        self,
        project: str = "lightning_vmat",
        name: str | None = None,
        group: str | None = None,
        save_dir: str = "runs",
        keep_checkpoints: bool = True,
    ) -> None:
        os.makedirs(save_dir, exist_ok=True)  # else W&B writes to the system's temporary folder
        super().__init__(
            name=name,
            save_dir=save_dir,
            project=project,
            group=group,
            mode=mode(),
            log_model=keep_checkpoints and mode() == "online",
        )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run with its training, so that a next one in this process is another."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))
            self._experiment = None


class LogSettings(Callback):
    """The resolved configuration to W&B, once a training begins.

    Args:
        settings: by key, nested.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the settings of the run to W&B as hyperparameters."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(self.settings)
