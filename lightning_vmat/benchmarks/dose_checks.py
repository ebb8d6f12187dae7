"""Prints and writes all figures of the dose's accuracy: `vmat check dose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_vmat.metrics.check import Check


def dose_checks(folder: Path) -> list[Check]:
    """All figures with their bounds.

    Args:
        folder: folder of reference doses: `box.npz`, `tg119.npz` and the machine file `photons_Generic.mat`.

    Raises:
        ValueError: a file that is missing or broken.
    """
    from lightning_vmat.benchmarks.dose_accuracy.against_reference import reference_checks
    from lightning_vmat.benchmarks.dose_accuracy.beam_in_water import generic_checks, machine_file_checks
    from lightning_vmat.benchmarks.dose_accuracy.kernel_fit import kernel_fit_checks
    from lightning_vmat.benchmarks.dose_accuracy.reference_field import MACHINE_FILE

    machine = folder / MACHINE_FILE
    return [
        *generic_checks(),
        *machine_file_checks(machine),
        *kernel_fit_checks(machine),
        *reference_checks(folder),
    ]


def check_dose(folder: Path, json: Path | None = None) -> None:
    """Print all figures with their bounds, and write them.

    Args:
        folder: folder of reference doses.
        json: file for the figures; None for none.

    Raises:
        ValueError: a file that is missing or broken, or a folder in place of the file for the figures.
        ToleranceExceeded: a figure is out of bounds.
    """
    from json import dumps

    from lightning_vmat.benchmarks.tolerance import ToleranceExceeded
    from lightning_vmat.files.atomic import atomic_file, check_file
    from lightning_vmat.metrics.check import as_table

    check_file(json)
    checks = dose_checks(folder)
    print(as_table(checks))
    if json is not None:
        with atomic_file(json) as draft:
            draft.write_text(dumps({"folder": str(folder), "checks": [c.as_dict() for c in checks]}, indent=1))
    failed = [c for c in checks if not c.passed]
    print(f"{len(checks)} figures, {len(failed)} out of bounds")
    if failed:
        first = f"{failed[0].subject}, {failed[0].measure}"
        raise ToleranceExceeded(f"{len(failed)} figures out of bounds, the first: {first}")
