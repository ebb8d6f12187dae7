from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from full_disk import full_disk

from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.nifti import read_volume, write_volume
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.plan_files import read_dose, read_plan, write_dose, write_plan
from lightning_vmat.files.atomic import atomic_folder
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid


@pytest.fixture(scope="module")
def case() -> Case:
    return make_phantom(3, "tiny")


@pytest.fixture
def folder(case: Case, tmp_path: Path) -> Path:
    write_case(case, tmp_path / "case")
    return tmp_path / "case"


def random_plan(control_points: int = 12, leaf_pairs: int = 8) -> Plan:
    left = -torch.rand(control_points, leaf_pairs) * 20
    return Plan(left, left + 25, torch.rand(control_points))


def test_case_comes_back_as_it_was_written(case: Case, folder: Path) -> None:
    back = read_case(folder)
    assert torch.equal(back.hu, case.hu)
    assert list(back.structures) == list(case.structures)
    assert all(torch.equal(back.structures[name], mask) for name, mask in case.structures.items())
    for name in ("case_id", "source", "grid", "prescription_gy", "fractions", "isocentre_mm", "arcs", "beamlets"):
        assert getattr(back, name) == getattr(case, name), name
    assert (back.machine_name, back.protocol) == (case.machine_name, case.protocol)


def asymmetric() -> tuple[torch.Tensor, VolumeGrid]:
    volume = torch.zeros(4, 5, 6)
    volume[0, 1, 2], volume[3, 4, 5] = 7.5, -2.0
    return volume, VolumeGrid((4, 5, 6), (1.0, 2.0, 3.0), (-10.0, 20.0, -30.0))


