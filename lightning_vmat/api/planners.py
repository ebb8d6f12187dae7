"""Makes planners by name, and refuses settings that do not fit the name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lightning_vmat.api.planner_settings import Factory, PlannerKind, PlannerSettings
from lightning_vmat.api.shipped_planners import PLANNERS
from lightning_vmat.objectives.wishes import with_wishes
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import check_gantry_slowdown
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import check_jaw_margin, with_jaws
from lightning_vmat.planning.planner import Planner, PlannerByCase, PlanResult
from lightning_vmat.planning.problem import VOXELS
from lightning_vmat.registry import check_name, find, import_object, is_import_path, register

AnyFactory = TypeVar("AnyFactory", bound=Factory)

MOST_SEED = 2**63 - 1  # torch's generators take no more
JAW_MARGIN_MM = 8.0
"""Default distance of the jaws from the targets in the beam's-eye view."""


def planner(
    name: str = "learned",
    *,
    run: str | Path | None = None,
    start: str | Path | Plan | None = None,
    jaw_margin_mm: float | None = JAW_MARGIN_MM,
    wishes: Mapping[str, float] | None = None,
    gantry_slowdown: float | None = None,
    voxels: int = VOXELS,
    evaluations: int | None = None,
    when_unlike: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ConfiguredPlanner:
    """Make a planner by name, as `vmat plan --planner` does.

    >>> import lightning_vmat as vmat
    >>> case = vmat.phantom(0, size="tiny")
    >>> result = vmat.planner("conventional", voxels=300, wishes={"Rectum": 4}).plan(case)
    >>> result
    PlanResult of phantom_0000 by conventional: Plan of 12 control points, 8 leaf pairs, ... MU
      20 dose evaluations in ... s, objective ... on the voxel sample
    >>> result.case.wishes
    {'Rectum': 4.0}

    Args:
        name: `reference` is slow and good, `conventional` quick without learning, `fluence` ends in an ideal fluence;
            `learned`, `generator`, `teacher` and `regression` use a trained run of that recipe, `recipe` that of any
            recipe. `+OPTIMIZER` and `@EVALUATIONS` after a name: `fluence+adam`, `generator+lbfgs`, `conventional@50`.
            Also a registered planner, or an import path `package.module.Class`, see `register_planner`.
        run: run directory, checkpoint or folder of weights; None for the weights in the package that know most of the
            case's structures.
        start: RTPLAN, or plan at the case's control points and on its rows, from which `reference` and `fluence`
            start, with the jaws of the RTPLAN or of the case.
        jaw_margin_mm: least distance of the jaws from the targets' voxels in the beam's-eye view; None keeps those of
            the case.
        wishes: factors on the weights of the protocol's objectives, beside those of the case, see `objectives.wishes`.
        gantry_slowdown: how many times as long as at the gantry's full speed a sector may take where its leaves need
            it; None keeps that of the case, which is 1 by default.
        voxels: size of the voxel sample on which the plan is optimised.
        evaluations: total number of dose evaluations, for planners that accept it; default 20.
        when_unlike: `reference` or `conventional` plans, in place of a trained run, cases that are unlike those of its
            training: `unlikeness` of the result is above 1. None plans them all the same.
        seed: seed for the voxel sample and the generator's noise.
        progress: show progress bars.

    Raises:
        ValueError: an unknown name, a run of another recipe, a setting that the planner does not accept, or a value out
            of range.
    """
    if voxels < 1:
        raise ValueError(f"voxels {voxels}: expected at least 1")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed {seed}: expected 0 to {MOST_SEED}")
    check_jaw_margin(jaw_margin_mm)
    check_gantry_slowdown(1.0 if gantry_slowdown is None else gantry_slowdown)
    plain, at, budget = name.partition("@")
    kind, plus, optimizer = plain.partition("+")
    if at and not budget.isdecimal():
        raise ValueError(f"planner {name!r}: expected a whole number of dose evaluations after @")
    if at and evaluations is not None:
        raise ValueError(f"planner {name!r}: expected evaluations in the name or as an option, not both")
    if plus and not optimizer:
        raise ValueError(f"planner {name!r}: expected an optimizer after +")
    settings = PlannerSettings(
        name=name,
        optimizer=optimizer or None,
        run=None if run is None else Path(run),
        start=Path(start) if isinstance(start, str) else start,
        evaluations=int(budget) if at else evaluations,
        when_unlike=when_unlike,
        voxels=voxels,
        seed=seed,
        progress=progress,
    )
    changes = CaseChanges(jaw_margin_mm, dict(wishes or {}), gantry_slowdown)
    return ConfiguredPlanner.of(_find_kind(kind), settings, changes)


@dataclass(frozen=True)
class CaseChanges:
    """What a planner changes of the cases that it plans.

    Args:
        jaw_margin_mm: see `planner`.
        wishes: see `planner`.
        gantry_slowdown: see `planner`.
    """

    jaw_margin_mm: float | None
    wishes: dict[str, float]
    gantry_slowdown: float | None

    def apply(self, case: Case, jaws: bool) -> Case:
        """The case with the changes; with new jaws only if asked for.

        Raises:
            ValueError: a wish that the protocol does not know, or a slowdown out of range.
        """
        changed = with_wishes(case, self.wishes)
        if jaws:
            changed = with_jaws(changed, self.jaw_margin_mm)
        if self.gantry_slowdown is not None:
            changed = changed.with_settings(gantry_slowdown=float(self.gantry_slowdown))
        names = ("wishes", "beamlets", "gantry_slowdown")
        same = all(getattr(changed, name) == getattr(case, name) for name in names)
        return case if same else changed  # the case itself keeps what it has worked out


@dataclass(frozen=True)
class ConfiguredPlanner:
    """A planner with its jaws, wishes and gantry speed, made by `planner`.

    Args:
        kind: kind of the planner.
        settings: settings of the planner.
        changes: changes to the cases before they are planned.
        inner: planner for cases that have the changes.
    """

    kind: PlannerKind = field(repr=False)
    settings: PlannerSettings
    changes: CaseChanges
    inner: Planner = field(repr=False)

    @classmethod
    def of(cls, kind: PlannerKind, settings: PlannerSettings, changes: CaseChanges) -> ConfiguredPlanner:
        """Make the planner.

        Raises:
            ValueError: a setting that the planner does not accept.
        """
        kind.check(settings)
        from_file = isinstance(settings.start, Path)
        return cls(kind, settings, changes, _FromRtplan(kind, settings) if from_file else kind.make(settings))

    def starting_from(self, start: Plan) -> ConfiguredPlanner:
        """The same planner with a plan to start from, which must fit the cases to plan.

        Raises:
            ValueError: a planner that cannot start from a plan.
        """
        return self.of(self.kind, replace(self.settings, start=start), self.changes)

    def prepared(self, case: Case) -> Case:
        """The case with the planner's wishes, gantry speed and, unless it starts from a plan, the planner's jaws.

        Raises:
            ValueError: see `CaseChanges.apply`.
        """
        return self.changes.apply(case, jaws=self.settings.start is None)

    def for_case(self, case: Case) -> Planner:
        """The inner planner of a case: with weights of the package it is one that knows the case's structures."""
        return self.inner.choose(case) if isinstance(self.inner, PlannerByCase) else self.inner

    def plan(self, case: Case) -> PlanResult:
        """Plan one case. `case` of the result has the planner's jaws and wishes.

        Raises:
            ValueError: a case that cannot be planned, or an RTPLAN that does not fit it.
        """
        case = self.prepared(case)
        result = self.inner.plan(case)
        return replace(result, case=result.case or case, planner=result.planner or self.settings.name)


@dataclass(frozen=True)
class _FromRtplan:
    """Reads the RTPLAN for each case, and starts from it with its jaws."""

    kind: PlannerKind
    settings: PlannerSettings

    def plan(self, case: Case) -> PlanResult:
        from lightning_vmat.cases.dicom.start import start_plan

        case, given = start_plan(Path(str(self.settings.start)), case, None)
        return replace(self.kind.make(replace(self.settings, start=given)).plan(case), case=case)


def register_planner(name: str) -> Callable[[AnyFactory], AnyFactory]:
    """Register a planner of your own under a name, for `planner`, `vmat plan` and `vmat benchmark planners`.

    Decorates a class (or function) that is called with the `PlannerSettings` and returns a `Planner`: an object with
    `plan(case) -> PlanResult`. The case has its jaws and wishes already. The attribute `takes` lists the accepted
    settings of `run`, `start`, `optimizer` and `evaluations`; others are refused. An import path on the command line
    needs no registration: `vmat plan CASE --planner my_package.module.OpenField`.

    >>> import lightning_vmat as vmat
    >>> @vmat.register_planner("open_field")
    ... class OpenField:
    ...     takes = ()
    ...     def __init__(self, settings):
    ...         self.settings = settings
    ...     def plan(self, case):
    ...         problem = vmat.build_problem(case, self.settings.voxels, self.settings.seed)
    ...         return vmat.PlanResult(problem.open_field * problem.scale_mu, None, vmat.Trace())
    >>> vmat.planner("open_field", voxels=300).plan(vmat.phantom(0, size="tiny"))
    PlanResult of phantom_0000 by open_field: an ideal fluence
      0 dose evaluations in 0.0 s

    Raises:
        ValueError: a bad name, or one that is taken.
    """
    check_name("planner", name)

    def add(factory: AnyFactory) -> AnyFactory:
        register("planner", PLANNERS, name, _own_kind(name, factory), factory.__module__)
        return factory

    return add


def _find_kind(name: str) -> PlannerKind:
    if is_import_path(name):
        factory = import_object("planner", name)
        if not callable(factory):
            raise ValueError(f"planner {name}: expected a class or function that takes PlannerSettings")
        return _own_kind(name, factory)
    return find("planner", PLANNERS, name)


def _own_kind(name: str, factory: Factory) -> PlannerKind:
    """The kind of a user's planners; what its factory makes is checked, for a name may lead to anything."""

    def make(settings: PlannerSettings) -> Planner:
        try:
            made = factory(settings)
        except TypeError as error:
            raise ValueError(
                f"planner {name}: expected a class or function that takes PlannerSettings ({error})"
            ) from error
        if not callable(getattr(made, "plan", None)):
            raise ValueError(f"planner {name}: gave a {type(made).__name__}, expected an object with plan(case)")
        return made

    return PlannerKind(make, tuple(getattr(factory, "takes", ())))
