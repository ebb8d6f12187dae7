"""matRad's patients as the cases of a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_vmat.cases.matrad.patient import FRACTIONS, case_name, read_patient
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.plan.machine import DEFAULT_MACHINE

NOTES_FILE = "matrad.yaml"


@dataclass(frozen=True)
class MatradSource:
    """A patient's `.mat` file; `matrad.yaml` keeps what was left out of it.

    Args:
        path: of the file.
        size: name of a size.
        protocol: shipped protocol or path of a YAML; None for the file's own objectives.
        fractions: number of fractions where the file does not say.
        use_isocentre: take the file's isocentre.
        machine: shipped machine or path of a YAML.
    """

    path: Path
    size: str
    protocol: str | None = None
    fractions: int = FRACTIONS
    use_isocentre: bool = True
    machine: str = DEFAULT_MACHINE

    @property
    def name(self) -> str:
        return case_name(self.path)

    def load(self) -> SourceCase:
        patient = read_patient(
            self.path,
            self.protocol,
            size=self.size,
            fractions=self.fractions,
            use_isocentre=self.use_isocentre,
            machine=self.machine,
        )
        about = {"file": self.path.name, "notes": list(patient.notes)}
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)
        return SourceCase(patient.case, texts={NOTES_FILE: text})


def read_notes(folder: Path) -> list[str]:
    """What was left out of the file that a case came from; nothing for another case."""
    path = folder / NOTES_FILE
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["notes"]) if path.is_file() else []


def patient_files(source: Path) -> list[Path]:
    """The file itself, or the `.mat` files of a folder.

    Raises:
        ValueError: no such file, no file in the folder, or two whose cases would have one name.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.mat"))
    if not files:
        raise ValueError(f"{source}: no .mat file, expected one of matRad or a folder of them")
    names: dict[str, Path] = {}
    for path in files:
        if (other := names.setdefault(case_name(path), path)) is not path:
            raise ValueError(f"{path} and {other.name} would both be case {case_name(path)}, expected other names")
    return files
