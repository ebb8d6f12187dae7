"""CT series: wherever the patient lay and in whatever order the files come, voxels end up where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pydicom.encaps
import pytest
import torch
from dicom_series import Points, write_series, write_slice
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2KLossless, JPEGLosslessSV1, RLELossless

from lightning_vmat.cases.dicom.ct import CtSeries, choose_series, read_ct
from lightning_vmat.cases.dicom.files import find_files
from lightning_vmat.cases.dicom.patient_folders import patient_folders

ORIENTATIONS = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
    "HFDR": (0, 1, 0, -1, 0, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
}
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
HEIGHTS_MM = [-12.0, -9.0, -6.0, -3.0, 0.0, 3.0]


def slanted(points: Points) -> Points:
    """Different along each axis and in each octant."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.clip(np.asarray(3.0 * x - 5.0 * y + 7.0 * z + 0.04 * x * y), -900, 3000)


def read(folder: Path) -> CtSeries:
    return read_ct([file for file in find_files(folder) if file.modality == "CT"])


def error_from(folder: Path) -> float:
    ct = read(folder)
    points = ct.grid.centres_mm(torch.arange(ct.grid.voxel_count)).double().numpy()
    return float(np.abs(slanted(points).reshape(ct.grid.shape) - ct.hu).max())


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_voxels_are_where_dicom_says(tmp_path: Path, name: str) -> None:
    orientation = ORIENTATIONS[name]
    normal = np.cross(orientation[:3], orientation[3:])
    for k in (4, 0, 3, 1, 5, 2):
        position = np.array([-30.0, 20.0, 11.0]) + 2.5 * k * normal
        write_slice(tmp_path / f"{k}.ima", slanted, position.tolist(), orientation=orientation)
    ct = read(tmp_path)
    assert sorted(ct.grid.shape) == [6, 30, 40]
    assert sorted(ct.grid.spacing_mm) == [1.5, 2.0, 2.5]
    assert error_from(tmp_path) < 0.6


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (0.5, -1000.0), (2.0, -2000.0)])
def test_rescale(tmp_path: Path, slope: float, intercept: float) -> None:
    write_series(tmp_path, slanted, HEIGHTS_MM, slope=slope, intercept=intercept)
    assert error_from(tmp_path) <= slope / 2 + 0.1


def test_compressed_and_without_preamble(tmp_path: Path) -> None:
    first, second, *_ = write_series(tmp_path, slanted, HEIGHTS_MM)
    data = pydicom.dcmread(first)
    data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(first)
    raw = second.read_bytes()
    second.write_bytes(raw[132:])
    assert error_from(tmp_path) < 0.6


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", ["JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEGLSLossless", "JPEG2000Lossless"]
)
def test_series_compressed_without_loss_are_the_same(tmp_path: Path, syntax: str, signed: bool) -> None:
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm (extra `dicom`) is not installed")
    for path in write_series(tmp_path, slanted, HEIGHTS_MM, intercept=0.0 if signed else -1024.0, signed=signed):
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_encapsulated
    assert error_from(tmp_path) < 0.6


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_files_that_others_compressed(tmp_path: Path, name: str) -> None:
    if "jpeg_ls" in name:
        pytest.importorskip("gdcm", reason="python-gdcm (extra `dicom`) is not installed")
    volumes = []
    for source in (name, "MR_small.dcm"):
        folder = tmp_path / source
        folder.mkdir()
        for k in range(2):
            data = pydicom.dcmread(TEST_FILES / source)
            data.Modality, data.SOPInstanceUID = "CT", f"1.2.{k}"
            data.ImagePositionPatient[2] = 3.0 * k
            data.save_as(folder / str(k))
        volumes.append(read(folder).hu)
    assert np.array_equal(volumes[0], volumes[1]) and np.ptp(volumes[0]) > 100


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_series(tmp_path, slanted, HEIGHTS_MM)[0]
    decoder = get_decoder(JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})  # as where its plugins are not installed
    for syntax, package in ((JPEGLosslessSV1, "lightning-vmat[dicom]"), (HTJ2KLossless, "pylibjpeg[openjpeg]")):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        if not data.PixelData.startswith(b"\xfe\xff"):
            data.PixelData = pydicom.encaps.encapsulate([bytes(data.PixelData)])
        data.save_as(path)
        with pytest.raises(ValueError, match=f"{path}: compressed as .*pip install ") as error:
            read(tmp_path)
        assert package in str(error.value) and "\n" not in str(error.value)


