"""An RTPLAN of arcs as arcs, leaves and monitor units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydicom.dataset import Dataset

from lightning_vmat.data.dicom import leaf_rows
from lightning_vmat.data.dicom.beam_motion import BeamMotion, in_sectors
from lightning_vmat.data.dicom.beam_path import LARGEST_MM, BeamPath, read_beam_path
from lightning_vmat.data.dicom.files import clear_errors, read_dataset, shown
from lightning_vmat.data.dicom.link import lying_supine
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine, beam_quality

OWN_MODEL = "lightning_vmat"  # three points for each of our sectors, see `export.arc_delivery`
SAME_MM = 0.01
WHOLE_LEAF_BEAMLET_MM = 1.0  # how far an X jaw may stand off the edge of the field that leaves are checked in
IGNORED_DELIVERY = ("SETUP", "TRMT_PORTFILM", "OPEN_PORTFILM")


class Quality(NamedTuple):
    """What a beam says of its quality; None where it does not."""

    beam: int
    energy_mv: float | None
    flattening_filter: bool | None


@dataclass(frozen=True)
class RtPlan:
    """What an RTPLAN asks the linac to do in one fraction.

    Args:
        path: of the file.
        uid: SOP Instance UID.
        structure_set_uid: of the RTSTRUCT that it refers to; empty if none.
        frame_of_reference_uid: of its isocentre; empty if it does not say.
        arcs: as for a head-first supine patient, see `link.lying_supine`.
        paths: control points of each arc as the file has them; gantry and couch as the patient really lies.
        motions: how the machine moves along each arc, in sectors.
        isocentre_mm: patient LPS.
        fractions: number of fractions.
        prescription_gy: target doses of the whole course in the order of the file.
        qualities: of each arc, as far as the file says.
    """

    path: Path
    uid: str
    structure_set_uid: str
    frame_of_reference_uid: str
    arcs: tuple[Arc, ...]
    paths: tuple[BeamPath, ...]
    motions: tuple[BeamMotion, ...]
    isocentre_mm: tuple[float, float, float]
    fractions: int
    prescription_gy: tuple[float, ...]
    qualities: tuple[Quality, ...]

    @property
    def jaws_mm(self) -> tuple[float, float, float, float]:
        """X1, X2, Y1, Y2 of the widest jaws."""
        jaws = np.concatenate([motion.jaws_mm for motion in self.motions])  # [point, axis, side]
        (x1, y1), (x2, y2) = jaws[..., 0].min(axis=0).tolist(), jaws[..., 1].max(axis=0).tolist()
        return x1, x2, y1, y2

    def beamlet_grid(self, machine: Machine, beamlet_width_mm: float, leaf_pairs_per_row: int = 1) -> BeamletGrid:
        """The field inside the widest jaws: one row a leaf pair, or a few where these always move together.

        Raises:
            ValueError: leaf pairs that are not the machine's, or jaws that open none.
        """
        self.check_machine(machine)
        edges = np.array(machine.leaf_edges_mm)
        low_x, high_x, low_y, high_y = self.jaws_mm
        middles = (edges[:-1] + edges[1:]) / 2
        pairs = np.flatnonzero((middles > low_y) & (middles < high_y))
        if len(pairs) == 0 or high_x <= low_x:
            raise ValueError(f"{self.path}: jaws never open, expected a field")
        inside = slice(int(pairs[0]), int(pairs[-1]) + 1)
        if low_x <= -LARGEST_MM and high_x >= LARGEST_MM:  # no X jaws: the leaves are all that bounds the field
            low_x, high_x = self._reach_mm(inside, beamlet_width_mm)
        ganged = all(leaf_rows.move_together(motion, inside, leaf_pairs_per_row) for motion in self.motions)
        return BeamletGrid(
            leaf_edges_mm=tuple(edges[inside.start : inside.stop + 1 : leaf_pairs_per_row if ganged else 1].tolist()),
            beamlet_start_mm=low_x,
            beamlet_width_mm=beamlet_width_mm,
            beamlets=max(1, int(np.ceil((high_x - low_x) / beamlet_width_mm - 1e-6))),
        )

    def _reach_mm(self, pairs: slice, step_mm: float) -> tuple[float, float]:
        """How far openings of these pairs reach along leaf travel, and a beamlet more, in whole beamlets."""
        left, right = (np.concatenate([getattr(motion, bank)[:, pairs] for motion in self.motions])
                       for bank in ("left_mm", "right_mm"))  # fmt: skip
        is_open = right - left > SAME_MM
        if not is_open.any():
            raise ValueError(f"{self.path}: leaves never open, expected a field")
        low, high = float(left[is_open].min()), float(right[is_open].max())
        return step_mm * (np.floor(low / step_mm) - 1), step_mm * (np.ceil(high / step_mm) + 1)

    def check_machine(self, machine: Machine) -> None:
        """Raise a ValueError where leaf pairs or beam quality are not the machine's."""
        edges, own = np.array(self.motions[0].leaf_edges_mm), np.array(machine.leaf_edges_mm)
        if edges.shape != own.shape or np.abs(edges - own).max() > SAME_MM:
            raise ValueError(
                f"{self.path}: {len(edges) - 1} leaf pairs from {edges[0]:g} to {edges[-1]:g} mm, expected those of "
                f"{machine.name}; choose another --machine"
            )
        for quality in self.qualities:
            energy_mv = machine.energy_mv if quality.energy_mv is None else quality.energy_mv
            flattened = machine.flattening_filter if quality.flattening_filter is None else quality.flattening_filter
            if energy_mv != machine.energy_mv or flattened != machine.flattening_filter:
                raise ValueError(
                    f"{self.path}: beam {quality.beam}: {beam_quality(energy_mv, flattened)}, expected "
                    f"{machine.quality} of {machine.name}; choose another --machine"
                )

    def on_rows(self, beamlets: BeamletGrid) -> Plan:
        """The plan on the rows of a grid; see `leaf_rows.on_rows`."""
        parts = [leaf_rows.on_rows(motion, beamlets) for motion in self.motions]
        return Plan(*(torch.cat(tensors).float() for tensors in zip(*parts, strict=True)))

    def on_leaves(self, machine: Machine) -> tuple[Plan, BeamSetup]:
        """The plan on every leaf pair as the file has it, also behind jaws, and its own control points and field.

        Raises:
            ValueError: see `beamlet_grid`.
        """
        field = self.beamlet_grid(machine, WHOLE_LEAF_BEAMLET_MM)
        jaws_mm = (field.beamlet_start_mm, field.beamlet_stop_mm, field.leaf_edges_mm[0], field.leaf_edges_mm[-1])
        grid = replace(field, leaf_edges_mm=machine.leaf_edges_mm, jaws_mm=jaws_mm)
        tips = [np.concatenate([getattr(motion, bank) for motion in self.motions]) for bank in ("left_mm", "right_mm")]
        mu = np.concatenate([motion.mu for motion in self.motions])
        plan = Plan(*(torch.from_numpy(values).float() for values in (*tips, mu)))
        return plan, BeamSetup(ControlPoints.from_arcs(self.arcs), grid, machine)

    def outside(self, beamlets: BeamletGrid) -> float:
        """Fraction of the plan's open area, weighted with monitor units, that a field does not cover."""
        parts = [leaf_rows.open_areas(motion, beamlets) for motion in self.motions]
        whole, covered = (sum(values) for values in zip(*parts, strict=True))
        return 1.0 - covered / whole if whole > 0 else 0.0


