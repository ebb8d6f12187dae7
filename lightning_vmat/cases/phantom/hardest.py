"""The hardest phantoms of many: a stratum of test cases that is drawn by a rule, before any plan is made."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_vmat.cases.phantom.phantom import make_phantom

JUDGED_SIZE = "demo"  # volumes need no finer voxels
SPARED = ("Rectum", "Bladder")


def hardest_seeds(seeds: Sequence[int], count: int, protocol: str) -> list[int]:
    """Returns the seeds of the hardest phantoms, in ascending order.

    Half have the largest targets. Of the others, half are those whose targets overlap rectum and bladder most, as a
    share of the target.

    Args:
        seeds: seeds to choose from.
        count: number of seeds to return; with an odd one, the larger half are large targets.
        protocol: treatment of all phantoms, see `make_phantom`.

    Raises:
        ValueError: more seeds wanted than there are.
    """
    if not 1 <= count <= len(seeds):
        raise ValueError(f"hardest {count}: expected 1 to {len(seeds)}, the number of phantoms")
    volume_cc, overlap = {}, {}
    for seed in seeds:
        case = make_phantom(seed, JUDGED_SIZE, protocol)
        spared = case.structures[SPARED[0]] | case.structures[SPARED[1]]
        volume_cc[seed] = float(case.target.sum()) * case.grid.voxel_volume_cc
        overlap[seed] = float((case.target & spared).sum() / case.target.sum())
    large = sorted(seeds, key=lambda seed: -volume_cc[seed])[: -(-count // 2)]
    others = sorted(set(seeds) - set(large), key=lambda seed: (-overlap[seed], seed))
    return sorted([*large, *others[: count // 2]])
