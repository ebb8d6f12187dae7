"""`vmat release`: the weights of a trained run as a folder to pass on."""

from __future__ import annotations

from pathlib import Path


def release(run: Path, *, out: Path, generator: str | None = None) -> None:
    """Write a run's weights as safetensors, with the configuration that made them and a card; nothing else of the run.

    Args:
        run: run directory of a trained recipe.
        out: folder to write; `vmat plan --run` takes it like a run directory.
        generator: weights that stand for the generator's run in the configuration of a learned optimizer.

    Raises:
        ValueError: no run with a checkpoint, or a folder that is there already.
    """
    import yaml

    from lightning_vmat.recipes.card import describe
    from lightning_vmat.recipes.learned_optimizer import LearnedOptimization
    from lightning_vmat.recipes.loading import find_config, load_recipe
    from lightning_vmat.recipes.weights import CARD_FILE, write_weights

    recipe = load_recipe(run)
    config = yaml.safe_load(find_config(run).read_text())
    if generator is not None:
        if not isinstance(recipe, LearnedOptimization):
            raise ValueError(f"generator {generator}: {run} is no run of a learned optimizer")
        config["model"]["init_args"]["generator"] = recipe.generator_run = generator
    card = describe(run, config, recipe)
    write_weights(recipe, config, card, out)
    print(yaml.safe_dump(card, sort_keys=False), end="")
    print(f"weights: {out}, card: {out / CARD_FILE}")
