"""The photon beam model: dose of a thin ray of fluence in water, as a few lateral kernels times functions of depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_vmat.dose.kernel_fit import RADII_MM, blur_exponential, blur_table, fit_gaussians, leading_kernels
from lightning_vmat.dose.matrad_machine import read_matrad_machine
from lightning_vmat.dose.nyholm import kernel_terms

Array = NDArray[np.float64]

GENERIC_TPR = 0.675  # the parameterisation then returns TPR20,10 = 0.667, as a common 6 MV linac has
GENERIC_PENUMBRA_MM = 2.1  # source size and leaf ends, sigma at the isocentre plane
NYHOLM_MAX_DEPTH_MM = 500.0
SHALLOW_EXCESS, SHALLOW_MM = 0.012, 50.0
KERNELS = 3
HORN, HORN_MM = 0.04, 70.0  # a flattened beam's fluence grows by 2 % at 6 cm and by 4 % far off its axis
CELL_MM = 2.5  # cells in which the open fluence is taken as uniform
DEPTHS_MM: Array = np.arange(0.0, 601.0)
SPREADS_MM: Array = np.array([0.0, 2.0, 5.0, 21.0, 45.0, 58.0, 95.0])  # of the Gaussians, before the penumbra
BEAM_MODEL_VERSION = "1"
TENSORS = ("sigma_mm", "mixture", "depth_weights", "off_axis_mm", "off_axis_fluence")
GRAY_PER_MU = 0.01  # at the reference point: 10 x 10 cm field, depth of maximum, source-surface distance = SAD


@dataclass(frozen=True)
class BeamModel:
    """Lateral kernels at the isocentre plane, each a sum of Gaussians, and their weights over depth in water.

    `dose = sum_k w_k(depth) (K_k * fluence)(x, y) (SAD / l)^2`, with (x, y) the point's beam's-eye view position and l
    its distance from the source along the beam axis. Penumbra is part of the kernels. A Gaussian is the product of
    its profiles along x and y, so that rectangles are convolved exactly.

    Args:
        name: name of the model.
        sad_mm: source-axis distance.
        sigma_mm: width of each Gaussian.
        mixture: weight of each Gaussian in each kernel; every Gaussian integrates to one over the plane.
        depth_weights: weight of each kernel at depths 0, 1, 2, ... mm of water, Gy per MU per fraction.
        off_axis_mm: radii at the isocentre plane, ascending, of the values in `off_axis_fluence`.
        off_axis_fluence: fluence of the open beam relative to the central axis, linear between radii, constant beyond.

    Reference: Bortfeld, Schlegel, Rhein, Med Phys 20:311 (1993); Gaussians: Ulmer, Harder, Z Med Phys 5:25 (1995).
    """

    name: str
    sad_mm: float
    sigma_mm: Float[Tensor, " gaussian"]
    mixture: Float[Tensor, "kernel gaussian"]
    depth_weights: Float[Tensor, "kernel depth"]
    off_axis_mm: tuple[float, ...] = (0.0,)
    off_axis_fluence: tuple[float, ...] = (1.0,)

    def weights(self, depth_mm: Float[Tensor, "..."]) -> Float[Tensor, "kernel ..."]:
        """Returns the weight of each kernel at radiological depths, interpolated linearly, Gy per MU per fraction."""
        return at_depth(self.depth_weights.to(depth_mm), depth_mm)

    def open_fluence(self, x_mm: Float[Tensor, " x"], y_mm: Float[Tensor, " y"]) -> Float[Tensor, "y x"]:
        """Returns the fluence of the open beam relative to its axis, at points of the isocentre plane."""
        radius = torch.hypot(x_mm.double(), y_mm.double()[:, None]).cpu()
        return torch.from_numpy(np.interp(radius, self.off_axis_mm, self.off_axis_fluence)).to(x_mm.device)

    def square_field_dose(self, side_mm: float, depth_mm: Float[Tensor, " depth"]) -> Float[Tensor, " depth"]:
        """Returns the dose of 1 MU on the axis of a square field in water, Gy; the isocentre is at each depth (TPR)."""
        edges = torch.linspace(0, side_mm / 2, 1 + math.ceil(side_mm / 2 / CELL_MM), dtype=torch.double)
        share = torch.erf(edges / (self.sigma_mm[:, None] * 2**0.5)).diff(dim=-1)
        centres = (edges[1:] + edges[:-1]) / 2
        seen = torch.einsum("gy,gx,yx->g", share, share, self.open_fluence(centres, centres))
        return (self.mixture @ seen) @ self.weights(depth_mm)


def at_depth(table: Float[Tensor, "kernel depth"], depth_mm: Float[Tensor, "..."]) -> Float[Tensor, "kernel ..."]:
    """Interpolates a table over depths 0, 1, 2, ... mm linearly; constant beyond its ends."""
    place = depth_mm.clamp(0, table.shape[1] - 1)
    lower = place.long().clamp(max=table.shape[1] - 2)
    return torch.lerp(table[:, lower], table[:, lower + 1], place - lower)


def load_beam_model(name_or_path: str | Path) -> BeamModel:
    """Loads the built-in `generic_6mv`, a file of `vmat commission` (.safetensors) or a matRad machine file (.mat).

    The built-in model and matRad's give 1 cGy per MU at the reference point, a commissioned one the measured dose.

    >>> from lightning_vmat.dose.beam_model import load_beam_model
    >>> model = load_beam_model("generic_6mv")
    >>> model.sad_mm, tuple(model.mixture.shape)  # 3 kernels, each a sum of 7 Gaussians
    (1000.0, (3, 7))

    Raises:
        ValueError: no such model, or a file that is not a beam model.
    """
    if str(name_or_path) == "generic_6mv":
        return generic_6mv()
    path = Path(name_or_path)
    if path.suffix not in (".mat", ".safetensors") or not path.is_file():
        raise ValueError(
            f"beam model {name_or_path}: expected generic_6mv, or an existing file of `vmat commission` (.safetensors) "
            "or of matRad (.mat)"
        )
    return matrad_model(path) if path.suffix == ".mat" else read_beam_model(path)


def read_beam_model(path: Path) -> BeamModel:
    """Reads a beam model from a safetensors file.

    The tensors are `sigma_mm` [gaussian], `mixture` [kernel, gaussian], `depth_weights` [kernel, depth], `off_axis_mm`
    and `off_axis_fluence` [radius], float64; the header holds `beam_model_version`, `name` and `sad_mm`. `BeamModel`
    describes them.

    Raises:
        ValueError: a file that is not such a model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118 -- no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable beam model ({' '.join(str(error).split())})") from error
    if header.get("beam_model_version") != BEAM_MODEL_VERSION or set(tensors) != set(TENSORS):
        raise ValueError(f"{path}: not a beam model of version {BEAM_MODEL_VERSION}, expected one by `vmat commission`")
    sigma, mixture, weights, radii, fluence = (tensors[name] for name in TENSORS)
    if mixture.shape[1:] != sigma.shape or len(mixture) != len(weights) or radii.shape != fluence.shape:
        raise ValueError(f"{path}: shapes {[tuple(tensors[name].shape) for name in TENSORS]} do not fit together")
    sad_mm = float(header.get("sad_mm", "nan"))
    if not (sad_mm > 0 and all(bool(value.isfinite().all()) for value in tensors.values()) and bool((sigma > 0).all())):
        raise ValueError(f"{path}: holds widths or distances that are not positive, NaN or infinite numbers")
    off_axis = tuple(radii.tolist()), tuple(fluence.tolist())
    return BeamModel(header.get("name", path.stem), sad_mm, sigma, mixture, weights, *off_axis)