def read_rtplan(path: Path, sectors: Sequence[int] | None = None) -> RtPlan:
    """Read an RTPLAN of photon arcs.

    Args:
        path: of the file.
        sectors: how many to cut each arc into; as many as it has between its control points when None.

    Raises:
        ValueError: a broken file, or a plan of other techniques.
    """
    data = read_dataset(path)
    with clear_errors(path):
        if str(data.get("Modality", "")) != "RTPLAN":
            raise ValueError(f"{path}: modality {shown(data.get('Modality'))}, expected RTPLAN")
        fractions, meterset = _fraction_group(data, path)
        position = _patient_position(data)
        halves = str(data.get("ManufacturerModelName", "")) == OWN_MODEL
        beams = [beam for beam in data.BeamSequence if str(beam.get("TreatmentDeliveryType")) not in IGNORED_DELIVERY]
        numbered = [(beam, meterset[int(beam.BeamNumber)]) for beam in beams if int(beam.BeamNumber) in meterset]
        if not numbered:
            raise ValueError(f"{path}: no treatment beam, expected arcs")
        if sectors is not None and len(sectors) != len(numbered):
            raise ValueError(f"{path}: {len(numbered)} arcs, expected {len(sectors)}")
        wanted: Sequence[int | None] = sectors or [None] * len(numbered)
        paths = tuple(read_beam_path(beam, mu, path) for beam, mu in numbered)
        motions = tuple(in_sectors(one, halves, count) for one, count in zip(paths, wanted, strict=True))
        return RtPlan(
            path=Path(path),
            uid=str(data.SOPInstanceUID),
            structure_set_uid=_structure_set(data),
            frame_of_reference_uid=str(data.get("FrameOfReferenceUID", "")),
            arcs=tuple(_supine(motion, position) for motion in motions),
            paths=paths,
            motions=motions,
            isocentre_mm=_isocentre([beam for beam, _ in numbered], path),
            fractions=fractions,
            prescription_gy=tuple(
                float(item.TargetPrescriptionDose)
                for item in data.get("DoseReferenceSequence") or []
                if item.get("TargetPrescriptionDose") is not None
            ),
            qualities=tuple(_quality(beam) for beam, _ in numbered),
        )


