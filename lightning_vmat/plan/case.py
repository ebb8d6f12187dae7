"""A case: one patient or phantom with all the data that planning needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup, check_gantry_slowdown
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.checks import check_kinds
from lightning_vmat.plan.html_table import html_table
from lightning_vmat.plan.machine import Machine, load_machine
from lightning_vmat.plan.volume import VolumeGrid
from lightning_vmat.plan.wishes import check_wishes, wishes_text

MIN_HU = -1100.0  # air, with the noise of a scanner
MAX_HU = 12000.0  # a 12-bit scale ends at 3071, titanium in an extended one below 10000; denser metal is to be clipped
BODY_MEDIAN_HU = (-900.0, 300.0)  # near 0 in patients; 1000 off where the rescale intercept is missing or used twice
MAX_OUTSIDE = 0.5  # part of a target outside the body; a margin into air for breathing or swelling stays far below
BODY = "Body"
MOST_SHOWN = 12  # structures in the `repr` of a case


def is_protocol_text(protocol: str) -> bool:
    """Whether a case's protocol is the YAML itself, and not a name or a path."""
    return "\n" in protocol


def protocol_label(protocol: str) -> str:
    """How a case's protocol is called where it is shown."""
    return "own protocol" if is_protocol_text(protocol) else protocol


