"""Writes a plan of a session: plan, report, metrics, and DICOM objects."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from lightning_vmat.explore.making import plan_result
from lightning_vmat.explore.session import Session
from lightning_vmat.export.compared import compared_plan
from lightning_vmat.export.patient_folder import phantom_link
from lightning_vmat.export.plan_results import write_results
from lightning_vmat.files.atomic import atomic_folder


def export_plan(session: Session, number: int, folder: Path) -> None:
    """Writes a folder with everything that `vmat plan` writes; for a phantom also RTPLAN and RTDOSE.

    Args:
        session: the session.
        number: number of the plan.
        folder: folder to write, whole or not at all; it must not exist, or be empty.

    Raises:
        ValueError: no such plan, or a folder that holds something.
    """
    made = session.plan(number)
    link = session.opened.link
    if link is None and made.case.source == "phantom":
        link = phantom_link(made.case)
    opened = session.opened._replace(case=made.case, link=link)
    with atomic_folder(folder) as draft:
        write_results(draft, opened, plan_result(made), compared_plan(None, opened), 16, session.body_dose(made))


def exported_zip(session: Session, number: int) -> bytes:
    """Returns the files of `export_plan` as a zip archive."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "plan")
        export_plan(session, number, folder)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
    return buffer.getvalue()
