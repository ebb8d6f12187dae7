"""An RTPLAN of arcs as arcs, leaves and monitor units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydicom.dataset import Dataset

from lightning_vmat.data.dicom.beam_motion import BeamMotion, read_beam_motion
from lightning_vmat.data.dicom.files import clear_errors, read_dataset, shown
from lightning_vmat.data.dicom.link import lying_supine
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

OWN_MODEL = "lightning_vmat"  # three points for each of our sectors, see `export.arc_delivery`
SAME_MM = 0.01
IGNORED_DELIVERY = ("SETUP", "TRMT_PORTFILM", "OPEN_PORTFILM")


@dataclass(frozen=True)
class RtPlan:
    """What an RTPLAN asks the linac to do in one fraction.

    Args:
        path: of the file.
        uid: SOP Instance UID.
        structure_set_uid: of the RTSTRUCT that it refers to; empty if none.
        arcs: as for a head-first supine patient, see `link.lying_supine`.
        motions: how the machine moves along each arc, in sectors.
        isocentre_mm: patient LPS.
        fractions: number of fractions.
        prescription_gy: target doses of the whole course in the order of the file.
    """

    path: Path
    uid: str
    structure_set_uid: str
    arcs: tuple[Arc, ...]
    motions: tuple[BeamMotion, ...]
    isocentre_mm: tuple[float, float, float]
    fractions: int
    prescription_gy: tuple[float, ...]

    def beamlet_grid(self, machine: Machine, beamlet_width_mm: float) -> BeamletGrid:
        """The field inside the widest jaws, one row a leaf pair.

        Raises:
            ValueError: leaf pairs that are not the machine's, or jaws that open none.
        """
        edges = np.array(self.motions[0].leaf_edges_mm)
        own = np.array(machine.leaf_edges_mm)
        if edges.shape != own.shape or np.abs(edges - own).max() > SAME_MM:
            raise ValueError(f"{self.path}: {len(edges) - 1} leaf pairs, expected those of {machine.name}")
        low_x, low_y = (min(float(m.jaws_mm[:, axis, 0].min()) for m in self.motions) for axis in (0, 1))
        high_x, high_y = (max(float(m.jaws_mm[:, axis, 1].max()) for m in self.motions) for axis in (0, 1))
        middles = (edges[:-1] + edges[1:]) / 2
        rows = np.flatnonzero((middles > low_y) & (middles < high_y))
        if len(rows) == 0 or high_x <= low_x:
            raise ValueError(f"{self.path}: jaws never open, expected a field")
        return BeamletGrid(
            leaf_edges_mm=tuple(float(edge) for edge in own[rows[0] : rows[-1] + 2]),
            beamlet_start_mm=low_x,
            beamlet_width_mm=beamlet_width_mm,
            beamlets=max(1, int(np.ceil((high_x - low_x) / beamlet_width_mm - 1e-6))),
        )

    def on_rows(self, beamlets: BeamletGrid) -> Plan:
        """The plan on the rows of a grid: the mean tips of each row's leaf pairs, behind the jaws where those are in.

        Leaf pairs whose middle is under a jaw count as closed.
        """
        parts = [_on_rows(motion, beamlets) for motion in self.motions]
        return Plan(*(torch.cat(tensors).float() for tensors in zip(*parts, strict=True)))


def read_rtplan(path: Path) -> RtPlan:
    """Read an RTPLAN of photon arcs.

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
        motions = tuple(read_beam_motion(beam, mu, halves, path) for beam, mu in numbered)
        return RtPlan(
            path=Path(path),
            uid=str(data.SOPInstanceUID),
            structure_set_uid=_structure_set(data),
            arcs=tuple(_supine(motion, position) for motion in motions),
            motions=motions,
            isocentre_mm=_isocentre([beam for beam, _ in numbered], path),
            fractions=fractions,
            prescription_gy=tuple(
                float(item.TargetPrescriptionDose)
                for item in data.get("DoseReferenceSequence") or []
                if item.get("TargetPrescriptionDose") is not None
            ),
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


def _on_rows(motion: BeamMotion, beamlets: BeamletGrid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    edges, rows = torch.tensor(motion.leaf_edges_mm), torch.tensor(beamlets.leaf_edges_mm)
    middles = (edges[:-1] + edges[1:]) / 2
    row = torch.bucketize(middles, rows) - 1
    jaws = torch.from_numpy(motion.jaws_mm)
    banks = [torch.from_numpy(bank).clone() for bank in (motion.left_mm, motion.right_mm)]
    jaw_in = (jaws[:, 0, 0] > beamlets.beamlet_start_mm + SAME_MM, jaws[:, 0, 1] < beamlets.beamlet_stop_mm - SAME_MM)
    banks[0][jaw_in[0]] = torch.maximum(banks[0], jaws[:, 0, :1])[jaw_in[0]]
    banks[1][jaw_in[1]] = torch.minimum(banks[1], jaws[:, 0, 1:])[jaw_in[1]]
    shut = (banks[0] > banks[1]) | (middles < jaws[:, 1, :1]) | (middles > jaws[:, 1, 1:])
    closed = (banks[0] + banks[1]) / 2
    left, right = (
        torch.stack([torch.where(shut, closed, bank)[:, row == k].mean(dim=1) for k in range(len(rows) - 1)], dim=1)
        for bank in banks
    )
    return left, right, torch.from_numpy(motion.mu)
