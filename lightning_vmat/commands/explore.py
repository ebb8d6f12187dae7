"""`vmat explore`: plan one patient by wish, in the browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lightning_vmat.commands.prepare import SizeName


def explore(
    case: Path,
    *,
    planner: str = "learned",
    run: Path | None = None,
    evaluations: int = 6,
    voxels: int = 30_000,
    seed: int = 0,
    jaw_margin_mm: float | None = 8.0,
    port: int = 0,
    open_browser: bool = False,
    machine: str | None = None,
    reader: str | None = None,
    protocol: str | None = None,
    roi_names: Path | None = None,
    size: SizeName | None = None,
    use_plan: bool = True,
    show_identifiers: bool = False,
) -> None:
    """Plan one patient by wish, on a page that this machine serves to its own browser. Ctrl+C ends it.

    Args:
        case: Folder of a case, or a patient's DICOM folder. The options from `protocol` on are for DICOM only.
        planner: Planner of the first plan, see `vmat plan`; the page can change it. `learned`, `generator`, `teacher`
            and `regression` use the weights in the package, trained on prostate phantoms of base size; `conventional`
            plans any case.
        run: Run directory, checkpoint or weights of that planner.
        evaluations: Dose evaluations after a change of a wish. More take longer and give better plans.
        voxels: Size of the voxel sample on which plans are optimised.
        seed: Seed for the voxel sample.
        jaw_margin_mm: Least distance, in mm, between the fixed jaws and the targets' voxels in the beam's-eye view.
            `null` keeps the jaws of the case.
        port: Port on 127.0.0.1, up to 65535. Default: a free one.
        open_browser: Open the page in the default browser.
        machine: Shipped machine or YAML file. Default: the machine of the case; for DICOM `truebeam_millennium120`.
        reader: Registered name or import path, `my_package.module.function`, of a function of your own that reads CASE.
        protocol: Shipped protocol or YAML file: targets, prescription and fractions. Default: `prostate_60gy_20fx`.
        roi_names: YAML file that maps ROI names to structures. Default: the shipped one, which knows usual names.
        size: Resolution: voxels, control points and beamlets. Default: `base`.
        use_plan: Take arcs and isocentre from the RTPLAN in the folder, if there is one.
        show_identifiers: Show the Patient ID on the page and in reports.

    Raises:
        ValueError: no such case, a setting that does not fit the planner, or an installation without the extra.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port}: expected 0 to 65535")
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError("vmat explore needs more packages: pip install 'lightning-vmat[explore]'") from error
    from lightning_vmat.cases.patient import DicomOptions, open_patient
    from lightning_vmat.explore.serve import serve
    from lightning_vmat.explore.session import Session

    dicom = DicomOptions(protocol, roi_names, size, use_plan, show_identifiers)
    opened = open_patient(case, dicom, None, machine, reader)
    session = Session(
        opened, planner, run=run, evaluations=evaluations, voxels=voxels, seed=seed, jaw_margin_mm=jaw_margin_mm
    )

    def tell(link: str) -> None:
        print(
            f"case {opened.case.case_id}: open this link in a browser on this machine; Ctrl+C ends\n  {link}",
            flush=True,
        )
        if open_browser:
            import webbrowser

            webbrowser.open(link)

    try:
        with suppress(KeyboardInterrupt):  # the server may end without raising it
            serve(session, port, tell)
    finally:
        session.close()
    print("ended")