def _quality(beam: Dataset) -> Quality:
    energy = beam.ControlPointSequence[0].get("NominalBeamEnergy")
    modes = beam.get("PrimaryFluenceModeSequence") or []
    mode = str(modes[0].get("FluenceMode", "")) if len(modes) else ""
    return Quality(
        int(beam.BeamNumber),
        None if energy in (None, "") else float(energy),
        {"STANDARD": True, "NON_STANDARD": False}.get(mode),
    )


def _fraction_group(data: Dataset, path: Path) -> tuple[int, dict[int, float]]:
    """Number of fractions, and monitor units by beam number."""
    groups = data.get("FractionGroupSequence") or []
    if len(groups) != 1:
        raise ValueError(f"{path}: {len(groups)} fraction groups, expected one")
    fractions = int(groups[0].get("NumberOfFractionsPlanned") or 0)
    if fractions < 1:
        raise ValueError(f"{path}: {fractions} fractions planned, expected at least 1")
    meterset = {int(item.ReferencedBeamNumber): float(item.get("BeamMeterset") or 0.0)
                for item in groups[0].get("ReferencedBeamSequence") or []}  # fmt: skip
    return fractions, {number: mu for number, mu in meterset.items() if mu > 0}


def _patient_position(data: Dataset) -> str:
    setups = data.get("PatientSetupSequence") or []
    return str(setups[0].get("PatientPosition") or "HFS") if len(setups) else "HFS"


def _structure_set(data: Dataset) -> str:
    items = data.get("ReferencedStructureSetSequence") or []
    return str(items[0].ReferencedSOPInstanceUID) if len(items) else ""


def _isocentre(beams: list[Dataset], path: Path) -> tuple[float, float, float]:
    places = [[float(value) for value in beam.ControlPointSequence[0].IsocenterPosition] for beam in beams]
    if any(len(place) != 3 or not np.isfinite(place).all() for place in places):
        raise ValueError(f"{path}: isocentres {places}, expected three coordinates each")
    if np.ptp(np.array(places), axis=0).max() > SAME_MM:
        raise ValueError(f"{path}: isocentres {places} mm differ between beams, expected one")
    x, y, z = places[0]
    return x, y, z


def _supine(motion: BeamMotion, position: str) -> Arc:
    start, couch = lying_supine(position, motion.gantry_start_deg, motion.couch_deg)
    stop, _ = lying_supine(position, motion.gantry_stop_deg, motion.couch_deg)
    direction = motion.direction
    return Arc(start, stop, len(motion.mu), direction, motion.collimator_deg, couch)
