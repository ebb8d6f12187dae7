"""Seeded prostate phantoms: a varied male pelvis with CT, structures, targets and a full arc (with nodes two).

The population is documented in the modules that draw it: `organs`, `bones` (with prostheses) and `tissues` (fat,
muscles, lymph nodes); treatments here. A seed gives the same patient in every treatment.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vmat.cases.phantom.anatomy import Pelvis, draw_pelvis
from lightning_vmat.cases.phantom.coordinates import Volume, grid_points
from lightning_vmat.cases.phantom.ct import draw_ct
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.phantom.solids import length
from lightning_vmat.cases.sizes import Size, get_size
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import load_machine
from lightning_vmat.plan.volume import VolumeGrid

PHANTOM_VERSION = 2  # raise it with every change of the bits of a seed
MACHINE, COLLIMATOR_DEG = "truebeam_millennium120", 10.0
PREFIX = "phantom_"
MIXED = "mixed"
SHARES = {  # of a mixed population
    "prostate_60gy_20fx": 0.45,
    "prostate_78gy_39fx": 0.25,
    "prostate_boost_67gy_20fx": 0.15,
    "prostate_nodes_68gy_25fx": 0.15,
}
NODES = "PTVNodes"
EXTENT_MM, CENTRE_MM = (456.0, 308.0, 200.0), (0.0, 12.0, 22.0)  # x, y, z of the CT, about the prostate's centre
NODES_EXTENT_MM, NODES_CENTRE_MM = (456.0, 308.0, 248.0), (0.0, 12.0, 46.0)
LEAST_MARGIN_MM, MOST_MARGIN_MM, MOST_POSTERIOR_MM = 6.0, 8.0, 6.0  # CTV to PTV; 5 to 6 mm at the back
BOOST_MARGIN_MM, NODES_MARGIN_MM = 2.0, 6.0
MIN_BOWEL_CC = 10.0


def make_phantom(seed: int, size: str = "base", protocol: str = "prostate_60gy_20fx") -> Case:
    """The phantom of a seed: the same bits on every machine, the same anatomy at every size.

    >>> import lightning_vmat as vmat
    >>> vmat.phantom(0, size="tiny")
    Case phantom_0000 (phantom): PTV 60 Gy in 20 fractions, prostate_60gy_20fx
      57 x 38 x 25 voxels of 8 x 8 x 8 mm
      structures in cc: PTV 130, Body 14058, CTV 60, Rectum 129, ...
      1 arc, 12 control points of 8 x 8 beamlets, field X -60 to 60, Y -60 to 60 mm, truebeam_millennium120

    Args:
        seed: seed of all random draws, at least 0.
        size: name of a size, see `sizes`.
        protocol: one of `SHARES`, or `mixed` to draw one with these shares.

    Raises:
        ValueError: a negative seed, an unknown size or protocol.
    """
    if seed < 0:
        raise ValueError(f"phantom seed {seed}: expected 0 or more")
    if protocol not in (MIXED, *SHARES):
        raise ValueError(f"phantom protocol {protocol!r}: expected one of {', '.join((MIXED, *SHARES))}")
    cut, draws = get_size(size), Draws(seed)
    drawn = draw_protocol(draws)
    treatment = load_protocol(drawn if protocol == MIXED else protocol)
    with_nodes = NODES in treatment.prescription_gy
    grid = _grid(cut, with_nodes)
    pelvis = draw_pelvis(grid_points(grid.origin_mm, grid.spacing_mm, grid.shape), draws)
    masks = _masks(pelvis, grid, draws, tuple(treatment.prescription_gy))
    hu = draw_ct(pelvis, masks["Body"], cut.voxel_mm, draws).astype(np.float32)
    machine = load_machine(MACHINE)
    return Case(
        case_id=phantom_name(seed),
        source="phantom",
        grid=grid,
        hu=torch.from_numpy(hu),
        structures={name: torch.from_numpy(mask) for name, mask in masks.items()},
        prescription_gy=dict(treatment.prescription_gy),
        fractions=treatment.fractions,
        isocentre_mm=_centroid_mm(np.logical_or.reduce([masks[name] for name in treatment.prescription_gy]), grid),
        arcs=_arcs(cut.control_points, two=with_nodes),
        beamlets=cut.nodal_field(machine) if with_nodes else cut.centred_field(machine),
        machine_name=MACHINE,
        protocol=treatment.name,
    )


def phantom_name(seed: int) -> str:
    """Name of the phantom of a seed, such as `phantom_0007`."""
    return f"{PREFIX}{seed:04d}"


def phantom_seed(name: str) -> int:
    """The seed of the phantom of this name."""
    return int(name.removeprefix(PREFIX))


def draw_protocol(draws: Draws) -> str:
    """Draw a treatment with the shares of a mixed population."""
    place = draws.uniform(0.0, sum(SHARES.values()))
    for name, share in SHARES.items():
        place -= share
        if place < 0:
            return name
    return next(iter(SHARES))


def _arcs(control_points: int, two: bool) -> tuple[Arc, ...]:
    """One full arc; a second one in the opposite direction if nodes are treated."""
    there = Arc(control_points=control_points, collimator_deg=COLLIMATOR_DEG)
    back = Arc(control_points=control_points, direction="counterclockwise", collimator_deg=360.0 - COLLIMATOR_DEG)
    return (there, back) if two else (there,)


def _grid(size: Size, with_nodes: bool) -> VolumeGrid:
    extent, centre = (NODES_EXTENT_MM, NODES_CENTRE_MM) if with_nodes else (EXTENT_MM, CENTRE_MM)
    nx, ny, nz = (round(length_mm / size.voxel_mm) for length_mm in extent)
    x, y, z = (c - (n - 1) / 2 * size.voxel_mm for c, n in zip(centre, (nx, ny, nz), strict=True))
    return VolumeGrid((nz, ny, nx), (size.voxel_mm,) * 3, (x, y, z))


def _masks(pelvis: Pelvis, grid: VolumeGrid, draws: Draws, targets: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    """Masks of the structures and of the given targets, all within the body."""
    distance = dict(pelvis.structures)
    margins = [float(round(draws.uniform(LEAST_MARGIN_MM, MOST_MARGIN_MM))) for _ in range(3)]
    posterior = float(round(draws.uniform(LEAST_MARGIN_MM - 1.0, MOST_POSTERIOR_MM)))
    ptv = _grown(distance["CTV"], grid, margins, posterior)
    nodes = (pelvis.nodes < NODES_MARGIN_MM) & ~ptv
    made = {"PTV": ptv, "PTVBoost": (pelvis.lesion < BOOST_MARGIN_MM) & ptv, NODES: nodes}
    masks = {name: made[name] for name in targets} | {name: d < 0 for name, d in distance.items()}
    if np.count_nonzero(masks["Bowel"]) * grid.voxel_volume_cc < MIN_BOWEL_CC:
        del masks["Bowel"]
    return {name: mask & masks["Body"] for name, mask in masks.items()}


def _grown(distance: Volume, grid: VolumeGrid, margins_mm: list[float], posterior_mm: float) -> NDArray[np.bool_]:
    """Mask grown by an ellipsoidal margin, flatter at the back, measured along the outward normal.

    Args:
        distance: signed distance of the structure to grow. It is only about in mm, so it is divided by its slope.
        grid: voxels.
        margins_mm: along x, y and z.
        posterior_mm: margin along y, to the back.
    """
    slopes = list(np.gradient(distance, *reversed(grid.spacing_mm)))
    steep = length(slopes) + 1e-6
    z, y, x = (slope / steep for slope in slopes)
    back = np.where(y > 0, posterior_mm, margins_mm[1])
    return np.asarray(distance < np.clip(steep, 0.7, 1.4) * length([x * margins_mm[0], y * back, z * margins_mm[2]]))


def _centroid_mm(mask: NDArray[np.bool_], grid: VolumeGrid) -> tuple[float, float, float]:
    """Centre of mass, rounded to 0.1 mm like couch positions."""
    index = np.argwhere(mask)
    centre = [int(places.sum()) / len(index) for places in reversed(index.T)]
    x, y, z = (round(o + s * i, 1) for o, s, i in zip(grid.origin_mm, grid.spacing_mm, centre, strict=True))
    return x, y, z
