"""`vmat fit`, `validate`, `test` and `predict`: recipes from YAML, through Lightning's command line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # lightning 2.6 calls jsonargparse by old names

import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from torch.multiprocessing.spawn import ProcessRaisedException

from lightning_vmat.callbacks.progress_lines import ProgressLines
from lightning_vmat.callbacks.run_directory import AnnounceRun, SaveRunConfig
from lightning_vmat.callbacks.seeds import EpochSeeds
from lightning_vmat.callbacks.stop_on_preemption import StopOnPreemption
from lightning_vmat.callbacks.throughput import Throughput
from lightning_vmat.callbacks.trace import StepTrace
from lightning_vmat.callbacks.wandb_run import LogSettings
from lightning_vmat.commands.arguments import clear_message
from lightning_vmat.commands.class_names import unknown_class
from lightning_vmat.commands.condition_channels import fill_condition_channels
from lightning_vmat.commands.resuming import check_checkpoint, stopped_at
from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.progress import on_terminal
from lightning_vmat.recipes.base import PlanRecipe
from lightning_vmat.recipes.loading import load_recipe
from lightning_vmat.recipes.runs import check_channels, find_checkpoint
from lightning_vmat.recipes.weights import WEIGHTS_FILE, shipped_weights

CHECKPOINT_WORDS = ("best", "last", "hpc")  # Lightning looks the file up itself
EXPECTED_WARNINGS = (
    ".*LeafSpec.*",  # lightning 2.6 on torch 2.13
    ".*does not have many workers.*",  # cases are cached in memory: workers would copy them
    ".*You're resuming from a checkpoint that ended before the epoch ended.*",  # batches that were done are left out
    "The `srun` command is available",  # a fit on a cluster's login node, or on one machine of one
    "Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its directory
    ".*You're using the WeightAveraging callback, but loading.*",  # the averaged weights are the checkpoint's own
)
INPUT_ERRORS = ("ValueError", "OSError", "FileNotFoundError", "PermissionError", "NotADirectoryError")
GOES_ON = "the same command resumes the run; --data.num_workers 0 uses one process"
NO_NEWS = ("\N{ELECTRIC LIGHT BULB}", "TPU available", "Loading `train_dataloader`")  # lightning's log lines for nobody


class RecipeCLI(LightningCLI):
    """One recipe, one cohort, one trainer; the recipe's class comes from the configuration."""

    def __init__(self, args: list[str]) -> None:
        parser_kwargs = {name: {"exit_on_error": False} for name in self.subcommands()}
        super().__init__(
            model_class=PlanRecipe,
            datamodule_class=CohortDataModule,
            subclass_mode_model=True,
            save_config_callback=SaveRunConfig,
            trainer_defaults={
                "default_root_dir": "runs/latest",
                "use_distributed_sampler": False,  # the cohort shares out its cases itself
                "callbacks": [AnnounceRun(), EpochSeeds(), Throughput()],
            },
            seed_everything_default=0,
            parser_kwargs={"prog": "vmat", "exit_on_error": False, **parser_kwargs},
            auto_configure_optimizers=False,  # a recipe builds its own
            load_from_checkpoint_support=False,  # a recipe is rebuilt from its run's config.yaml
            args=args,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the given arguments only, never `sys.argv`."""
        self.config = parser.parse_args(args if isinstance(args, list) else None)
        subcommand = self.config["subcommand"]
        fill_condition_channels(self.config[subcommand])
        path = self.config[subcommand].get("ckpt_path")
        if path is not None and path not in CHECKPOINT_WORDS and (subcommand == "fit" or not holds_weights(path)):
            check_checkpoint(Path(path))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--resume` and `--profile`."""
        parser.add_argument("--resume", type=bool, default=True, help="Resume a stopped run of the same settings.")

        parser.add_argument(
            "--profile",
            type=bool,
            default=False,
            help="Profile a few steps of fit, in profile/ of the run directory.",
        )

    def before_fit(self) -> None:
        """Without `--ckpt_path`, resume the stopped run in the run directory, if there is one."""
        config = self.config["fit"]
        settings = yaml.safe_load(self._parser("fit").dump(config, skip_unset=False))
        self.trainer.callbacks += [LogSettings(settings), StopOnPreemption()]  # type: ignore[attr-defined]
        if config["resume"] and not config["ckpt_path"]:
            self.config_init["fit"]["ckpt_path"] = stopped_at(Path(config["trainer"]["default_root_dir"]), settings)

    def before_test(self) -> None:
        """Load released weights, which are not a Lightning checkpoint, if `--ckpt_path` names some."""
        config = self.config_init[self.subcommand]
        if config["ckpt_path"] and holds_weights(config["ckpt_path"]):
            recipe = load_recipe(config["ckpt_path"])
            if type(recipe) is not type(self.model):
                raise ValueError(
                    f"weights {config['ckpt_path']}: of a {type(recipe).__name__}, expected a "
                    f"{type(self.model).__name__} as in the configuration"
                )
            data = self.config[self.subcommand]["data"]
            check_channels(config["ckpt_path"], ChannelSettings.of(vars(data)))
            try:
                self.model.load_state_dict(recipe.state_dict())
            except RuntimeError as error:
                raise ValueError(f"weights {config['ckpt_path']}: another network than the configuration's") from error
            config["ckpt_path"] = None

    before_validate = before_predict = before_test

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer; without a logger of its own it writes `metrics/version_N/metrics.csv` in the run directory."""
        trainer = self._get(self.config_init, "trainer")
        if trainer["logger"] is None or trainer["logger"] is True:
            kwargs["logger"] = CSVLogger(trainer["default_root_dir"], name="metrics")
        own = trainer["callbacks"] or []
        callbacks = list(own) if isinstance(own, list) else [own]
        if self._get(self.config_init, "profile") and self.subcommand == "fit":
            callbacks.append(StepTrace())
        wanted = trainer["enable_progress_bar"] is not False and not trainer["barebones"]
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if wanted and not has_bar:
            callbacks.append(TQDMProgressBar() if on_terminal(sys.stdout) else ProgressLines())
        kwargs["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except ModuleNotFoundError as error:  # of a TPU, or of a strategy
            chosen = ", ".join(f"trainer.{name} {trainer[name]}" for name in ("accelerator", "strategy"))
            raise ValueError(f"{chosen}: expected one that is installed ({error})") from error


class ParsersOnly(RecipeCLI):
    """The command line as it is set up; nothing is parsed or run."""

    def __init__(self) -> None:
        self.parsers: dict[str, LightningArgumentParser] = {}
        with contextlib.suppress(EOFError):
            super().__init__([])

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keep the parsers and end the set-up."""
        self.parsers = {name: self._parser(name) for name in self.subcommands()}
        raise EOFError


def recipe_parsers() -> dict[str, LightningArgumentParser]:
    """The parsers of `vmat fit`, `validate`, `test` and `predict`."""
    return ParsersOnly().parsers


def holds_weights(path: str) -> bool:
    """Whether a path is a folder of weights, or the name of shipped ones."""
    return path in shipped_weights() or (Path(path).is_dir() and find_checkpoint(Path(path)).name == WEIGHTS_FILE)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log tells anything about the run."""
    return not record.getMessage().startswith(NO_NEWS)


def sources(arguments: list[str]) -> list[str]:
    """Where settings came from: the configuration files, and the command line."""
    files = [value for option, value in pairwise(arguments) if option in ("--config", "-c")]
    return [*files, *(a.removeprefix("--config=") for a in arguments if a.startswith("--config=")), "command line"]


def run(arguments: list[str]) -> None:
    """Run a recipe.

    Args:
        arguments: the subcommand (`fit`, `validate`, `test` or `predict`) and its options.

    Raises:
        ValueError: an invalid configuration.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_news)
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            RecipeCLI(arguments)
        except ArgumentError as error:
            message = clear_message(error)
            where = " + ".join(sources(arguments))
            raise ValueError(f"{unknown_class(message) or message} (in {where})") from error
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(clear_message(error)) from error
        except ProcessRaisedException as error:  # one of several processes on this machine
            what, _, why = str(error).strip().splitlines()[-1].partition(": ")
            if what not in INPUT_ERRORS:
                raise
            raise ValueError(why) from error
        except (RuntimeError, ConnectionResetError) as error:  # whichever the loss of a worker shows as first
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise OSError(f"a data worker was killed, perhaps for lack of memory; {GOES_ON} ({error})") from error
