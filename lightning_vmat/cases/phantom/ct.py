"""CT numbers of a phantom: tissues, with the blur and noise of a scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.phantom.anatomy import Pelvis
from lightning_vmat.cases.phantom.coordinates import Volume
from lightning_vmat.cases.phantom.portable_random import Draws

AIR_HU, METAL_HU = -1000.0, 3071.0  # metal: where a 12-bit scale ends
ORGAN_HU = {"Bowel": 22.0, "Rectum": 34.0, "Bladder": 6.0, "PenileBulb": 48.0}
BLUR_MM, TEXTURE_MM, NOISE_MM, NOISE_HU = 1.6, 6.0, 2.0, (10.0, 18.0)
SKIN_MM, CORTEX_MM = 2.0, 3.5


def draw_ct(pelvis: Pelvis, body: NDArray[np.bool_], voxel_mm: float, draws: Draws) -> Volume:
    """CT numbers of a phantom, whole HU `[z, y, x]`.

    Args:
        pelvis: signed distances.
        body: mask of the body.
        voxel_mm: edge of the voxels.
        draws: gives texture and noise.
    """
    texture = draws.noise(body.shape, (_box_width(TEXTURE_MM, voxel_mm),) * 3)
    hu = _blurred(_tissues(pelvis, texture, body), BLUR_MM / voxel_mm)
    noise = draws.noise(body.shape, (_box_width(NOISE_MM, voxel_mm),) * 3)
    hu = hu + draws.uniform(*NOISE_HU) * noise
    return np.rint(np.clip(hu, -1024.0, METAL_HU))


def _tissues(pelvis: Pelvis, texture: Volume, body: NDArray[np.bool_]) -> Volume:
    """One CT number for each tissue, painted from the background to the foreground."""
    depth, tissues = -pelvis.skin.surface, pelvis.tissues
    hu = np.where(texture > 1.5, -40.0, -92.0)  # fat between muscles and around organs, with strands in it
    hu[(tissues["muscle"] < 0) & (texture < 1.9)] = 54.0
    hu[depth < pelvis.skin.fat_mm * (1 + 0.15 * np.clip(texture, -1.5, 1.5))] = -105.0
    hu[depth < SKIN_MM] = 0.0
    hu[tissues["vessels"] < 0] = 46.0
    for name, value in ORGAN_HU.items():
        hu[pelvis.structures[name] < 0] = value
    hu[(pelvis.structures["Rectum"] < -3.0) & (texture > 0.4)] = 5.0  # stool
    hu[pelvis.vesicles < 0] = 28.0
    hu[pelvis.prostate < 0] = 42.0
    marrow = tissues["bone"] + 0.6 * texture
    hu[tissues["bone"] < 0] = 720.0
    hu[marrow < -CORTEX_MM] = 230.0
    hu[tissues["gas"] < 0] = -900.0
    hu[tissues["metal"] < 0] = METAL_HU
    hu[~body] = AIR_HU
    return hu


def _box_width(smooth_mm: float, voxel_mm: float) -> int:
    """Odd width of a box that, applied three times, smooths with about this standard deviation."""
    return 2 * int(smooth_mm / voxel_mm / 2 + 0.5) + 1


def _blurred(volume: Volume, sigma: float) -> Volume:
    """Three-point smoothing along each axis, `sigma` in voxels."""
    side = min(sigma * sigma / 2, 0.25)
    for axis in range(3):
        padded = np.pad(volume, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        n = padded.shape[axis]
        before, after = padded.take(range(n - 2), axis=axis), padded.take(range(2, n), axis=axis)
        volume = volume * (1 - 2 * side) + (before + after) * side
    return volume
