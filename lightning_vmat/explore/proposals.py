"""Makes a deliverable plan for the settings of a session: from scratch, or from the current plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.api.planners import ConfiguredPlanner
from lightning_vmat.explore.generated import draws
from lightning_vmat.explore.workbench import Workbench
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.planners import part_evaluations_within
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures, SurrogateSettings
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.planning.staged import KnownStart, SequencedPlanner, Start, open_start
from lightning_vmat.recipes.planning import CarefulPlanner
from lightning_vmat.recipes.trained import TrainedStart

CLOSE = 1e-3  # relative difference from the prescription at which normalisation ends
ROUNDS = 4  # of normalisation: leaf motion depends on monitor units, so dose is not exactly proportional

Preview = Callable[[FluenceMap, Problem, Float[Tensor, " voxel"]], None]
"""Called with a fluence in MU, a problem, and the fluence's dose on the problem's voxels, before there is a plan."""


@dataclass(frozen=True)
class Proposer:
    """Makes plans with one planner.

    Args:
        planner: the planner.
        bench: problem and operators of the case.
        preview: receives the generated fluence.
    """

    planner: ConfiguredPlanner
    bench: Workbench
    preview: Preview = lambda fluence_mu, problem, dose_gy: None

    @property
    def staged(self) -> SequencedPlanner | None:
        """The planner of stages inside, which can be watched and reuses the problem; None for any other planner."""
        inner = self.planner.for_case(self.bench.case)
        inner = inner.staged if isinstance(inner, CarefulPlanner) else inner
        return inner if isinstance(inner, SequencedPlanner) else None

    @property
    def draws(self) -> bool:
        """Whether there are other plans for the same wishes."""
        return self.staged is not None and draws(self.staged.start)

    @property
    def generates(self) -> bool:
        """Whether a network makes the planner's first fluence."""
        staged = self.staged
        return staged is not None and isinstance(staged.start, TrainedStart) and staged.start.maps is not None

    def from_scratch(self, problems: CaseProblems, seed: int, trace: Trace) -> Plan:
        """Returns the planner's own plan.

        Args:
            problems: problems of the case with its wishes.
            seed: seed of the generator's noise.
            trace: records the course.

        Raises:
            ValueError: a case that cannot be planned, or a planner that ends in an ideal fluence.
        """
        staged = self.staged
        if staged is None:
            plan = self.planner.plan(problems.case).plan
        else:
            if staged.apertures is None:
                raise ValueError(f"planner {self.planner.settings.name}: ends in a fluence that no linac delivers")
            start = self._start(seed)
            x = self.bench.generated(start, problems)
            if start is not open_start:
                self._shown(problems, x)
            ready = replace(
                staged,
                start=start if start is open_start else KnownStart(x),
                apertures=self._with_surrogate(staged.apertures),
            )
            plan = ready.solve(problems, trace).plan
        if plan is None:
            raise ValueError(f"planner {self.planner.settings.name}: ends in a fluence that no linac delivers")
        return plan

    def from_plan(
        self,
        problems: CaseProblems,
        plan: Plan,
        plan_dose_gy: Float[Tensor, " voxel"],
        evaluations: int,
        seed: int,
        trace: Trace,
    ) -> Plan:
        """Returns a plan that starts from the current plan or from the generator's, whichever has the lower objective.

        Args:
            problems: problems of the case with the new wishes.
            plan: the current plan.
            plan_dose_gy: its dose on the voxels of the whole problem.
            evaluations: dose evaluations of aperture optimization.
            seed: seed of the generator's noise.
            trace: records the course.
        """
        case, problem = problems.case, problems.whole
        known_gy = plan_dose_gy
        if self.generates:
            generated_mu, rough, ideal = self._shown(problems, self.bench.generated(self._start(seed), problems))
            # an ideal fluence is a bound of what apertures deliver
            if ideal < float(rough.objective(rough.dose_of_mu(plan.fluence_mu(case.beam_setup)))):
                sequenced = project_to_limits(sequence(generated_mu, case.beamlets), case.beam_setup)
                dose_gy = problem.dose_of_mu(sequenced.fluence_mu(case.beam_setup))
                if float(problem.objective(dose_gy)) < float(problem.objective(plan_dose_gy)):
                    plan, known_gy = sequenced, dose_gy
        # without a learned correction, which is for the way from a map to a plan, not from one plan to another
        apertures = QuasiNewtonApertures(evaluations, made=self.bench.surrogate)
        with trace.stage("apertures"):
            return apertures.refine(case.beam_setup, problem, plan, trace, dose_gy=known_gy)

    def _shown(self, problems: CaseProblems, x: FluenceMap) -> tuple[FluenceMap, Problem, float]:
        """Shows a generated fluence; returns it in MU, a problem that shows its dose well enough, and its objective."""
        case = problems.case
        generated_mu = x * problems.whole.scale_mu * case.beamlets.inside_jaws.to(x)
        # a part of the voxels, if there are many
        rough = problems.part if part_evaluations_within(problems.voxels, 1) else problems.whole
        dose_gy = rough.dose_of_mu(generated_mu)
        self.preview(generated_mu, rough, dose_gy)
        return generated_mu, rough, float(rough.objective(dose_gy))

    def _with_surrogate(self, apertures: QuasiNewtonApertures) -> QuasiNewtonApertures:
        """Returns an aperture optimizer that need not make the surrogate of the curvature again."""
        if apertures.surrogate == SurrogateSettings():
            return replace(apertures, made=self.bench.surrogate)
        return apertures

    def _start(self, seed: int) -> Start:
        staged = self.staged
        start = open_start if staged is None else staged.start
        return replace(start, seed=seed) if isinstance(start, TrainedStart) else start


def normalised(bench: Workbench, case: Case, plan: Plan, normalisation: str) -> Plan:
    """Returns a plan scaled so that D95 or D50 of the foremost target is its prescription.

    The result keeps the machine's limits, so that the figure may be missed where these allow no more monitor units.

    Args:
        bench: gives the dose of the target.
        case: the case.
        plan: the plan.
        normalisation: `D95` or `D50`; with `none` the plan stays.
    """
    if normalisation == "none":
        return plan
    prescribed_gy, volume = case.prescription_gy[case.target_names[0]], float(normalisation[1:]) / 100
    for _ in range(ROUNDS):
        factor = prescribed_gy / max(bench.target_dvh(plan).dose_at_volume(volume), 1e-6)
        if abs(factor - 1) < CLOSE:
            break
        plan = project_to_limits(replace(plan, mu=plan.mu * factor), case.beam_setup)
    return plan
