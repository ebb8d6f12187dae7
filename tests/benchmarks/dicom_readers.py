"""Two other programs read a plan that we exported, and one of them computes its dose anew.

In an environment of its own (pydosert asks for packages that this project does not need):

    python -m venv readers && readers/bin/pip install pydicom pymedphys pydosert SimpleITK rt-utils
    vmat prepare phantom --as_dicom true --plan true --count 1 --size demo --out runs/planned
    readers/bin/python tests/benchmarks/dicom_readers.py runs/planned/phantom_0000 --json FILE

Exit status 1 if leaves differ by more than 0.01 mm or monitor units by more than 1e-4. The doses differ as their models
do: pydosert ships no 6 MV machine, so its kernels are taken at our TPR20,10, without our horns.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pymedphys
import torch
from pydosert import DoseEngine, MachineConfig
from pydosert.data.loaders import load_dicom
from pydosert.data.utils.dicom_utils import fetch_plan_data

LEAF_MM, MU = 0.01, 1e-4
TPR, TRANSMISSION, LEAF_GAP_MM = 0.668, 0.015, 1.8  # of our built-in beam and machine
PDD10 = 0.664  # ours, source-surface distance 1 m, 1 cGy per MU at the maximum; pydosert's point is 10 cm deep at 1 m
CALIBRATION_MU = 100.0 / (PDD10 * 1.1**2)
SCATTER_MM, CHUNK = 80.0, 6
HIGH, LOW = 0.5, 0.1  # of the maximum: where doses are compared, and where gamma begins


def written(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Leaf tips [point, 2, leaf_pair] and monitor units given up to each point, as the file says."""
    data = pydicom.dcmread(path)
    meterset = {
        int(b.ReferencedBeamNumber): float(b.BeamMeterset) for b in data.FractionGroupSequence[0].ReferencedBeamSequence
    }
    tips, given = [], []
    for beam in data.BeamSequence:
        for point in beam.ControlPointSequence:
            mlc = point.BeamLimitingDevicePositionSequence[-1]
            tips.append(np.array(mlc.LeafJawPositions, float).reshape(2, -1))
            given.append(meterset[int(beam.BeamNumber)] * float(point.CumulativeMetersetWeight))
    return np.stack(tips), np.array(given)


def seen_by_pymedphys(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same through pymedphys, which counts leaves from the other end and outwards.

    It knows machines without X jaws only, and wants Y jaws at every control point: they are put there first.
    """
    data = pydicom.dcmread(path)
    for beam in data.BeamSequence:
        x_jaws, y_jaws, _ = beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence
        assert (x_jaws.RTBeamLimitingDeviceType, y_jaws.RTBeamLimitingDeviceType) == ("ASYMX", "ASYMY")
        del beam.BeamLimitingDeviceSequence[0]
        for point in beam.ControlPointSequence:
            point.BeamLimitingDevicePositionSequence = [y_jaws, point.BeamLimitingDevicePositionSequence[-1]]
    delivery = pymedphys.Delivery.from_dicom(data)
    leaves = np.array(delivery.mlc)[:, ::-1]
    return np.stack((-leaves[..., 1], leaves[..., 0]), axis=1), np.array(delivery.monitor_units)


def seen_by_pydosert(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same through pydosert."""
    tips, given = [], []
    for beams, _ in fetch_plan_data(str(path)).values():
        tips += [beam.leaf_positions.numpy().T for beam in beams]
        given.append(np.cumsum([float(beam.mu) for beam in beams]))
    return np.stack(tips), np.concatenate(given)


def recomputed(folder: Path, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Dose of one fraction by us (from RTDOSE) and by pydosert, on the CT's grid, Gy."""
    patient, [beams] = load_dicom(
        folder, folder / "RTDOSE.dcm", folder / "RTPLAN.dcm", None, use_delivery=True, new_spacing=spacing_mm,
        crop_volume=False, pad_to_cylinder=True, device="cpu",
    )  # fmt: skip
    machine = MachineConfig(
        preset="varian_10MV", tpr_20_10=TPR, mlc_transmission=TRANSMISSION, dlg_mm=LEAF_GAP_MM,
        penumbra_fwhm=[5.0, 5.0], head_scatter_amplitude=None,
        profile_corrections=None, output_factors=None, calibration_mu=CALIBRATION_MU,
    )  # fmt: skip
    engine = DoseEngine(
        machine_config=machine,
        kernel_size=2 * round(SCATTER_MM / spacing_mm[1]) + 1,
        dose_grid_spacing=spacing_mm,
        dose_grid_shape=tuple(patient.density_image.shape),
        beam_template=beams,
        beam_chunk_size=CHUNK,
        conv_backend="fft",
        auto_calibrate=True,
        device="cpu",
    )
    with torch.no_grad():
        theirs = engine.compute_dose(beams, density_image=patient.density_image.float())
    return patient.dose.numpy().astype(float), theirs[0].double().numpy()


def compare(ours: np.ndarray, theirs: np.ndarray, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Absolute and relative agreement of two doses."""
    high = ours > HIGH * ours.max()
    ratio = float(theirs[high].mean() / ours[high].mean())
    scaled = theirs / ratio
    difference = (scaled - ours)[high] / ours.max()
    axes = tuple(np.arange(count) * step for count, step in zip(ours.shape, spacing_mm, strict=True))
    gamma = pymedphys.gamma(
        axes, ours, axes, scaled, 3.0, 3.0, lower_percent_dose_cutoff=100 * LOW, max_gamma=1.1, quiet=True
    )
    return {
        "mean_dose_ratio": ratio,
        "mean_difference": float(difference.mean()),
        "rms_difference": float(np.sqrt((difference**2).mean())),
        "p95_difference": float(np.quantile(np.abs(difference), 0.95)),
        "gamma_3_3_passing": float((gamma[np.isfinite(gamma)] <= 1).mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="CT, RTPLAN.dcm and RTDOSE.dcm of one patient")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    plan, same = arguments.folder / "RTPLAN.dcm", True
    tips, given = written(plan)
    results: dict[str, Any] = {"control_points": len(given), "monitor_units": float(given[-1])}
    for name, reader in (("pymedphys", seen_by_pymedphys), ("pydosert", seen_by_pydosert)):
        their_tips, their_given = reader(plan)
        report = {"leaf_mm": float(np.abs(their_tips - tips).max()), "mu": float(np.abs(their_given - given).max())}
        same = same and report["leaf_mm"] <= LEAF_MM and report["mu"] <= MU
        results[name] = report
    first = pydicom.dcmread(next(arguments.folder.glob("CT_*.dcm")))
    row_mm, column_mm = (float(value) for value in first.PixelSpacing)
    spacing_mm = (float(first.SliceThickness), row_mm, column_mm)
    begin = time.perf_counter()
    results["dose"] = compare(*recomputed(arguments.folder, spacing_mm), spacing_mm)
    results["dose"]["seconds"] = round(time.perf_counter() - begin, 1)
    print(json.dumps(results, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
