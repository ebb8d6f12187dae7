"""`vmat commission`: fits the beam model of a machine to measurements."""

from __future__ import annotations

from pathlib import Path

from lightning_vmat.commands.terminal import linked

MOST_NAME = 16  # characters of a Treatment Machine Name in DICOM (VR SH)


def commission(
    data: Path,
    *,
    out: Path,
    machine: str = "truebeam_millennium120",
    name: str | None = None,
    energy_mv: float | None = None,
    flattening_filter: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Fit the beam model to measurements, and write a machine file for the option --machine of other commands.

    The CSV has the columns measurement, field_mm, depth_mm, offset_mm, ssd_mm and value, one measured value a line.
    Measurements are pdd, tpr, profile, output_factor (relative to 10 x 10 cm), transmission (a fraction), leaf_gap (mm)
    and dose_per_mu (Gy per MU). Needed are a pdd or tpr of the 10 x 10 cm field, a profile of a field of 200 mm or more
    and output factors of two fields other than 10 x 10 cm. A report of the fit and its residuals is written as well.

    Args:
        data: CSV file of measurements.
        out: YAML file of the machine; the beam model (.safetensors) and the report (.html) are written beside it.
        machine: Shipped machine or YAML file that gives leaves, limits and energy.
        name: Name of the machine in plans, at most 16 characters. Default: the name of the file.
        energy_mv: Nominal energy, in MV. Default: that of `machine`.
        flattening_filter: Whether the beam has a flattening filter. Default: as `machine`.
        overwrite: Replace existing files.

    Raises:
        ValueError: measurements that are broken, incomplete, or of no such beam; files that are there already.
    """
    from dataclasses import replace

    from lightning_vmat.dose.commissioning.fit import fit_beam
    from lightning_vmat.dose.commissioning.measurements import read_measurements
    from lightning_vmat.export.commissioning import Commissioned, commissioning_files, write_commissioned
    from lightning_vmat.plan.machine import load_machine

    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"{out}: expected a YAML file to write the machine to")
    name = out.stem if name is None else name
    if not 0 < len(name) <= MOST_NAME:
        raise ValueError(f"machine name {name!r}: expected 1 to {MOST_NAME} characters; choose another --name")
    there = [path for path in commissioning_files(out) if path.exists()]
    if there and not overwrite:
        raise ValueError(f"{there[0]}: exists already, expected a new file; --overwrite true replaces it")
    base = load_machine(machine)
    measured = read_measurements(data, base.sad_mm)
    changes = {
        "name": name,
        "energy_mv": energy_mv,
        "flattening_filter": flattening_filter,
        "leaf_transmission": measured.leaf_transmission,
        "dosimetric_leaf_gap_mm": measured.leaf_gap_mm,
    }
    own = replace(base, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]
    fit = fit_beam(measured, name, own.sad_mm)
    write_commissioned(out, Commissioned(own, measured, fit))
    for residual in fit.residuals:
        print(f"  {residual.curve.name}: {residual.rms:.2%} rms, {residual.largest:.2%} at most")
    print(f"machine: {out}; report: {linked(commissioning_files(out)[2])}")
