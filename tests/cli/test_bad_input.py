"""Bad input of every kind through the command line: exit status 2, one line that says what is wrong, nothing written.

Typing errors in a recipe's configuration and missing or broken checkpoints are in `test_recipe_commands.py`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from full_disk import full_disk

from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.nifti import read_volume, write_volume
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.plan.case import Case

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def phantom() -> Case:
    return make_phantom(4, "tiny")


@pytest.fixture
def folder(phantom: Case, tmp_path: Path) -> Path:
    write_case(phantom, tmp_path / "case")
    return tmp_path / "case"


def setting(*keys: str | int, value: object) -> Spoil:
    """Change one entry of case.yaml."""

    def spoil(folder: Path) -> None:
        path = folder / "case.yaml"
        settings = yaml.safe_load(path.read_text())
        place: Any = settings
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(yaml.safe_dump(settings))

    return spoil


def without(*keys: str) -> Spoil:
    """Take one entry out of case.yaml."""

    def spoil(folder: Path) -> None:
        path = folder / "case.yaml"
        settings = yaml.safe_load(path.read_text())
        place: Any = settings
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        path.write_text(yaml.safe_dump(settings))

    return spoil


def volume(change: Callable[[torch.Tensor], torch.Tensor], name: str = "ct.nii.gz") -> Spoil:
    """Change the values of a volume."""

    def spoil(folder: Path) -> None:
        values, grid = read_volume(folder / name)
        write_volume(change(values.clone()), grid, folder / name)

    return spoil


def one_voxel(value: float) -> Spoil:
    def change(values: torch.Tensor) -> torch.Tensor:
        values[3, 3, 3] = value
        return values

    return volume(change)


def in_a_corner(values: torch.Tensor) -> torch.Tensor:
    values[:] = 0
    values[:2, :2, :2] = 1
    return values


def elsewhere(folder: Path) -> None:
    path = folder / "structures/PTV.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def stored_spacing(value: float, *, affine_too: bool = False) -> Spoil:
    """Change the header's voxel size along x."""

    def spoil(folder: Path) -> None:
        raw = bytearray(gzip.decompress((folder / "ct.nii.gz").read_bytes()))
        raw[80:84] = np.float32(value).tobytes()
        if affine_too:
            raw[280:284] = np.float32(value).tobytes()
        (folder / "ct.nii.gz").write_bytes(gzip.compress(bytes(raw)))

    return spoil


def cut_to(part: float, name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(part * len(content))])

    return spoil


def shipped(place: str, name: str) -> str:
    return (resources.files("lightning_vmat") / place / f"{name}.yaml").read_text()


def changed(key: str, file: str, text: str, old: str, new: str) -> Spoil:
    """Give the case a file of its own for this key: the text, with `old` replaced."""

    def spoil(folder: Path) -> None:
        assert old in text
        path = folder / file
        path.write_text(text.replace(old, new))
        setting(key, value=str(path))(folder)

    return spoil


def changed_protocol(old: str, new: str) -> Spoil:
    """Give the case a protocol of its own."""
    return changed("protocol", "protocol.yaml", shipped("objectives/protocols", "prostate_60gy_20fx"), old, new)


def changed_machine(old: str, new: str) -> Spoil:
    """Give the case a machine of its own."""
    return changed("machine", "linac.yaml", shipped("plan/machines", "truebeam_millennium120"), old, new)


