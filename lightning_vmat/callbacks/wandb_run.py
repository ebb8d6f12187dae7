"""Optional logging to Weights & Biases; without a key the run is written to disk, for later synchronisation."""

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
    """Whether there is a W&B key: in WANDB_API_KEY, or in ~/.netrc from `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def mode() -> str:
    """The value of WANDB_MODE, else `online` with a key and `offline` without."""
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


class WandbRun(WandbLogger):
    """The W&B logger: online with a key, offline without, or as WANDB_MODE says. Online, checkpoints become artifacts.

    Args:
        project: W&B project.
        name: name of the run; W&B generates one if None.
        group: group of related runs.
        save_dir: folder of W&B's own files, in `wandb/`.
        keep_checkpoints: upload `best.ckpt` and `last.ckpt` to W&B at the end, if online.
    """

    def __init__(
        self,
        project: str = "lightning_vmat",
        name: str | None = None,
        group: str | None = None,
        save_dir: str = "runs",
        keep_checkpoints: bool = True,
    ) -> None:
        os.makedirs(save_dir, exist_ok=True)  # otherwise W&B writes to the system's temporary folder
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
        """End the W&B run with the training, so that the next training in this process gets a new one."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))
            self._experiment = None


class LogSettings(Callback):
    """Logs the resolved configuration to W&B when training begins.

    Args:
        settings: nested settings by key.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the settings of the run to W&B as hyperparameters."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(self.settings)