def test_localizers_copies_and_other_files_are_passed_over(tmp_path: Path) -> None:
    first = write_series(tmp_path / "ct", slanted, HEIGHTS_MM)[0]
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    (tmp_path / "README.txt").write_text("DICM is a word here")
    (tmp_path / "empty.dcm").write_bytes(b"")
    write_slice(tmp_path / "scout.dcm", slanted, (0, 0, 0), series_uid="1.9", image_type=("ORIGINAL", "LOCALIZER"))
    chosen = choose_series(find_files(tmp_path), [], ["1.2.3.1"], tmp_path)
    assert read_ct(chosen).grid.shape[0] == len(HEIGHTS_MM)


def test_the_named_series_is_taken_and_a_choice_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a", slanted, HEIGHTS_MM)
    write_series(tmp_path / "b", slanted, HEIGHTS_MM[:3], series_uid="1.9")
    files = find_files(tmp_path)
    assert len(choose_series(files, ["1.9"], ["1.2.3.1"], tmp_path)) == 3
    with pytest.raises(ValueError, match="2 CT series"):
        choose_series(files, [], ["1.2.3.1"], tmp_path)
    with pytest.raises(ValueError, match="none in the structure set's frame"):
        choose_series(files, [], ["1.2.3.9"], tmp_path)


@pytest.mark.parametrize(
    ("heights_mm", "named"),
    [
        ([0.0, 3.0, 6.0, 12.0, 15.0], "1 slice is missing, between z = 6.00 mm and z = 12.00 mm, expected even"),
        ([15.0, 3.0, 0.0, 27.0, 6.0, 24.0], "4 slices are missing, the first between z = 6.00 mm and z = 15.00 mm"),
        ([0.0, 3.0, 6.5, 9.0, 12.0], "at z = 3.00 mm and z = 6.50 mm are 3.50 mm apart, most slices 3.00 mm"),
        ([0.0, 3.0, 3.0, 6.0], "and .*: two different slices at one position, z = 3.00 mm"),
        ([0.0], "1 CT slice"),
    ],
    ids=["gap", "gaps", "uneven", "double", "single"],
)
def test_slices_that_make_no_volume_are_refused(tmp_path: Path, heights_mm: list[float], named: str) -> None:
    write_series(tmp_path, slanted, heights_mm)
    with pytest.raises(ValueError, match=named):
        read(tmp_path)


def test_tilt_and_mixed_geometry_are_refused(tmp_path: Path) -> None:
    tilted = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(np.sin(0.2)))
    write_series(tmp_path / "tilted", slanted, HEIGHTS_MM, orientation=tilted)
    with pytest.raises(ValueError, match="no tilt"):
        read(tmp_path / "tilted")
    for k, height in enumerate(HEIGHTS_MM):
        write_slice(tmp_path / "sheared" / f"{k}.dcm", slanted, (-30.0, -20.0 + 0.3 * height, height))
    with pytest.raises(ValueError, match="sideways"):
        read(tmp_path / "sheared")
    write_series(tmp_path / "mixed", slanted, HEIGHTS_MM)
    write_slice(tmp_path / "mixed" / "large.dcm", slanted, (0, 0, 6.0), shape=(31, 40))
    with pytest.raises(ValueError, match="other orientation or size"):
        read(tmp_path / "mixed")
    write_series(tmp_path / "zoomed", slanted, HEIGHTS_MM)
    write_slice(tmp_path / "zoomed" / "zoom.dcm", slanted, (0, 0, 6.0), pixel_mm=(2.0, 1.6))
    with pytest.raises(ValueError, match="pixels of"):
        read(tmp_path / "zoomed")


def test_folders_without_a_patient_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        patient_folders(tmp_path / "nowhere")
    write_series(tmp_path, slanted, HEIGHTS_MM)
    with pytest.raises(ValueError, match="expected a CT and an RTSTRUCT"):
        patient_folders(tmp_path)
