"""Command line of the scripts that measure one held-out phantom after the other."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def main(
    about: str,
    networks: Sequence[str],
    seeds: Sequence[int],
    measure: Callable[[int, str, dict[str, Path]], list[Row]],
    show: Callable[[list[Row]], None],
) -> None:
    """Write the rows of all phantoms to a file after each of them, and show what they say so far.

    Args:
        about: description of the script.
        networks: names of the shipped weights, of one family.
        seeds: seeds of the phantoms, if no others are given.
        measure: returns rows from a seed, the name of a size, and the networks' runs.
        show: prints rows.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(seeds))
    parser.add_argument("--size", default="base")
    parser.add_argument("--family", default="prostate_wished")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs, rows = {name: Path(options.family, name) for name in networks}, []
    for seed in options.seeds:
        rows += measure(seed, options.size, runs)
        options.json.write_text(json.dumps({"family": options.family, "rows": rows}, indent=1))
        print(f"after phantom {seed}:", flush=True)
        show(rows)
