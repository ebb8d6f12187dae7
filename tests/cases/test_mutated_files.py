"""Damaged DICOM files give the right case or one line, and never a traceback, a part of a case, or somebody's name.

`VMAT_MUTATIONS` is the number of damaged files, 200 if unset.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from mutations import MUTATIONS, changed_keywords, mutated
from pydicom.dataset import Dataset
from small_patient import write_dose, write_plan, write_small_patient

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.plan_files import read_dose, read_plan
from lightning_vmat.cli import main

COUNT = int(os.environ.get("VMAT_MUTATIONS", "200"))
SECRETS = {"PatientName": "Doe^Jane", "PatientID": "QX-4711-Z", "PatientBirthDate": "19500203"}
GEOMETRY = ("arcs", "isocentre_mm", "beamlets", "left_mm", "right_mm", "mu", "motion")
STRUCTURES = ("Body", "PTV", "Bladder", "Rectum", "FemoralHeadLeft", "FemoralHeadRight")
SAYS_SO: dict[str, dict[str, tuple[str, ...]]] = {
    "ct_00.dcm": dict.fromkeys(("PixelData", "RescaleIntercept", "RescaleSlope"), ("hu",)),
    "ct_05.dcm": dict.fromkeys(("PixelData", "RescaleIntercept", "RescaleSlope"), ("hu",)),
    "rs.dcm": dict.fromkeys(
        ("ContourData", "ROIName", "RTROIInterpretedType", "ContourGeometricType", "ContourSequence", "ROINumber"),
        ("grid", "hu", "dose", *GEOMETRY, *STRUCTURES),
    ),
    "rp.dcm": dict.fromkeys(
        (
            "GantryAngle",
            "LeafJawPositions",
            "BeamLimitingDevicePositionSequence",
            "BeamMeterset",
            "CumulativeMetersetWeight",
            "IsocenterPosition",
            "BeamLimitingDeviceAngle",
            "PatientSupportAngle",
        ),
        GEOMETRY,
    ),
    "rd.dcm": dict.fromkeys(
        (
            "PixelData",
            "DoseGridScaling",
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "GridFrameOffsetVector",
        ),
        ("dose",),
    ),
}
"""By file, the attributes whose value is the only word on what it says, and what of the case another value changes."""


def secret(data: Dataset) -> None:
    for keyword, value in SECRETS.items():
        setattr(data, keyword, value)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mutations")
    patient = write_small_patient(root / "pat", change_ct=secret, change_structures=secret)
    write_plan(patient, change=secret)
    write_dose(patient, change=secret)
    return root


def prepared(patient: Path, out: Path) -> int:
    return main(["prepare", "dicom", str(patient), "--out", str(out), "--size", "tiny", "--jobs", "1"])


def what_was_read(out: Path) -> dict[str, object]:
    """All that a case says, but for its name."""
    [folder] = out.glob("patient_*")
    case, (plan, _) = read_case(folder), read_plan(folder / "plan.safetensors")
    values = {"grid": case.grid, "arcs": case.arcs, "isocentre_mm": case.isocentre_mm, "beamlets": case.beamlets}
    tensors = {"hu": case.hu, **case.structures, **vars(plan)}
    tensors["dose"] = read_dose(folder / "clinical_dose.nii.gz", case.grid)
    return {**values, **{name: tensor.numpy().tobytes() for name, tensor in tensors.items()}}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(SAYS_SO))
def test_a_damaged_file_is_read_right_or_refused_in_one_line(
    root: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(root / "pat", tmp_path / "whole") == 0
    right = what_was_read(tmp_path / "whole")
    path = root / "pat" / name
    raw, faults, refused = path.read_bytes(), [], 0
    for seed in range(COUNT // len(SAYS_SO)):
        kind, damaged = mutated(raw, np.random.default_rng([seed, *name.encode()]))
        path.write_bytes(damaged)
        capsys.readouterr()
        try:
            fault = outcome(root, name, tmp_path / str(seed), raw, damaged, right, capsys)
        finally:
            path.write_bytes(raw)
        refused += not (tmp_path / str(seed)).exists()
        faults += [f"seed {seed}, {kind} {sorted(changed_keywords(raw, damaged))[:4]}: {fault}"] if fault else []
    assert not faults, "\n".join([f"{len(faults)} faults", *faults])
    assert 0 < refused < COUNT // len(SAYS_SO)


def outcome(
    root: Path,
    name: str,
    out: Path,
    raw: bytes,
    damaged: bytes,
    right: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What is wrong with how a damaged file was read; empty if nothing is."""
    try:
        status = prepared(root / "pat", out)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.strip() and not line.startswith(("\r", "cases:"))]
    texts = [printed.out, printed.err, *(path.read_text(errors="replace") for path in out.rglob("*.yaml"))]
    if leaked := [keyword for keyword, value in SECRETS.items() if any(value in text for text in texts)]:
        return f"shows {', '.join(leaked)}: {lines}"
    if status == 2:
        one_line = len(lines) == 1 and lines[0].startswith("vmat: error: ")
        return "" if one_line and not out.exists() else f"{lines}, {sorted(out.rglob('*'))}"
    if status != 0:
        return f"exit status {status}"
    try:
        found = what_was_read(out)
    except (ValueError, OSError) as error:
        return f"part of a case: {error}"
    differs = {key for key in right.keys() | found.keys() if right.get(key) != found.get(key)}
    changed = changed_keywords(raw, damaged)
    explained = {key for keyword in changed for key in SAYS_SO[name].get(keyword, ())}
    return f"{sorted(differs - explained)} changed" if differs - explained else ""


def test_every_kind_of_damage_is_done(root: Path) -> None:
    raw = (root / "pat" / "rp.dcm").read_bytes()
    damaged = [mutated(raw, np.random.default_rng(seed)) for seed in range(60)]
    assert {kind for kind, _ in damaged} == set(MUTATIONS)
    assert sum(changed_keywords(raw, file) != set() for _, file in damaged) > 50
