"""Reads an RTPLAN of photon arcs: arcs, leaf tips and monitor units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom import leaf_rows
from lightning_vmat.cases.dicom.beam_arc import BeamArc, read_arcs
from lightning_vmat.cases.dicom.beam_motion import BeamMotion
from lightning_vmat.cases.dicom.beam_table import PLAN, UnsupportedPlan, check_attributes
from lightning_vmat.cases.dicom.collimators import LARGEST_MM
from lightning_vmat.cases.dicom.dicom_references import PRONE, lying_supine
from lightning_vmat.cases.dicom.files import clear_errors, read_dataset, shown_word
from lightning_vmat.cases.dicom.fraction_group import TreatedBeam, patient_position, treated_beams
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine, beam_quality

OWN_MODEL = "lightning_vmat"  # our own plans have three control points per sector, see `export.arc_delivery`
SAME_MM = 0.01
FLATTENED = {"STANDARD": True, "NON_STANDARD": False}  # fluence mode -> with flattening filter
WHOLE_LEAF_BEAMLET_MM = 1.0  # tolerance between X jaws and the edges of the field in which leaves are checked
WAY_OUT = "`vmat plan` and `vmat prepare` take another --machine"
OTHER_KINDS = {"IonBeamSequence": "an ion plan", "ApplicationSetupSequence": "a brachytherapy plan"}


class Quality(NamedTuple):
    """The stated quality of a beam; None where it is not stated."""

    beam: int
    energy_mv: float | None
    flattening_filter: bool | None


@dataclass(frozen=True)
class RtPlan:
    """One fraction of an RTPLAN.

    Args:
        path: path of the file.
        uid: SOP Instance UID.
        structure_set_uid: SOP Instance UID of the referenced RTSTRUCT; empty if none.
        frame_of_reference_uid: Frame of Reference UID of the isocentre; empty if not stated.
        patient_id: Patient ID, for comparison only, never shown; empty if there is none.
        arcs: arcs, converted to a head-first supine patient, see `dicom_references.lying_supine`.
        beam_arcs: the same arcs by control points; gantry and couch for the true patient position.
        motions: motion of the machine along each arc, in sectors.
        isocentre_mm: patient LPS.
        fractions: number of fractions.
        prescription_gy: target doses of the whole course, Gy, in the order of the file.
        qualities: stated beam quality of each arc.
    """

    path: Path
    uid: str
    structure_set_uid: str
    frame_of_reference_uid: str
    patient_id: str = field(repr=False)
    arcs: tuple[Arc, ...]
    beam_arcs: tuple[BeamArc, ...]
    motions: tuple[BeamMotion, ...]
    isocentre_mm: tuple[float, float, float]
    fractions: int
    prescription_gy: tuple[float, ...]
    qualities: tuple[Quality, ...]

    @property
    def jaws_mm(self) -> tuple[float, float, float, float]:
        """X1, X2, Y1, Y2 of the widest jaw openings, mm."""
        jaws = np.concatenate([motion.jaws_mm for motion in self.motions])  # [point, axis, side]
        (x1, y1), (x2, y2) = jaws[..., 0].min(axis=0).tolist(), jaws[..., 1].max(axis=0).tolist()
        return x1, x2, y1, y2

    def beamlet_grid(self, machine: Machine, beamlet_width_mm: float, leaf_pairs_per_row: int = 1) -> BeamletGrid:
        """The field inside the widest jaws, with a row for each leaf pair, or for groups that always move together.

        Raises:
            ValueError: leaf pairs that are not those of the machine, or jaws that open none.
        """
        self.check_machine(machine)
        edges = np.array(machine.leaf_edges_mm)
        low_x, high_x, low_y, high_y = self.jaws_mm
        middles = (edges[:-1] + edges[1:]) / 2
        pairs = np.flatnonzero((middles > low_y) & (middles < high_y))
        if len(pairs) == 0 or high_x <= low_x:
            raise ValueError(f"{self.path}: jaws never open, expected an open field")
        inside = slice(int(pairs[0]), int(pairs[-1]) + 1)
        if low_x <= -LARGEST_MM and high_x >= LARGEST_MM:  # no X jaws: only the leaves bound the field
            low_x, high_x = self._reach_mm(inside, beamlet_width_mm)
        ganged = all(leaf_rows.move_together(motion, inside, leaf_pairs_per_row) for motion in self.motions)
        return BeamletGrid(
            leaf_edges_mm=tuple(edges[inside.start : inside.stop + 1 : leaf_pairs_per_row if ganged else 1].tolist()),
            beamlet_start_mm=low_x,
            beamlet_width_mm=beamlet_width_mm,
            beamlets=max(1, int(np.ceil((high_x - low_x) / beamlet_width_mm - 1e-6))),
        )

    def _reach_mm(self, pairs: slice, step_mm: float) -> tuple[float, float]:
        """Extent of the openings of these pairs along leaf travel, plus a beamlet, in whole beamlets, mm."""
        left, right = (np.concatenate([getattr(motion, bank)[:, pairs] for motion in self.motions])
                       for bank in ("left_mm", "right_mm"))  # fmt: skip
        is_open = right - left > SAME_MM
        if not is_open.any():
            raise ValueError(f"{self.path}: leaves never open, expected an open field")
        low, high = float(left[is_open].min()), float(right[is_open].max())
        return step_mm * (np.floor(low / step_mm) - 1), step_mm * (np.ceil(high / step_mm) + 1)

    def check_machine(self, machine: Machine) -> None:
        """Raise an UnsupportedPlan if leaf pairs or beam quality are not those of the machine."""
        edges, own = np.array(self.motions[0].leaf_edges_mm), np.array(machine.leaf_edges_mm)
        if edges.shape != own.shape or np.abs(edges - own).max() > SAME_MM:
            raise UnsupportedPlan(
                f"{self.path}: {len(edges) - 1} leaf pairs from {edges[0]:g} to {edges[-1]:g} mm, expected those of "
                f"{machine.name}; {WAY_OUT}"
            )
        for quality in self.qualities:
            energy_mv = machine.energy_mv if quality.energy_mv is None else quality.energy_mv
            flattened = machine.flattening_filter if quality.flattening_filter is None else quality.flattening_filter
            if energy_mv != machine.energy_mv or flattened != machine.flattening_filter:
                raise UnsupportedPlan(
                    f"{self.path}: beam {quality.beam}: {beam_quality(energy_mv, flattened)}, expected "
                    f"{machine.quality} of {machine.name}; {WAY_OUT}"
                )

    def on_rows(self, beamlets: BeamletGrid) -> Plan:
        """The plan on the rows of a beamlet grid, see `leaf_rows.on_rows`."""
        parts = [leaf_rows.on_rows(motion, beamlets) for motion in self.motions]
        return Plan(*(torch.cat(tensors).float() for tensors in zip(*parts, strict=True)))

    def on_leaves(self, machine: Machine) -> tuple[Plan, BeamSetup]:
        """The plan on every leaf pair, also behind jaws, with its own control points and field.

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
        """Fraction of the plan's open area outside a field, weighted with monitor units."""
        parts = [leaf_rows.open_areas(motion, beamlets) for motion in self.motions]
        whole, covered = (sum(values) for values in zip(*parts, strict=True))
        return 1.0 - covered / whole if whole > 0 else 0.0


