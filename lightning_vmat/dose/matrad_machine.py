"""Reader of matRad's photon machine files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

Array = NDArray[np.float64]
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclass(frozen=True)
class MatradMachine:
    """SVD pencil beam as matRad stores it.

    Args:
        sad_mm: source-axis distance.
        penumbra_sigma_mm: width of the Gaussian penumbra at the isocentre plane.
        betas_per_mm: build-up constants, one for each kernel.
        attenuation_per_mm: attenuation of primary fluence.
        radii_mm: evenly spaced radii at the isocentre plane, from 0.
        kernels: lateral kernels [kernel, radius] for one source-surface distance.
        primary_mm: radii of the primary fluence at the isocentre plane.
        primary_fluence: fluence of the open beam at these radii, relative to its axis.
    """

    sad_mm: float
    penumbra_sigma_mm: float
    betas_per_mm: Array
    attenuation_per_mm: float
    radii_mm: Array
    kernels: Array
    primary_mm: tuple[float, ...]
    primary_fluence: tuple[float, ...]

    def depth_weights(self, depth_mm: Array) -> Array:
        """Returns `beta / (beta - m) (exp(-m d) - exp(-beta d))` for each kernel [kernel, depth].

        Reference: Bortfeld, Schlegel, Rhein, Med Phys 20:311 (1993), eq. 8.
        """
        beta, m = self.betas_per_mm[:, None], self.attenuation_per_mm
        return np.asarray(beta / (beta - m) * (np.exp(-m * depth_mm) - np.exp(-beta * depth_mm)))


def read_matrad_machine(path: Path, ssd_mm: float = 900.0) -> MatradMachine:
    """Reads a machine, with the kernels of the tabulated source-surface distance nearest to `ssd_mm`.

    Raises:
        ValueError: a file that is not a matRad photon machine.
    """
    try:
        machine = loadmat(path, squeeze_me=True, struct_as_record=False)["machine"]
        data: Any = machine.data
        tables = np.atleast_1d(data.kernel)
        table = tables[int(np.argmin([abs(float(t.SSD) - ssd_mm) for t in tables]))]
        betas = np.atleast_1d(np.asarray(data.betas, dtype=float))
        primary_mm, primary_fluence = np.asarray(data.primaryFluence, dtype=float).T.tolist()
        read = MatradMachine(
            sad_mm=float(machine.meta.SAD),
            penumbra_sigma_mm=float(data.penumbraFWHMatIso) / FWHM_PER_SIGMA,
            betas_per_mm=betas,
            attenuation_per_mm=float(data.m),
            radii_mm=np.asarray(data.kernelPos, dtype=float),
            kernels=np.stack([np.asarray(getattr(table, f"kernel{i + 1}"), dtype=float) for i in range(len(betas))]),
            primary_mm=tuple(primary_mm),
            primary_fluence=tuple(primary_fluence),
        )
    except Exception as error:  # loadmat raises a different kind for each way in which a file can be broken
        raise ValueError(f"machine file {path}: not a matRad photon machine ({error})") from error
    steps = np.diff(read.radii_mm)
    if read.radii_mm[0] != 0 or not np.allclose(steps, steps[0]) or read.kernels.shape[1] != len(read.radii_mm):
        raise ValueError(f"machine file {path}: expected kernels on evenly spaced radii from 0 mm")
    if not np.isfinite(read.kernels).all() or not np.isfinite(read.primary_fluence).all():
        raise ValueError(f"machine file {path}: kernels or primary fluence hold NaN or infinity")
    return read
