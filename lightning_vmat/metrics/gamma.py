"""Gamma index: agreement of two dose distributions in dose and distance."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lightning_vmat.plan.volume import VolumeGrid

_STEPS = 10  # search steps within the distance criterion
_CHUNK = 262144  # points interpolated at once


def gamma_index(
    reference_gy: Float[Tensor, "z y x"],
    evaluated_gy: Float[Tensor, "z y x"],
    grid: VolumeGrid,
    *,
    dose_fraction: float = 0.03,
    distance_mm: float = 3.0,
    cutoff_fraction: float = 0.1,
    max_gamma: float = 1.5,
) -> Float[Tensor, " voxel"]:
    """Returns the global three-dimensional gamma of each reference voxel above the cut-off, at most `max_gamma`.

    `min over r' of sqrt(|r' - r|^2 / distance^2 + (D_e(r') - D_r(r))^2 / (dose_fraction max D_r)^2)`, searched on a
    lattice of a tenth of the distance with linear interpolation of the evaluated dose (gamma is up to 0.05 too high in
    steep gradients). Beyond the grid the dose is that of its edge.

    >>> import torch
    >>> from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
    >>> from lightning_vmat.plan.volume import VolumeGrid
    >>> grid = VolumeGrid(shape=(8, 8, 8), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(0.0, 0.0, 0.0))
    >>> dose_gy = torch.linspace(1, 60, 512).reshape(8, 8, 8)
    >>> gamma_pass_rate(gamma_index(dose_gy, 1.02 * dose_gy, grid))  # 2 % more dose, criteria 3 % and 3 mm
    1.0

    Args:
        reference_gy: reference dose.
        evaluated_gy: dose to evaluate, on the same grid.
        grid: the grid.
        dose_fraction: dose criterion as a fraction of the reference maximum.
        distance_mm: distance criterion.
        cutoff_fraction: voxels below this fraction of the reference maximum are left out.
        max_gamma: largest gamma that is searched for; greater ones are returned as this.

    Raises:
        ValueError: shapes that differ, criteria that are not positive, or a reference without dose.

    Reference: Low et al., Med Phys 25:656 (1998).
    """
    if reference_gy.shape != evaluated_gy.shape or tuple(reference_gy.shape) != grid.shape:
        raise ValueError(
            f"gamma of doses {tuple(reference_gy.shape)} and {tuple(evaluated_gy.shape)}: expected both {grid.shape}"
        )
    if min(dose_fraction, distance_mm, max_gamma) <= 0:
        raise ValueError(f"gamma criteria {dose_fraction}, {distance_mm} mm, up to {max_gamma}: expected positive")
    highest = float(reference_gy.max())
    if not highest > 0:
        raise ValueError("gamma: the reference holds no dose")
    index = (reference_gy >= cutoff_fraction * highest).flatten().nonzero()[:, 0]
    parts = [
        _gamma_of(part, reference_gy, evaluated_gy, grid, dose_fraction * highest, distance_mm, max_gamma)
        for part in torch.split(index, _CHUNK)
    ]
    return torch.cat(parts)


def gamma_pass_rate(gamma: Float[Tensor, " voxel"]) -> float:
    """Returns the fraction of voxels with gamma of at most 1."""
    return float((gamma <= 1 + 1e-6).double().mean())


def _gamma_of(
    index: Tensor,
    reference_gy: Tensor,
    evaluated_gy: Tensor,
    grid: VolumeGrid,
    dose_gy: float,
    distance_mm: float,
    max_gamma: float,
) -> Float[Tensor, " voxel"]:
    """Searches shells of increasing distance; a voxel is done once its gamma is below the next distance term."""
    step = distance_mm / _STEPS
    line = torch.arange(-int(max_gamma * _STEPS), int(max_gamma * _STEPS) + 1, device=index.device) * step
    offsets = torch.cartesian_prod(line, line, line)
    lengths = offsets.norm(dim=1) / distance_mm
    order = lengths.argsort()
    order = order[lengths[order] <= max_gamma]
    _, counts = torch.unique_consecutive((lengths[order] * _STEPS).round(), return_counts=True)
    size = torch.tensor(grid.shape[::-1], device=index.device, dtype=torch.float32)
    best = torch.full((len(index),), float(max_gamma) ** 2, device=index.device)
    centres, wanted = grid.centres_mm(index), reference_gy.flatten()[index]
    volume = evaluated_gy[None, None].float()
    for shell in torch.split(offsets[order], counts.tolist()):
        todo = (best > float(shell.norm(dim=1).min() / distance_mm) ** 2).nonzero()[:, 0]
        if not len(todo):
            break
        for some in torch.split(shell, max(1, _CHUNK // len(todo))):
            place = grid.index_coordinates(centres[todo, None] + some)
            place = (2 * place + 1) / size - 1  # align_corners=False convention of grid_sample
            dose = functional.grid_sample(
                volume, place[None, None], mode="bilinear", padding_mode="border", align_corners=False
            )[0, 0, 0]
            squared = ((dose - wanted[todo, None]) / dose_gy).square() + (some.norm(dim=1) / distance_mm).square()
            best[todo] = torch.minimum(best[todo], squared.amin(dim=1))
    return best.sqrt()