def read_rtplan(
    path: Path,
    sectors: Sequence[int] | None = None,
    *,
    largest_sector_deg: float = math.inf,
    ct_position: str = "",
) -> RtPlan:
    """Read an RTPLAN of photon arcs.

    Args:
        path: path of the file.
        sectors: number of sectors of each arc; if None, one between control points, or more.
        largest_sector_deg: largest size of these sectors.
        ct_position: patient position of the CT; HFS if neither CT nor plan states one.

    Raises:
        ValueError: a broken file, one that contradicts itself or the CT, or one without monitor units.
        UnsupportedPlan: a plan of another technique, see `beam_table`.
    """
    data = read_dataset(path)
    with clear_errors(path):
        _check_kind(data, path)
        fractions, beams = treated_beams(data, path)
        position = _position(patient_position(data, beams, path), ct_position, path)
        beam_arcs = tuple(arc for beam in beams for arc in read_arcs(beam, f"{path}: beam {beam.number}"))
        if sectors is not None and len(sectors) != len(beam_arcs):
            raise ValueError(f"{path}: {len(beam_arcs)} arcs, expected {len(sectors)}")
        halves = str(data.get("ManufacturerModelName", "")) == OWN_MODEL
        counts = sectors or [arc.natural_sectors(halves, largest_sector_deg) for arc in beam_arcs]
        motions = tuple(arc.cut(count) for arc, count in zip(beam_arcs, counts, strict=True))
        return RtPlan(
            path=Path(path),
            uid=str(data.SOPInstanceUID),
            structure_set_uid=_structure_set(data),
            frame_of_reference_uid=str(data.get("FrameOfReferenceUID", "")),
            patient_id=str(data.get("PatientID") or "").strip(),
            arcs=tuple(_supine(motion, position) for motion in motions),
            beam_arcs=beam_arcs,
            motions=motions,
            isocentre_mm=_isocentre(beams, path),
            fractions=fractions,
            prescription_gy=_prescription_gy(data, path),
            qualities=tuple(_quality(beam.item, f"{path}: beam {beam.number}") for beam in beams),
        )


