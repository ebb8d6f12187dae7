"""What a session keeps in memory between its plans: planners, workbenches and dose volumes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.api.planners import ConfiguredPlanner
from lightning_vmat.api.planners import planner as make_planner
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.explore.made_plan import Computation, MadePlan
from lightning_vmat.explore.proposals import Proposer
from lightning_vmat.explore.settings import Settings, with_geometry
from lightning_vmat.explore.workbench import Workbench
from lightning_vmat.plan.jaws import with_jaws

GEOMETRIES = 2  # workbenches kept: the case's own arcs, and the arcs tried last
VOLUMES = 6  # dose volumes kept; others are computed again when they are shown


class Kept:
    """Planners, workbenches and dose volumes of one patient, each made at its first use; safe for several threads.

    Args:
        opened: the patient.
        runs: run, checkpoint or weights by planner; the weights in the package for others.
        voxels: size of the voxel sample on which plans are optimised.
        seed: seed of the voxel sample.
        jaw_margin_mm: see `api.planner`.
    """

    def __init__(
        self, opened: OpenedPatient, runs: dict[str, Path | None], voxels: int, seed: int, jaw_margin_mm: float | None
    ) -> None:
        self.opened, self.runs, self.voxels, self.seed, self.jaw_margin_mm = opened, runs, voxels, seed, jaw_margin_mm
        self.benches: OrderedDict[tuple[str, float | None], Workbench] = OrderedDict()
        self.volumes: OrderedDict[tuple[int, bool], Tensor] = OrderedDict()
        self._planners: dict[str, ConfiguredPlanner] = {}
        self._draws: dict[str, bool] = {}
        self._lock = threading.RLock()
        self._computing_volume = threading.Lock()

    def planner(self, name: str) -> ConfiguredPlanner:
        """Returns a planner by name.

        Raises:
            ValueError: a planner that does not exist.
        """
        with self._lock:
            if name not in self._planners:
                self._planners[name] = make_planner(
                    name, run=self.runs.get(name), jaw_margin_mm=self.jaw_margin_mm, voxels=self.voxels, seed=self.seed
                )
            return self._planners[name]

    def bench(self, settings: Settings) -> Workbench:
        """Returns the workbench for the arcs of the settings."""
        with self._lock:
            key = settings.geometry
            if key not in self.benches:
                turned = with_geometry(self.opened.case, settings, self.opened.patient_position)
                case = with_jaws(turned, self.jaw_margin_mm)
                self.benches[key] = Workbench(case, self.voxels, self.seed)
            self.benches.move_to_end(key)
            while len(self.benches) > GEOMETRIES:
                self.benches.popitem(last=False)
            return self.benches[key]

    def draws(self, settings: Settings) -> bool:
        """Whether the planner of the settings has other plans for the same wishes."""
        with self._lock:
            name = settings.planner
            if name not in self._draws:
                self._draws[name] = Proposer(self.planner(name), self.bench(settings)).draws
            return self._draws[name]

    def volume(self, made: MadePlan) -> Float[Tensor, "z y x"]:
        """Returns the dose of a plan on the grid: quick and interpolated, or exact once the whole body is computed."""
        with self._computing_volume:  # the page asks for three planes at once
            key = (made.number, made.measured.exact)
            with self._lock:
                if key in self.volumes:
                    self.volumes.move_to_end(key)
                    return self.volumes[key]
            bench = self.bench(made.settings)
            if made.measured.exact:
                dose_gy = made.case.body_volume(bench.body_dose(never).of_plan(made.plan))
            else:
                dose_gy = bench.quick_volume(made.plan.fluence_mu(made.case.beam_setup))
            self.keep_volume(made.number, dose_gy, exact=made.measured.exact)
            return dose_gy

    def preview_volume(self, computation: Computation) -> Float[Tensor, "z y x"] | None:
        """Returns the quick dose of a computation's generated fluence; None before there is one."""
        with self._computing_volume:
            if computation.preview is not None and computation.preview_gy is None:
                computation.preview_gy = self.bench(computation.settings).quick_volume(computation.preview[0])
            return computation.preview_gy

    def keep_volume(self, number: int, dose_gy: Float[Tensor, "z y x"], *, exact: bool) -> None:
        """Keeps the dose of a plan; an exact one takes the place of a quick one."""
        with self._lock:
            self.volumes[number, exact] = dose_gy
            if exact:
                self.volumes.pop((number, False), None)
            while len(self.volumes) > VOLUMES:
                self.volumes.popitem(last=False)


def never() -> None:
    """A check that ends nothing."""