@dataclass(frozen=True)
class Case:
    """CT, structures, prescription and beam set-up on one voxel grid.

    Args:
        case_id: name of the case, unique in its cohort.
        source: origin of the case: `phantom`, `open-kbp`, `dicom`, ...
        grid: voxel grid of CT, structures and dose.
        hu: CT numbers.
        structures: mask by structure name; includes `Body` and every target.
        prescription_gy: dose of the whole course by target name.
        fractions: number of fractions.
        isocentre_mm: isocentre in patient LPS.
        arcs: arcs, in the order of delivery.
        beamlets: beamlet grid at the isocentre plane.
        machine_name: shipped machine or path of a YAML.
        protocol: the planning protocol (objectives and clinical goals): name of a shipped one, path of a YAML, or the
            YAML text itself for a protocol of the case's own.
        influence_path: file with the dose influence of all voxels of the grid; None for the pencil beam.
        wishes: factors on the weights of the protocol's objectives, see `plan.wishes`.
        gantry_slowdown: see `BeamSetup`.

    Raises:
        ValueError: an invalid field; the message gives its name, its value and what was expected.
    """

    case_id: str
    source: str
    grid: VolumeGrid
    hu: Float[Tensor, "z y x"]
    structures: dict[str, Bool[Tensor, "z y x"]]
    prescription_gy: dict[str, float]
    fractions: int
    isocentre_mm: tuple[float, float, float]
    arcs: tuple[Arc, ...]
    beamlets: BeamletGrid
    machine_name: str
    protocol: str
    influence_path: Path | None = None
    wishes: dict[str, float] = field(default_factory=dict)
    gantry_slowdown: float = 1.0

    def __post_init__(self) -> None:
        where = f"case {self.case_id}"
        check_kinds(type(self), vars(self), where)
        if tuple(self.hu.shape) != self.grid.shape:
            raise ValueError(f"{where}: CT of shape {tuple(self.hu.shape)}, expected {self.grid.shape}")
        if not bool(self.hu.isfinite().all()):
            raise ValueError(f"{where}: CT holds NaN or infinite HU")
        low, high = float(self.hu.min()), float(self.hu.max())
        if low < MIN_HU or high > MAX_HU:
            raise ValueError(f"{where}: CT spans {low:.0f} to {high:.0f} HU, expected {MIN_HU:.0f} to {MAX_HU:.0f}")
        for name, mask in self.structures.items():
            if tuple(mask.shape) != self.grid.shape:
                raise ValueError(f"{where}: structure {name} of shape {tuple(mask.shape)}, expected {self.grid.shape}")
        if BODY not in self.structures or not bool(self.structures[BODY].any()):
            raise ValueError(f"{where}: no structure {BODY!r} or it is empty; structures: {sorted(self.structures)}")
        median = float(self.hu[self.structures[BODY]].median())
        low, high = BODY_MEDIAN_HU
        if not low <= median <= high:
            raise ValueError(f"{where}: median of {median:.0f} HU in {BODY}, expected {low:.0f} to {high:.0f}")
        if not self.prescription_gy:
            raise ValueError(f"{where}: no target has a prescription")
        for name, dose_gy in self.prescription_gy.items():
            if name not in self.structures or not bool(self.structures[name].any()):
                raise ValueError(f"{where}: no target {name!r} or it is empty; structures: {sorted(self.structures)}")
            if not 0 < dose_gy < 200:
                raise ValueError(f"{where}: prescription of {dose_gy} Gy to {name}, expected 0 to 200 Gy")
            outside = float((~self.structures[BODY][self.structures[name]]).float().mean())
            if outside > MAX_OUTSIDE:
                raise ValueError(
                    f"{where}: {outside:.0%} of target {name!r} lies outside {BODY}, expected at most {MAX_OUTSIDE:.0%}"
                )
        if self.fractions < 1:
            raise ValueError(f"{where}: {self.fractions} fractions, expected at least 1")
        check_wishes(self.wishes, where)
        check_gantry_slowdown(self.gantry_slowdown, where)

    def __repr__(self) -> str:
        """Returns a summary of at most five lines; `case.structures` and the other fields hold the rest."""
        treated = ", ".join(f"{name} {self.prescription_gy[name]:g} Gy" for name in self.target_names)
        shown = [f"{name} {volume_cc:.0f}" for name, volume_cc in list(self.volumes_cc().items())[:MOST_SHOWN]]
        hidden, protocol = len(self.structures) - len(shown), protocol_label(self.protocol)
        return "\n".join(
            [
                f"Case {self.case_id} ({self.source}): {treated} in {self.fractions} fractions, {protocol}",
                f"  {self._volume_text()}",
                f"  structures in cc: {', '.join(shown)}{f' and {hidden} more' if hidden else ''}",
                f"  {self._field_text()}",
                *([f"  wishes: {wishes_text(self.wishes)}"] if self.wishes else []),
            ]
        )

    def _repr_html_(self) -> str:
        rows: list[tuple[object, ...]] = [(name, f"{volume:.1f} cc") for name, volume in self.volumes_cc().items()]
        for name, dose_gy in self.prescription_gy.items():
            rows.append((f"prescription of {name}", f"{dose_gy:g} Gy in {self.fractions} fractions"))
        rows += [
            ("protocol", protocol_label(self.protocol)),
            ("volume", self._volume_text()),
            ("field", self._field_text()),
        ]
        return html_table(f"Case {self.case_id} ({self.source})", [*rows, ("wishes", wishes_text(self.wishes))])

    def _volume_text(self) -> str:
        counts, spacing = reversed(self.grid.shape), self.grid.spacing_mm
        return f"{' x '.join(map(str, counts))} voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm"

    def _field_text(self) -> str:
        rows, beamlets = self.beamlets.shape
        x1, x2, y1, y2 = self.beamlets.field_mm
        points = sum(arc.control_points for arc in self.arcs)
        arcs = "1 arc" if len(self.arcs) == 1 else f"{len(self.arcs)} arcs"
        return (
            f"{arcs}, {points} control points of {rows} x {beamlets} beamlets, field X {x1:g} to {x2:g}, "
            f"Y {y1:g} to {y2:g} mm, {Path(self.machine_name).name}"
        )

    def volumes_cc(self) -> dict[str, float]:
        """Returns the volume of every structure, targets first."""
        names = [*self.target_names, *(name for name in self.structures if name not in self.prescription_gy)]
        return {name: int(self.structures[name].sum()) * self.grid.voxel_volume_cc for name in names}

    @cached_property
    def machine(self) -> Machine:
        """The machine that `machine_name` names."""
        return load_machine(self.machine_name)

    @cached_property
    def control_points(self) -> ControlPoints:
        """Control points of all arcs, in order of delivery, on the device of the case."""
        return ControlPoints.from_arcs(self.arcs).to(self.hu.device)

    @cached_property
    def beam_setup(self) -> BeamSetup:
        """Control points, beamlet grid and machine together."""
        return BeamSetup(self.control_points, self.beamlets, self.machine, self.gantry_slowdown)

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """Shape of the case's fluence maps (control_point, leaf_pair, beamlet)."""
        return len(self.control_points), *self.beamlets.shape

    @property
    def target_names(self) -> list[str]:
        """Names of the targets, in order of decreasing prescription."""
        return sorted(self.prescription_gy, key=lambda name: -self.prescription_gy[name])

    @cached_property
    def target(self) -> Bool[Tensor, "z y x"]:
        """Union of all targets."""
        return torch.stack([self.structures[name] for name in self.target_names]).any(dim=0)

    @cached_property
    def body_index(self) -> Int[Tensor, " voxel"]:
        """Flat indices of the voxels on which a plan is evaluated: the body and the targets."""
        return (self.structures[BODY] | self.target).flatten().nonzero()[:, 0]

    def body_volume(self, values: Float[Tensor, " voxel"]) -> Float[Tensor, "z y x"]:
        """Returns values on `body_index`, such as a dose, as a volume that is zero outside the body."""
        volume = torch.zeros(self.grid.voxel_count, device=values.device)
        volume[self.body_index] = values
        return volume.reshape(self.grid.shape)

    def to(self, device: torch.device | str) -> Case:
        """Returns the case with its volumes on a device; all that is computed from it is there too."""
        structures = {name: mask.to(device) for name, mask in self.structures.items()}
        return replace(self, hu=self.hu.to(device), structures=structures)

    def with_settings(self, **changes: object) -> Case:
        """Returns the case with some fields replaced, for example arcs, prescription or machine."""
        return replace(self, **changes)  # type: ignore[arg-type]