def _quality(beam: Dataset, where: str) -> Quality:
    energies = {float(point.NominalBeamEnergy) for point in beam.ControlPointSequence if point.get("NominalBeamEnergy")}
    if len(energies) > 1:
        raise UnsupportedPlan(f"{where}: energies of {sorted(energies)} MV, expected one")
    modes = {str(mode.get("FluenceMode") or "") for mode in beam.get("PrimaryFluenceModeSequence") or []} - {""}
    if len(modes) > 1 or modes - FLATTENED.keys():
        raise UnsupportedPlan(f"{where}: fluence modes {shown_word(', '.join(sorted(modes)))}, expected one known mode")
    return Quality(
        int(beam.BeamNumber),
        energies.pop() if energies else None,
        FLATTENED[modes.pop()] if modes else None,
    )


def _check_kind(data: Dataset, path: Path) -> None:
    if str(data.get("Modality", "")) != "RTPLAN":
        raise ValueError(f"{path}: modality {shown_word(data.get('Modality', ''))}, expected RTPLAN")
    for keyword, kind in OTHER_KINDS.items():
        if data.get(keyword):
            raise UnsupportedPlan(f"{path}: {kind}, expected a plan of photon arcs")
    if "BeamSequence" not in data:
        raise UnsupportedPlan(f"{path}: no Beam Sequence, expected a plan of photon arcs")
    check_attributes(data, PLAN, str(path))


def _position(planned: str, on_ct: str, path: Path) -> str:
    """Patient position: that of the CT, which the plan must not contradict."""
    if planned and on_ct and planned != on_ct:
        raise ValueError(
            f"{path}: patient position {shown_word(planned)}, but {shown_word(on_ct)} on the CT, expected the same"
        )
    position = planned or on_ct or "HFS"
    if position not in PRONE:
        raise UnsupportedPlan(f"{path}: patient position {shown_word(position)}, expected one of {', '.join(PRONE)}")
    return position


def _prescription_gy(data: Dataset, path: Path) -> tuple[float, ...]:
    items = data.get("DoseReferenceSequence") or []
    doses = [item.get("TargetPrescriptionDose") for item in items]
    stated = tuple(float(dose) for dose in doses if dose not in (None, ""))
    if not all(math.isfinite(dose) and dose >= 0 for dose in stated):
        raise ValueError(f"{path}: target prescription doses {stated} Gy, expected positive numbers")
    return stated


def _structure_set(data: Dataset) -> str:
    items = data.get("ReferencedStructureSetSequence") or []
    return str(items[0].get("ReferencedSOPInstanceUID", "")) if len(items) else ""


def _isocentre(beams: list[TreatedBeam], path: Path) -> tuple[float, float, float]:
    places = [[float(value) for value in beam.item.ControlPointSequence[0].IsocenterPosition] for beam in beams]
    if any(len(place) != 3 or not np.isfinite(place).all() for place in places):
        raise ValueError(f"{path}: isocentres {places}, expected three coordinates each")
    if np.ptp(np.array(places), axis=0).max() > SAME_MM:
        raise UnsupportedPlan(f"{path}: isocentres {places} mm differ between beams, expected one")
    x, y, z = places[0]
    return x, y, z


def _supine(motion: BeamMotion, position: str) -> Arc:
    start, couch = lying_supine(position, motion.gantry_start_deg, motion.couch_deg)
    stop, _ = lying_supine(position, motion.gantry_stop_deg, motion.couch_deg)
    direction = motion.direction
    return Arc(start, stop, len(motion.mu), direction, motion.collimator_deg, couch)
