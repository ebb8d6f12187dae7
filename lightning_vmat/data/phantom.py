"""Seeded prostate phantoms: a varied male pelvis with CT, structures and one full arc."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lightning_vmat.data.anatomy import Pelvis, draw_pelvis
from lightning_vmat.data.sizes import Size, get_size
from lightning_vmat.data.solids import Points, Volume
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import load_machine
from lightning_vmat.plan.volume import VolumeGrid

MACHINE, PROTOCOL = "truebeam_millennium120", "prostate_60gy_20fx"
PRESCRIPTION_GY, FRACTIONS = 60.0, 20
EXTENT_MM = (440.0, 304.0, 176.0)  # x, y, z of the CT
CENTRE_MM = (0.0, 12.0, 10.0)  # of the CT, from the centre of the prostate
MARGIN_MM, POSTERIOR_MARGIN_MM = 7.0, 5.0  # CTV to PTV
MIN_BOWEL_CC = 10.0
COLLIMATOR_DEG = 10.0


def make_phantom(seed: int, size: str = "base") -> Case:
    """The phantom of a seed; the same numbers on every run, the same anatomy at every size.

    Args:
        seed: of everything that varies, at least 0.
        size: name of a size, see `sizes`.

    Raises:
        ValueError: a negative seed or an unknown size.
    """
    if seed < 0:
        raise ValueError(f"phantom seed {seed}: expected 0 or more")
    cut = get_size(size)
    grid = _grid(cut)
    rng = np.random.Generator(np.random.PCG64(seed))
    pelvis = draw_pelvis(_points(grid), rng)
    masks = _masks(pelvis, grid)
    machine = load_machine(MACHINE)
    return Case(
        case_id=phantom_name(seed),
        source="phantom",
        grid=grid,
        hu=torch.from_numpy(_ct(pelvis, masks, grid, rng)),
        structures={name: torch.from_numpy(mask) for name, mask in masks.items()},
        prescription_gy={"PTV": PRESCRIPTION_GY},
        fractions=FRACTIONS,
        isocentre_mm=_centroid_mm(masks["PTV"], grid),
        arcs=(Arc(control_points=cut.control_points, collimator_deg=COLLIMATOR_DEG),),
        beamlets=cut.centred_field(machine),
        machine_name=MACHINE,
        protocol=PROTOCOL,
    )


def phantom_name(seed: int) -> str:
    return f"phantom_{seed:04d}"


def _grid(size: Size) -> VolumeGrid:
    nx, ny, nz = (round(extent / size.voxel_mm) for extent in EXTENT_MM)
    origin = tuple(c - (n - 1) / 2 * size.voxel_mm for c, n in zip(CENTRE_MM, (nx, ny, nz), strict=True))
    return VolumeGrid((nz, ny, nx), (size.voxel_mm,) * 3, (origin[0], origin[1], origin[2]))


def _points(grid: VolumeGrid) -> Points:
    nz, ny, nx = grid.shape
    x, y, z = (
        np.float32(origin) + np.float32(spacing) * np.arange(n, dtype=np.float32)
        for origin, spacing, n in zip(grid.origin_mm, grid.spacing_mm, (nx, ny, nz), strict=True)
    )
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    return np.stack((xx, yy, zz))


def _masks(pelvis: Pelvis, grid: VolumeGrid) -> dict[str, NDArray[np.bool_]]:
    masks = {name: distance < 0 for name, distance in pelvis.structures.items()}
    if masks["Bowel"].sum() * grid.voxel_volume_cc < MIN_BOWEL_CC:
        del masks["Bowel"]
    masks = {name: mask & masks["Body"] for name, mask in masks.items()}
    return {"PTV": _with_margin(pelvis.structures["CTV"], grid), **masks}


def _with_margin(distance: Volume, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Margin along the outward normal, smaller where that points backwards, towards the rectum."""
    slopes = np.gradient(distance, *reversed(grid.spacing_mm))
    backwards = slopes[1] / (np.sqrt(sum(s * s for s in slopes)) + 1e-6)
    margin = MARGIN_MM - (MARGIN_MM - POSTERIOR_MARGIN_MM) * np.clip(backwards, 0, 1)
    return np.asarray(distance < margin)


def _ct(pelvis: Pelvis, masks: dict[str, NDArray[np.bool_]], grid: VolumeGrid, rng: np.random.Generator) -> Volume:
    """HU of air, fat, muscle, organs, bone with its cortex, and gas; blurred a little, with noise."""
    voxel = grid.spacing_mm[0]
    texture = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 7.0 / voxel)
    texture /= texture.std()
    depth = -pelvis.structures["Body"]
    hu = np.where(texture > 1.1, -70.0, 52.0).astype(np.float32)  # muscle, with fat between the bellies
    hu[pelvis.cavity < 0] = -95.0
    hu[depth < pelvis.fat_mm * (1 + 0.25 * np.clip(texture, -1.5, 1.5))] = -105.0
    hu[depth < 2.0] = 0.0  # skin
    for name, value in (("Bowel", 25.0), ("Rectum", 32.0), ("Bladder", 6.0), ("PenileBulb", 50.0), ("CTV", 42.0)):
        if name in masks:
            hu[masks[name]] = value
    marrow = pelvis.bone < 0
    hu[marrow] = 260.0
    hu[marrow & (pelvis.bone > -3.5)] = 720.0
    hu[pelvis.gas < 0] = -900.0
    hu[~masks["Body"]] = -1000.0
    hu = gaussian_filter(hu, 1.6 / voxel)
    noise = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 0.6)
    hu += 14.0 * noise / noise.std()
    return np.rint(np.clip(hu, -1024.0, 3000.0)).astype(np.float32)


def _centroid_mm(mask: NDArray[np.bool_], grid: VolumeGrid) -> tuple[float, float, float]:
    """Centre of mass, to 0.1 mm as a couch is set."""
    index = np.argwhere(mask).mean(axis=0)[::-1]
    x, y, z = (round(o + s * float(i), 1) for o, s, i in zip(grid.origin_mm, grid.spacing_mm, index, strict=True))
    return x, y, z