def beam_model_tensors(model: BeamModel) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the header of a model's file; see `read_beam_model`."""
    tensors = {name: torch.as_tensor(getattr(model, name), dtype=torch.double).contiguous() for name in TENSORS}
    return tensors, {"beam_model_version": BEAM_MODEL_VERSION, "name": model.name, "sad_mm": repr(model.sad_mm)}


@cache
def matrad_model(path: Path, ssd_mm: float = 900.0, *, calibrated: bool = True) -> BeamModel:
    """Returns the model in a matRad machine file.

    Args:
        path: the file.
        ssd_mm: source-surface distance; the kernels tabulated nearest to it are used.
        calibrated: whether to scale to `GRAY_PER_MU`; else in the file's own unit (Gy per unit of fluence).
    """
    machine = read_matrad_machine(path, ssd_mm)
    blurred = blur_table(machine.kernels, machine.radii_mm, machine.penumbra_sigma_mm)
    sigma = np.hypot(SPREADS_MM, machine.penumbra_sigma_mm)
    mixture, weights = fit_gaussians(blurred, sigma), machine.depth_weights(DEPTHS_MM)
    off_axis = machine.primary_mm, machine.primary_fluence
    raw = BeamModel(path.stem, machine.sad_mm, _tensor(sigma), _tensor(mixture), _tensor(weights), *off_axis)
    return calibrate(raw) if calibrated else raw