def error_of(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; progress bars overwrite themselves and do not count."""
    assert main(arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line and not line.startswith(("cases:", "plan"))]
    assert len(lines) == 1 and lines[0].startswith("vmat: error: "), lines
    return lines[0]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        pytest.param(setting("prescription_gy", value={}), ["case.yaml", "no target"], id="no target"),
        pytest.param(setting("prescription_gy", value={"GTV": 60.0}), ["case.yaml", "'GTV'"], id="unknown target"),
        pytest.param(setting("prescription_gy", value={"PTV": "x"}), ["case.yaml", "PTV", "'x'"], id="dose in words"),
        pytest.param(volume(torch.zeros_like, "structures/PTV.nii.gz"), ["'PTV' or it is empty"], id="empty target"),
        pytest.param(elsewhere, ["PTV.nii.gz", "expected those of the CT"], id="target outside the CT"),
        pytest.param(volume(in_a_corner, "structures/PTV.nii.gz"), ["100%", "'PTV'", "Body"], id="target outside Body"),
        pytest.param(one_voxel(float("nan")), ["phantom_0004", "NaN"], id="NaN HU"),
        pytest.param(one_voxel(1e6), ["1000000 HU", "expected -1100 to 12000"], id="absurd HU"),
        pytest.param(volume(lambda hu: hu.clamp(min=-50) * 20), ["HU", "expected -1100 to 12000"], id="20 times HU"),
        pytest.param(volume(lambda hu: hu + 1024), ["median", "HU in Body", "expected"], id="no rescale intercept"),
        pytest.param(stored_spacing(0.0, affine_too=True), ["ct.nii.gz", "spacing [0.0", "positive"], id="no spacing"),
        pytest.param(stored_spacing(0.0), ["ct.nii.gz", "spacing [0.0", "positive"], id="no stored spacing"),
        pytest.param(stored_spacing(-5.0), ["ct.nii.gz", "spacing [-5.0", "positive"], id="negative spacing"),
        pytest.param(cut_to(0.5, "ct.nii.gz"), ["ct.nii.gz: not a readable NIfTI"], id="truncated CT"),
        pytest.param(cut_to(0.0, "ct.nii.gz"), ["ct.nii.gz: not a readable NIfTI"], id="CT of no bytes"),
        pytest.param(cut_to(0.2, "structures/PTV.nii.gz"), ["PTV.nii.gz: not a readable NIfTI"], id="truncated target"),
        pytest.param(
            changed_protocol("structure: Rectum", "structure: Rektum"), ["Rektum"], id="unknown structure in protocol"
        ),
        pytest.param(setting("protocol", value="cure"), ["protocol", "cure"], id="unknown protocol"),
        pytest.param(setting("structures", value=["Body", "PTV", "Spleen"]), ["Spleen.nii.gz"], id="missing structure"),
        pytest.param(setting("machine", value="cobalt"), ["case.yaml", "machine cobalt"], id="unknown machine"),
        pytest.param(
            changed_machine("sad_mm: 1000.0", "sad_mm: 0"), ["linac.yaml", "sad_mm is 0.0", "> 0"], id="machine value"
        ),
        pytest.param(setting("version", value=99), ["case.yaml: case version 99, expected 1"], id="wrong case version"),
        pytest.param(setting("version", value="1"), ["case.yaml: case version '1', expected 1"], id="version as text"),
        pytest.param(without("beamlets", "leaf_edges_mm"), ["case.yaml", "leaf_edges_mm is missing"], id="no edges"),
        pytest.param(setting("beamlets", value=None), ["case.yaml: beamlets is None"], id="no beamlets"),
        pytest.param(setting("beamlets", "beamlets", value=8.5), ["case.yaml", "beamlets is 8.5"], id="half a beamlet"),
        pytest.param(
            setting("beamlets", "leaf_edges_mm", value=[-3.3, 1.7, 2.2]),
            ["case.yaml", "leaf_edges_mm holds -3.3", "leaf boundaries"],
            id="edges across leaves",
        ),
        pytest.param(setting("wishs", value={}), ["case.yaml: unknown key 'wishs'", "wishes"], id="misspelt key"),
        pytest.param(setting("gantry_slowdown", value=None), ["gantry_slowdown is None"], id="no slowdown"),
        pytest.param(
            changed_protocol("type: squared_underdose", "type: [max]"), [".type: got ['max']"], id="list of types"
        ),
        pytest.param(setting("fractions", value=20.7), ["case.yaml", "fractions is 20.7", "whole"], id="fractions"),
        pytest.param(
            setting("arcs", 0, "gantry_start_deg", value=float("nan")),
            ["case.yaml", "gantry_start_deg is nan"],
            id="gantry NaN",
        ),
        pytest.param(
            setting("arcs", 0, "collimator_deg", value=float("nan")),
            ["case.yaml", "collimator_deg is nan"],
            id="collimator NaN",
        ),
        pytest.param(setting("arcs", 0, "gantri", value=3.0), ["case.yaml", "key gantri is unknown"], id="arc's key"),
        pytest.param(
            setting("isocentre_mm", value=[0.0, 0.0, 9e3]), ["case.yaml", "9000.0", "outside the CT"], id="isocentre"
        ),
    ],
)
def test_a_bad_case_is_one_line(
    spoil: Spoil, named: list[str], folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)
    error = error_of(["plan", str(folder), "--out", str(tmp_path / "new/plan"), "--voxels", "300"], capfd)
    assert all(words in error for words in named)
    assert any(place in error for place in (str(folder), "phantom_0004", "protocol cure"))
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--protocol", "prostate_78gy_39fx", "--size", "clinical"], "protocol prostate_78gy_39fx, size clinical: "),
        (["--roi_names", "own.yaml"], "roi_names own.yaml: "),
        (["--use_plan", "false"], "use_plan False: "),
        (["--show-identifiers"], "show_identifiers True: "),
        (["--size", "tiny", "--reader", "case"], "not with --reader case"),
        (["--seed", "-1"], "seed -1: expected 0 to 9223372036854775807"),
        (["--seed", "99999999999999999999999"], "seed 99999999999999999999999: expected 0 to 9223372036854775807"),
        (["--planner", "builtins.dict"], "planner builtins.dict: expected a class or function that takes Plan"),
        (["--planner", "os.path.join"], "planner os.path.join: expected a class or function that takes Plan"),
        (["--planner", "builtins.str"], "planner builtins.str: gave a str, expected an object with plan(case)"),
        (["--reader", "os.getcwd"], "reader os.getcwd: expected a function that takes a folder and gives a Case"),
    ],
)
def test_a_bad_option_is_one_line(
    options: list[str], named: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = error_of(["plan", str(folder), "--out", str(tmp_path / "new/plan"), "--voxels", "300", *options], capfd)
    assert named in error
    assert named.startswith(("seed", "planner", "reader", "not")) or f"not with the case {folder}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def write_patient(folder: Path) -> None:
    """A patient of OpenKBP: a box of water with a target."""
    folder.mkdir(parents=True)
    y, x, z = np.mgrid[50:70, 40:80, 60:90].reshape(3, -1)
    box = (y * 128 + x) * 128 + z
    target = box[(y < 60) & (x > 60) & (z < 75)]
    for name, index, value in (("ct", box, "1000.0"), ("possible_dose_mask", box, ""), ("PTV70", target, "")):
        (folder / f"{name}.csv").write_text("".join([",data\n", *(f"{i},{value}\n" for i in index)]))
    (folder / "dose.csv").write_text("".join([",data\n", *(f"{i},71.5\n" for i in target)]))
    (folder / "voxel_dimensions.csv").write_text("3.0\n4.0\n2.5\n")


def in_the_air(folder: Path) -> None:
    (folder / "PTV70.csv").write_text(",data\n7,\n8,\n")


def in_the_ct_alone(folder: Path) -> None:
    """A body that is somewhere else than the target."""
    lines = (folder / "possible_dose_mask.csv").read_text().splitlines(keepends=True)
    target = set((folder / "PTV70.csv").read_text().splitlines(keepends=True)[1:])
    (folder / "possible_dose_mask.csv").write_text("".join(line for line in lines if line not in target))


def text(name: str, content: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(content)

    return spoil


def missing(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def stored_plus_1000(folder: Path) -> None:
    (folder / "ct.csv").write_text((folder / "ct.csv").read_text().replace(",1000.0", ",2000.0"))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        pytest.param(lambda folder: None, None, id="sound"),
        pytest.param(missing("PTV70.csv"), ["no target", "PTV70"], id="no target"),
        pytest.param(
            text("PTV70.csv", ",data\n"), ["PTV70.csv", "no voxels", "expected at least one"], id="empty target"
        ),
        pytest.param(in_the_air, ["PTV70.csv", "100%", "outside the CT"], id="target outside the CT"),
        pytest.param(in_the_ct_alone, ["pt_1", "100%", "'PTV70'", "outside Body"], id="target outside Body"),
        pytest.param(text("ct.csv", ",data\n806400,nan\n"), ["ct.csv", "nan", "expected"], id="NaN HU"),
        pytest.param(text("ct.csv", ",data\n806400,9e9\n"), ["ct.csv", "expected 0 to 32000"], id="absurd HU"),
        pytest.param(stored_plus_1000, ["pt_1", "median of 1000 HU", "expected"], id="another intercept"),
        pytest.param(text("voxel_dimensions.csv", "3\n-4\n2\n"), ["voxel_dimensions.csv", "-4.0"], id="spacing"),
        pytest.param(cut_to(0.7, "ct.csv"), ["ct.csv", "cut off"], id="truncated CT"),
        pytest.param(cut_to(0.7, "dose.csv"), ["dose.csv", "cut off"], id="truncated dose"),
        pytest.param(cut_to(0.7, "PTV70.csv"), ["PTV70.csv", "cut off"], id="truncated target"),
    ],
)
def test_a_bad_patient_of_open_kbp_is_one_line(
    spoil: Spoil, named: list[str] | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    patient = tmp_path / "challenge/test-pats/pt_1"
    write_patient(patient)
    spoil(patient)
    out = tmp_path / "cohort"
    arguments = ["prepare", "open-kbp", str(tmp_path / "challenge"), "--split", "test", "--size", "tiny"]
    arguments += ["--out", str(out)]
    if named is None:
        assert main(arguments) == 0
        assert (out / "pt_1/case.yaml").is_file()
        return
    error = error_of(arguments, capfd)
    assert all(words in error for words in [*named, "pt_1"])
    assert not out.exists()  # no patient, whole or half, and nothing that looks like a cohort


@pytest.mark.parametrize("size", [200, 3_000, 20_000])
def test_a_full_disk_names_the_folder_and_leaves_nothing(
    size: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan, the dose or the report does not fit."""
    out = tmp_path / "new/results/plan"
    with full_disk(size):
        assert main(["plan", str(folder), "--planner", "fluence", "--out", str(out), "--voxels", "300"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert len(lines) == 1 and f"'{out}'" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_full_disk_leaves_no_half_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort"
    arguments = ["prepare", "phantom", "--out", str(out), "--count", "1", "--size", "tiny", "--jobs", "1"]
    with full_disk(2_000):
        assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert len(lines) == 1 and f"'{out / 'phantom_0000'}'" in lines[0]
    assert not out.exists()


@pytest.mark.slow
def test_results_are_replaced_whole_or_kept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting("prescription_gy", value={"PTV": 60})(folder)  # whole numbers are numbers, too
    setting("arcs", 0, "collimator_deg", value=10)(folder)
    out = tmp_path / "results/plan"
    arguments = ["plan", str(folder), "--planner", "fluence", "--out", str(out), "--voxels", "300"]

    def results() -> dict[str, bytes]:
        assert [path.name for path in out.parent.iterdir()] == ["plan"]
        return {path.name: path.read_bytes() for path in out.iterdir()}

    assert main(arguments) == 0
    first = results()
    assert main(arguments) == 2
    assert f"{out}: exists already" in capsys.readouterr().err
    assert results() == first

    with full_disk(3_000):
        assert main([*arguments, "--overwrite", "true", "--seed", "1"]) == 2
    assert results() == first

    assert main([*arguments, "--overwrite", "true", "--seed", "1"]) == 0
    second = results()
    assert second.keys() == first.keys() and second["metrics.json"] != first["metrics.json"]


def test_a_case_is_not_replaced_by_its_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(folder), "--out", str(folder), "--voxels", "300", "--overwrite", "true"]
    assert main(arguments) == 2
    assert "holds the folder structures" in capsys.readouterr().err
    assert (folder / "ct.nii.gz").is_file()
