"""Reads cases: the package's own formats, and formats of registered readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lightning_vmat.cases.case_files import CASE_FILE
from lightning_vmat.cases.case_files import read_case as read_case_folder
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import DEFAULT_MACHINE
from lightning_vmat.registry import check_name, find, import_object, is_import_path, register

if TYPE_CHECKING:
    from lightning_vmat.cases.dicom.patient import DicomPatient

Reader = Callable[[Path], Case]
AnyReader = TypeVar("AnyReader", bound=Reader)


def read_dicom(
    folder: str | Path,
    protocol: str = "prostate_60gy_20fx",
    *,
    size: str = "base",
    roi_names: str | Path | None = None,
    use_plan: bool = True,
    show_identifiers: bool = False,
    machine: str = DEFAULT_MACHINE,
) -> Case:
    """Read the case of a patient's DICOM folder: a CT series, an RTSTRUCT and, if there is one, an RTPLAN.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.export.patient_folder import write_patient
    >>> write_patient(Path("patient"), vmat.phantom(0, size="tiny"))
    >>> vmat.read_dicom("patient", size="tiny").prescription_gy
    {'PTV': 60.0}

    Args:
        folder: folder of one patient.
        protocol: shipped protocol or YAML file: targets, prescription and fractions.
        size: resolution (voxels, control points, beamlets): tiny, demo, base or clinical.
        roi_names: YAML file that maps ROI names to structures; the shipped one if None.
        use_plan: take arcs and isocentre from the RTPLAN, if there is one.
        show_identifiers: name the case by Patient ID.
        machine: shipped machine or path of a YAML file.

    Raises:
        ValueError: DICOM files that cannot be read, or of several patients.
    """
    return read_dicom_patient(
        folder,
        protocol,
        size=size,
        roi_names=roi_names,
        use_plan=use_plan,
        show_identifiers=show_identifiers,
        machine=machine,
    ).case


def read_dicom_patient(
    folder: str | Path,
    protocol: str = "prostate_60gy_20fx",
    *,
    size: str = "base",
    roi_names: str | Path | None = None,
    use_plan: bool = True,
    start: str | Path | None = None,
    show_identifiers: bool = False,
    machine: str = DEFAULT_MACHINE,
) -> DicomPatient:
    """Read a patient's DICOM folder: the case, and the plan and dose of the folder.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.export.patient_folder import write_patient
    >>> write_patient(Path("dicom"), vmat.phantom(0, size="tiny"))
    >>> patient = vmat.read_dicom_patient("dicom", size="tiny")
    >>> patient.case.prescription_gy, patient.plan, patient.dose_gy
    ({'PTV': 60.0}, None, None)

    To start from the plan: `vmat.planner("reference", start=patient.plan).plan(patient.case)`.

    Args:
        folder: folder of one patient.
        protocol: see `read_dicom`.
        size: see `read_dicom`.
        roi_names: see `read_dicom`.
        use_plan: see `read_dicom`.
        start: RTPLAN to use instead of one in the folder; it gives arcs, isocentre, field and plan.
        show_identifiers: see `read_dicom`.
        machine: see `read_dicom`.

    Raises:
        ValueError: see `read_dicom`.
    """
    from lightning_vmat.cases.dicom.patient import read_patient
    from lightning_vmat.cases.dicom.roi_names import load_roi_names

    return read_patient(
        only_patient(Path(folder)),
        protocol,
        load_roi_names(None if roi_names is None else Path(roi_names)),
        size=size,
        use_plan=use_plan,
        start=None if start is None else Path(start),
        show_identifiers=show_identifiers,
        machine=machine,
    )


def read_matrad(
    path: str | Path,
    protocol: str | None = None,
    *,
    size: str = "base",
    fractions: int = 30,
    use_isocentre: bool = True,
    machine: str = DEFAULT_MACHINE,
) -> Case:
    """The case of a matRad or pyRadPlan patient: `ct` and `cst` of a `.mat` file such as `TG119.mat`.

    The file's objectives become the protocol of the case, `case.protocol`, as YAML. `vmat prepare matrad` prints which
    of them are left out; here `read_patient` in `cases/matrad/patient.py` gives them with the case.

    Args:
        path: of the file.
        protocol: shipped protocol or YAML in place of the file's own objectives.
        size: voxels, control points and beamlets: tiny, demo, base or clinical.
        fractions: number of fractions where neither the file nor a protocol says it.
        use_isocentre: take the isocentre of `pln` or `stf`; else it is the centre of the targets.
        machine: shipped machine or path of a YAML.

    Raises:
        ValueError: a file that cannot be read or is none of matRad's.
    """
    from lightning_vmat.cases.matrad.patient import read_patient

    return read_patient(
        Path(path), protocol, size=size, fractions=fractions, use_isocentre=use_isocentre, machine=machine
    ).case


def only_patient(folder: Path) -> Path:
    """The folder of the only patient whose DICOM files are below a folder.

    Raises:
        ValueError: no patient, or several.
    """
    from lightning_vmat.cases.dicom.patient_folders import patient_folders

    folders = patient_folders(folder)
    if len(folders) > 1:
        raise ValueError(f"{folder}: {len(folders)} patients, expected one; name the subfolder of one of them")
    return folders[0]


def read_case(folder: str | Path, reader: str | None = None) -> Case:
    """Read a case from a folder that `vmat prepare` or `write_case` wrote, or with a reader of your own.

    >>> import lightning_vmat as vmat
    >>> vmat.write_case(vmat.phantom(3, size="tiny"), "phantom_0003")
    >>> vmat.read_case("phantom_0003").case_id
    'phantom_0003'

    Args:
        folder: folder or file to read.
        reader: `case` (default), `dicom`, `matrad`, a registered name, or an import path `package.module.function`.

    Raises:
        ValueError: an unknown reader, or a folder that the reader cannot read.
    """
    folder = Path(folder)
    if reader is None and not (folder / CASE_FILE).is_file():
        raise ValueError(f"{folder}: no {CASE_FILE}, expected a case of `vmat prepare`, or read_dicom for DICOM")
    name = reader or "case"
    function = import_object("reader", name) if is_import_path(name) else find("reader", READERS, name)
    if not callable(function):
        raise ValueError(f"reader {name}: expected a function that takes a folder and gives a Case")
    try:
        case = function(folder)
    except TypeError as error:
        if not is_import_path(name):
            raise
        raise ValueError(
            f"reader {name}: expected a function that takes a folder and gives a Case ({error})"
        ) from error
    if not isinstance(case, Case):
        raise ValueError(f"reader {name}: {folder} gave a {type(case).__name__}, expected a Case")
    return case


def register_reader(name: str) -> Callable[[AnyReader], AnyReader]:
    """Register a reader of your own under a name, for `read_case` and `vmat plan --reader NAME`.

    Decorates a function from a path to a `Case`, whose constructor checks what it is given. Units and axes: HU, Gy and
    mm, patient coordinates LPS, volumes `[z, y, x]`. An import path needs no registration:
    `vmat plan FOLDER --reader my_package.readers.read_ours`.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> @vmat.register_reader("seed_file")
    ... def read_seed(path):
    ...     return vmat.phantom(int(path.read_text()), size="tiny")
    >>> _ = Path("patient.seed").write_text("5")
    >>> vmat.read_case("patient.seed", reader="seed_file").case_id
    'phantom_0005'

    Raises:
        ValueError: a bad name, or one that is taken.
    """
    check_name("reader", name)

    def add(read: AnyReader) -> AnyReader:
        own: Reader = read
        register("reader", READERS, name, own, read.__module__)
        return read

    return add


READERS: dict[str, Reader] = {"case": read_case_folder, "dicom": read_dicom, "matrad": read_matrad}
"""Name -> function from a folder to its case; `register_reader` adds to it."""