@cache
def generic_6mv() -> BeamModel:
    """Returns the model of a generic 6 MV linac: Nyholm's kernel for TPR20,10 = 0.667, factorised into three kernels.

    Kernels are those of the isocentre plane and widen in proportion to the distance from the source, as the beam does;
    depth does not change their width. At a fixed source-surface distance this loses scatter at depth, so dose in the
    first 5 cm is lowered by about 1 %. The depth dose then equals the original's at 10 cm (66 %), but is lower by 2 %
    of itself at 20 cm and by 4 % at 30 cm; TPR(2 cm) over TPR(10 cm) is 1 % less than the original's; TPR20,10 is kept.
    The open beam has modest horns, as flattened beams have. Scatter from the linac's head is not modelled: output per
    MU changes with the field through scatter in the patient only.
    """
    kernel = nyholm_kernels(GENERIC_TPR, GENERIC_PENUMBRA_MM, np.minimum(DEPTHS_MM, NYHOLM_MAX_DEPTH_MM))
    sigma = np.hypot(SPREADS_MM, GENERIC_PENUMBRA_MM)
    weights, kernels = leading_kernels(kernel, KERNELS)
    weights *= 1 - SHALLOW_EXCESS * np.exp(-((DEPTHS_MM / SHALLOW_MM) ** 2))
    mixture = fit_gaussians(kernels, sigma)
    radii = np.arange(0.0, 301.0, 5.0)
    horn = 1 + HORN * (1 - np.exp(-((radii / HORN_MM) ** 2)))
    off_axis = tuple(radii.tolist()), tuple(horn.tolist())
    return calibrate(BeamModel("generic_6mv", 1000.0, _tensor(sigma), _tensor(mixture), _tensor(weights), *off_axis))


def nyholm_kernels(tpr: float, penumbra_mm: float, depth_mm: Array, scatter: float = 1.0) -> Array:
    """Returns Nyholm's kernels blurred by the penumbra, at `RADII_MM` [depth, radius].

    Args:
        tpr: TPR20,10 passed to the parameterisation.
        penumbra_mm: sigma of the Gaussian penumbra.
        depth_mm: depths in water.
        scatter: factor on the scatter term.
    """
    primary, scattered = kernel_terms(tpr, depth_mm)
    kernel = np.zeros((len(depth_mm), len(RADII_MM)))
    for factor, (energy, slope) in ((1.0, primary), (scatter, scattered)):
        kernel += factor * energy[:, None] * blur_exponential(slope, penumbra_mm)
    return kernel


def even_beam(model: BeamModel) -> BeamModel:
    """Returns the beam with a uniform open fluence, for comparisons of kernels alone."""
    return replace(model, off_axis_mm=(0.0,), off_axis_fluence=(1.0,))


def calibrate(model: BeamModel) -> BeamModel:
    """Returns a model scaled to `GRAY_PER_MU` at the reference point."""
    depth = torch.from_numpy(DEPTHS_MM[:60])
    peak = float((model.square_field_dose(100.0, depth) * (model.sad_mm / (model.sad_mm + depth)) ** 2).max())
    return replace(model, depth_weights=model.depth_weights * (GRAY_PER_MU / peak))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values)