def test_nifti_keeps_every_voxel_in_its_place_in_the_patient(tmp_path: Path) -> None:
    """A point in LPS is at (-x, -y, z) in the RAS world of a NIfTI file."""
    volume, grid = asymmetric()
    write_volume(volume, grid, tmp_path / "v.nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    place = np.argwhere(np.asarray(image.dataobj) == 7.5)[0]
    world = image.affine @ [*place, 1.0]
    index = torch.tensor([0 * 30 + 1 * 6 + 2])
    x, y, z = grid.centres_mm(index)[0].tolist()
    assert world[:3] == pytest.approx([-x, -y, z])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_nifti_of_any_orientation_reads_as_the_same_volume(tmp_path: Path, axes: str) -> None:
    volume, grid = asymmetric()
    write_volume(volume, grid, tmp_path / "v.nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    back, found = read_volume(tmp_path / "turned.nii.gz")
    assert found == grid
    assert torch.equal(back, volume)


def test_plan_and_dose_come_back(tmp_path: Path, case: Case) -> None:
    plan = random_plan()
    write_plan(plan, tmp_path / "plan.safetensors", {"planner": "reference", "seconds": 3.5})
    back, metadata = read_plan(tmp_path / "plan.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(vars(plan).values(), vars(back).values(), strict=True))
    assert metadata == {"planner": "reference", "seconds": 3.5}
    dose = torch.rand(case.grid.shape) * 60
    write_dose(dose, case.grid, tmp_path / "dose.nii.gz")
    assert torch.equal(read_dose(tmp_path / "dose.nii.gz", case.grid), dose)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dose.nii.gz", "plan.safetensors"]


def test_existing_folder_is_not_overwritten(case: Case, folder: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        write_case(case, folder)


def test_failed_write_leaves_nothing_and_names_the_folder(case: Case, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="case"), full_disk(20_000):
        write_case(case, tmp_path / "case")
    with pytest.raises(OSError, match=r"plan\.safetensors"), full_disk(100):
        write_plan(random_plan(), tmp_path / "plan.safetensors")
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    write_plan(random_plan(), path, {"number": 1})
    with pytest.raises(OSError, match="plan"), full_disk(100):
        write_plan(random_plan(), path, {"number": 2})
    assert read_plan(path)[1] == {"number": 1}


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "case") as draft:
        (draft / "half").write_text("written")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_replaced_folder_is_whole_again_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the last step fails: the folder that stepped aside comes back."""
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "old").write_text("first")

    def refuse(source: Path, target: Path, rename: Callable[[Path, Path], None] = os.replace) -> None:
        if Path(target).name == "plan" and (Path(source) / "new").exists():
            raise OSError(errno.EIO, "device lost", str(source))
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"device lost.*plan'$"), atomic_folder(tmp_path / "plan", replace=True) as draft:
        (draft / "new").write_text("second")
    assert [path.name for path in tmp_path.rglob("*")] == ["plan", "old"]
    monkeypatch.undo()
    with atomic_folder(tmp_path / "plan", replace=True) as draft:
        (draft / "new").write_text("third")
    assert [path.name for path in tmp_path.rglob("*")] == ["plan", "new"]


def test_only_a_folder_of_files_is_replaced(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds the folder structures"), atomic_folder(folder, replace=True):
        pass
    assert (folder / "structures").is_dir()


def test_new_parents_go_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"new/folder/case'$"), atomic_folder(tmp_path / "new/folder/case") as draft:
        (draft / "missing" / "file").write_text("lost")
    assert not list(tmp_path.iterdir())


def change_settings(folder: Path, **changes: object) -> None:
    path = folder / "case.yaml"
    settings = yaml.safe_load(path.read_text())
    settings.update(changes)
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, r"case\.yaml: case version 99, expected 1"),
        ({"arcs": None}, r"case\.yaml: arcs missing"),
        ({"arcs": []}, "at least one arc"),
        ({"arcs": [{"speed": 3}]}, "speed"),
        ({"arcs": 3}, "arcs is 3, expected a list"),
        ({"arcs": [{"gantry_start_deg": float("nan")}]}, "gantry_start_deg is nan, expected a finite number"),
        ({"arcs": [{"collimator_deg": float("nan")}]}, "collimator_deg is nan"),
        ({"arcs": [{"control_points": 12.5}]}, r"control_points is 12\.5, expected a whole number"),
        ({"beamlets": 3}, "beamlets is 3, expected keys and values"),
        ({"beamlets": {"beamlet_width_mm": 5.0}}, "beamlets: key leaf_edges_mm is missing"),
        ({"fractions": 20.7}, r"fractions is 20\.7, expected a whole number"),
        ({"prescription_gy": {"PTV": "much"}}, "prescription_gy is 'much' for PTV"),
        ({"prescription_gy": [60.0]}, r"prescription_gy is \[60\.0\], expected keys and values"),
        ({"structures": "Body"}, "structures is 'Body', expected a list"),
        ({"fractions": 0}, "0 fractions"),
        ({"fractions": "many"}, "many"),
        ({"prescription_gy": {}}, "no target has a prescription"),
        ({"prescription_gy": {"GTV": 60.0}}, "no target 'GTV'"),
        ({"prescription_gy": {"PTV": 6000.0}}, "6000.0 Gy"),
        ({"isocentre_mm": [0.0, 0.0, 900.0]}, "isocentre .* outside the CT"),
        ({"isocentre_mm": [0.0, 0.0, float("nan")]}, "isocentre_mm is .*nan.*, expected three finite numbers"),
        ({"isocentre_mm": [0.0]}, "expected three finite numbers"),
        ({"machine": "cobalt"}, "machine cobalt"),
        ({"structures": ["Body", "PTV", "Spleen"]}, r"Spleen\.nii\.gz: no such file"),
        ({"gantry_slowdown": [1]}, r"gantry_slowdown is \[1\], expected a finite number"),
        ({"gantry_slowdown": "2"}, "gantry_slowdown is '2', expected a finite number"),
        ({"wishs": {"Rectum": 4.0}}, r"case\.yaml: unknown key 'wishs', expected arcs, beamlets, case_id, .* wishes$"),
        ({"structures": ["Body", "../Body"]}, r"structure name '\.\./Body'"),
    ],
)
def test_bad_settings_are_one_clear_line(folder: Path, changes: dict[str, object], message: str) -> None:
    change_settings(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_case(folder)
    assert "\n" not in str(error.value)


def test_a_case_of_before_wishes_and_slow_gantries_is_read(folder: Path) -> None:
    change_settings(folder, wishes=None, gantry_slowdown=None)
    case = read_case(folder)
    assert (case.wishes, case.gantry_slowdown) == ({}, 1.0)


def test_whole_numbers_become_the_floats_that_tensors_need(case: Case, folder: Path) -> None:
    beamlets = {**vars(case.beamlets), "leaf_edges_mm": [-10, 0, 10], "beamlet_start_mm": -20, "beamlet_width_mm": 5}
    change_settings(folder, isocentre_mm=[0, 0, 0], prescription_gy={"PTV": 60}, beamlets=beamlets)
    back = read_case(folder)
    assert torch.tensor(back.isocentre_mm).is_floating_point()
    assert back.beamlets.beamlet_edges_mm.is_floating_point() and back.beamlets.leaf_centres_mm.is_floating_point()
    assert isinstance(back.prescription_gy["PTV"], float)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("leaf_edges_mm", [-3.3, 1.7, 2.2], r"leaf_edges_mm holds -3\.3, expected leaf boundaries of machine truebeam"),
        ("leaf_edges_mm", "all", "leaf_edges_mm is 'all', expected a list of finite numbers"),
        ("leaf_edges_mm", [0.0, None], "leaf_edges_mm is .*None"),
        ("beamlet_width_mm", float("nan"), "beamlet_width_mm is nan, expected a finite number"),
        ("beamlets", "8", "beamlets is '8', expected a whole number"),
        ("beamlets", 8.5, r"beamlets is 8\.5, expected a whole number"),
        ("jaws_mm", [-20.0, 20.0], r"jaws_mm is \[-20\.0, 20\.0\], expected four finite numbers, or none"),
        ("width", 3.0, "key width is unknown"),
    ],
)
def test_bad_beamlets_are_one_clear_line(case: Case, folder: Path, key: str, value: object, message: str) -> None:
    beamlets = {**vars(case.beamlets), "leaf_edges_mm": list(case.beamlets.leaf_edges_mm), key: value}
    change_settings(folder, beamlets=beamlets)
    with pytest.raises(ValueError, match=rf"case\.yaml: beamlets: {message}"):
        read_case(folder)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["ct.nii.gz", "structures/PTV.nii.gz"])
def test_truncated_volume_is_named(folder: Path, name: str) -> None:
    truncate(folder / name)
    with pytest.raises(ValueError, match=f"{name}: not a readable NIfTI"):
        read_case(folder)


def test_truncated_plan_is_named(tmp_path: Path) -> None:
    write_plan(random_plan(), tmp_path / "plan.safetensors")
    truncate(tmp_path / "plan.safetensors")
    with pytest.raises(ValueError, match=r"plan\.safetensors: not a readable plan"):
        read_plan(tmp_path / "plan.safetensors")


def replace_ct(folder: Path, case: Case, value: float) -> None:
    hu = case.hu.clone()
    hu[2, 3, 4] = value
    write_volume(hu, case.grid, folder / "ct.nii.gz")


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN"), (1e6, "1000000 HU"), (15000.0, "15000 HU, expected -1100 to 12000"), (-5000.0, "-5000")],
)
def test_absurd_ct_is_refused(folder: Path, case: Case, value: float, message: str) -> None:
    replace_ct(folder, case, value)
    with pytest.raises(ValueError, match=message):
        read_case(folder)


def test_ct_of_another_scale_is_refused(folder: Path, case: Case) -> None:
    """Twenty times too large; then without the rescale intercept that takes stored numbers to HU, and with it twice."""
    write_volume(case.hu.clamp(min=-50) * 20, case.grid, folder / "ct.nii.gz")
    with pytest.raises(ValueError, match=r"CT spans -1000 to \d+ HU, expected -1100 to 12000"):
        read_case(folder)
    for hu, median in ((case.hu + 1024, r"(9|1\d)\d\d"), ((case.hu - 1024).clamp(min=-1024), r"-(9|10)\d\d")):
        write_volume(hu, case.grid, folder / "ct.nii.gz")
        with pytest.raises(ValueError, match=rf"median of {median} HU in Body, expected -900 to 300"):
            read_case(folder)


def test_target_may_reach_into_air_but_not_lie_there(case: Case) -> None:
    outside = ~case.structures["Body"]
    air = torch.zeros_like(outside)
    air.view(-1)[outside.flatten().nonzero()[: int(case.structures["PTV"].sum()), 0]] = True
    structures = case.structures | {"PTV": case.structures["PTV"] | air}
    assert case.with_settings(structures=structures).target.any()  # half of it
    air.view(-1)[outside.flatten().nonzero()[-1]] = True
    structures["PTV"] = structures["PTV"] | air
    with pytest.raises(ValueError, match="50% of target 'PTV' lies outside Body, expected at most 50%"):
        case.with_settings(structures=structures)


def test_empty_body_is_refused(case: Case) -> None:
    structures = case.structures | {"Body": torch.zeros_like(case.structures["Body"])}
    with pytest.raises(ValueError, match="no structure 'Body' or it is empty"):
        case.with_settings(structures=structures)


def test_target_elsewhere_than_the_ct_is_refused(folder: Path, case: Case) -> None:
    moved = VolumeGrid(case.grid.shape, case.grid.spacing_mm, (500.0, 0.0, 0.0))
    write_volume(case.structures["PTV"], moved, folder / "structures/PTV.nii.gz")
    with pytest.raises(ValueError, match=r"PTV\.nii\.gz: voxels .* expected those of the CT"):
        read_case(folder)


def test_empty_target_is_refused(folder: Path, case: Case) -> None:
    write_volume(torch.zeros_like(case.structures["PTV"]), case.grid, folder / "structures/PTV.nii.gz")
    with pytest.raises(ValueError, match="no target 'PTV' or it is empty"):
        read_case(folder)


def test_oblique_and_flat_volumes_are_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), affine), tmp_path / "oblique.nii.gz")
    with pytest.raises(ValueError, match="oblique"):
        read_volume(tmp_path / "oblique.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((3, 3), np.float32), np.eye(4)), tmp_path / "flat.nii.gz")
    with pytest.raises(ValueError, match="2 axes, expected 3"):
        read_volume(tmp_path / "flat.nii.gz")


@pytest.mark.parametrize(
    ("kind", "named"), [("complex64", "complex64"), ([("R", "u1"), ("G", "u1"), ("B", "u1")], "R.*G.*B")]
)
def test_values_that_are_not_real_numbers_are_refused(tmp_path: Path, kind: Any, named: str) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.dtype(kind)), np.eye(4)), tmp_path / "v.nii.gz")
    with pytest.raises(ValueError, match=rf"v\.nii\.gz: .*values of type .*{named}.*, expected real numbers"):
        read_volume(tmp_path / "v.nii.gz")


def test_a_mask_with_nan_is_refused(folder: Path, case: Case) -> None:
    mask = case.structures["Rectum"].float()
    mask[0, 0, 0] = float("nan")
    write_volume(mask, case.grid, folder / "structures/Rectum.nii.gz")
    with pytest.raises(ValueError, match=r"Rectum\.nii\.gz: NaN or infinite values, expected a mask of 0 and 1"):
        read_case(folder)


@pytest.mark.parametrize("spacing", [0.0, float("nan")])
def test_spacing_that_is_not_positive_is_refused(tmp_path: Path, spacing: float) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "v.nii")
    raw = bytearray((tmp_path / "v.nii").read_bytes())
    raw[280:292] = np.array([spacing, 0, 0], np.float32).tobytes()  # first row of the header's affine
    (tmp_path / "v.nii").write_bytes(raw)
    with pytest.raises(ValueError, match=r"v\.nii: voxel spacing .* expected three positive"):
        read_volume(tmp_path / "v.nii")


@pytest.mark.parametrize("spacing", [0.0, -5.0, float("nan")])
def test_stored_spacing_is_refused_in_silence(
    folder: Path, spacing: float, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """nibabel mends the header's `pixdim` and says so on stderr; the affine beside it is fine."""
    path = folder / "structures" / "PTV.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = np.float32(spacing).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(ValueError, match=rf"PTV\.nii\.gz: voxel spacing \[{spacing}, .*expected three positive"):
        read_case(folder)
    assert not caplog.records and not capfd.readouterr().err
