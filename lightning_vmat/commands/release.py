"""`vmat release`: writes the weights of a trained run to a folder that can be passed on."""

from __future__ import annotations

from pathlib import Path


def release(run: Path, *, out: Path, generator: str | None = None) -> None:
    """Write the weights of a run as safetensors, with the configuration that planning needs and a card.

    Features of the cases of its training go with them, so that planning can say when a case is unlike these.

    Args:
        run: Run directory of a trained recipe.
        out: Folder to write; `vmat plan --run` accepts it like a run directory.
        generator: For a learned optimizer: shipped weights to name as its generator, in place of the generator's run.

    Raises:
        ValueError: no run with a checkpoint, a learned optimizer whose generator is a run, which does not travel, or a
            folder that is there already.
    """
    import yaml

    from lightning_vmat.files.atomic import check_free
    from lightning_vmat.files.yaml_file import read_mapping
    from lightning_vmat.recipes.card import describe, seen_cases
    from lightning_vmat.recipes.learned_optimizer import LearnedOptimization
    from lightning_vmat.recipes.loading import load_recipe
    from lightning_vmat.recipes.runs import find_config
    from lightning_vmat.recipes.weights import CARD_FILE, shipped_weights, write_weights

    check_free(out)
    recipe = load_recipe(run)
    config = read_mapping(find_config(run))
    trained_from = {}
    if isinstance(recipe, LearnedOptimization):
        trained_from = {"generator_in_training": recipe.generator_run}
        generator = generator or recipe.generator_run
        if generator not in (None, *shipped_weights()):
            raise ValueError(f"generator {generator}: expected --generator with one of {', '.join(shipped_weights())}")
        config["model"]["init_args"]["generator"] = recipe.generator_run = generator
    elif generator is not None:
        raise ValueError(f"generator {generator}: {run} is no run of a learned optimizer")
    card = describe(run, config, recipe) | trained_from
    write_weights(recipe, config, card, out, seen_cases(config["data"]))
    print(yaml.safe_dump(card, sort_keys=False), end="")
    print(f"weights: {out}, card: {out / CARD_FILE}")
