"""Evaluation of a plan: dose in the whole body, clinical goals, machine limits and complexity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.metrics.complexity import plan_complexity
from lightning_vmat.metrics.plan_report import structure_dvhs, summarise_structures
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.objectives.goals import evaluate_goals
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.html_table import html_table
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.plan.voxels import all_voxels
from lightning_vmat.planning.body_dose import BodyDose
from lightning_vmat.planning.planner import PlanResult

MOST_SHOWN = 6  # missed goals in the `repr` of an evaluation


@dataclass(frozen=True)
class Evaluation:
    """Measures of a plan.

    Args:
        dose_gy: dose of the whole course; zero outside the body.
        objective: the protocol's objective, with the case's wishes, over all voxels of the body instead of a sample.
        structures: dose summary by structure.
        goals: clinical goals of the case's protocol.
        violations: number of violations by machine limit; empty without leaves.
        complexity: complexity metrics; empty without leaves.
        delivery_s: delivery time of the arcs; None without leaves.
    """

    dose_gy: Float[Tensor, "z y x"]
    objective: float
    structures: dict[str, dict[str, float]]
    goals: list[GoalResult]
    violations: dict[str, int] = field(default_factory=dict)
    complexity: dict[str, float] = field(default_factory=dict)
    delivery_s: float | None = None

    def __repr__(self) -> str:
        """Returns at most three lines: objective and goals met, missed goals, machine violations and delivery time."""
        missed = [
            f"{goal.structure} {goal.measure} {goal.value:.4g} ({goal.limit_text})"
            for goal in self.goals
            if not goal.met
        ]
        met = f"{len(self.goals) - len(missed)} of {len(self.goals)} clinical goals met"
        lines = [f"Evaluation: objective {self.objective:.4g}, {met}"]
        lines += (
            [f"  missed: {', '.join(missed[:MOST_SHOWN])}{', ...' if len(missed) > MOST_SHOWN else ''}"]
            if missed
            else []
        )
        if self.delivery_s is not None:
            lines.append(f"  {sum(self.violations.values())} machine violations, delivery in {self.delivery_s:.0f} s")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            ("met" if goal.met else "missed", f"{goal.structure} {goal.measure}", f"{goal.value:.4g}", goal.limit_text)
            for goal in self.goals
        ]
        return html_table(repr(self).partition("\n")[0], rows)


def evaluate_dose(case: Case, dose_gy: Float[Tensor, " voxel"]) -> tuple[dict[str, dict[str, float]], list[GoalResult]]:
    """Returns the dose summary by structure and the clinical goals of any dose on `case.body_index`."""
    goals = evaluate_goals(structure_dvhs(case, dose_gy), load_protocol(case.protocol), case.prescription_gy)
    return summarise_structures(case, dose_gy), goals


def body_objective(
    case: Case, fluence_mu: Float[Tensor, "*plan control_point leaf_pair beamlet"]
) -> Float[Tensor, "*plan"]:
    """Returns the objective over all voxels of the body of each fluence; builds the operator once for all."""
    return _body_objective(case)(BodyDose(case).of_fluence(fluence_mu))


def body_objective_of_dose(case: Case, dose_gy: Float[Tensor, " voxel"]) -> float:
    """Returns the protocol's objective of any dose on `case.body_index`."""
    return float(_body_objective(case)(dose_gy))


def _body_objective(case: Case) -> PlanObjective:
    return PlanObjective.from_case(case, all_voxels(case), load_protocol(case.protocol))


def evaluate_plan(case: Case, result: PlanResult, body: BodyDose | None = None) -> Evaluation:
    """Evaluates a planner's result by its dose on every voxel of the body.

    >>> import lightning_vmat as vmat
    >>> case = vmat.phantom(0, size="tiny")
    >>> judged = vmat.evaluate_plan(case, vmat.planner("conventional", voxels=300).plan(case))
    >>> judged
    Evaluation: objective ..., ... of 13 clinical goals met
      ...
      0 machine violations, delivery in ... s
    >>> judged.structures["Rectum"]["mean_gy"] < judged.structures["PTV"]["mean_gy"]
    True

    Args:
        case: the case. Jaws and wishes are those of `result.case` if the planner gives one.
        result: a planner's result.
        body: dose of the same case and jaws, to reuse for several plans; built if None.

    Raises:
        ValueError: a plan of another case.
    """
    case = judged_case(case, result)
    body = body or BodyDose(case)
    body_dose_gy = body.of_fluence(result.fluence_mu) if result.plan is None else body.of_plan(result.plan)
    measured = _of_body_dose(case, body_dose_gy)
    if result.plan is None:
        return measured
    fraction_dose_gy = max(case.prescription_gy.values()) / case.fractions
    return replace(
        measured,
        violations=machine_violations(result.plan, case.beam_setup),
        complexity=plan_complexity(result.plan, case.beam_setup, fraction_dose_gy),
        delivery_s=float(delivery_seconds(result.plan, case.beam_setup).sum()),
    )


def evaluate_volume(case: Case, dose_gy: Float[Tensor, "z y x"]) -> Evaluation:
    """Evaluates a dose without known leaves, for example a clinical plan's."""
    return _of_body_dose(case, dose_gy.flatten()[case.body_index])


def _of_body_dose(case: Case, body_dose_gy: Float[Tensor, " voxel"]) -> Evaluation:
    structures, goals = evaluate_dose(case, body_dose_gy)
    return Evaluation(
        dose_gy=case.body_volume(body_dose_gy),
        objective=body_objective_of_dose(case, body_dose_gy),
        structures=structures,
        goals=goals,
    )


def judged_case(case: Case, result: PlanResult) -> Case:
    """Returns the case with the jaws and wishes that a planner gave it, for evaluation and report.

    Raises:
        ValueError: a plan of another case or field.
    """
    planned = result.case
    if planned is None or planned is case:
        return case
    if (planned.case_id, planned.grid, planned.arcs) != (case.case_id, case.grid, case.arcs):
        raise ValueError(f"plan of case {planned.case_id}: expected one of case {case.case_id}, its grid and its arcs")
    settings = {name: getattr(planned, name) for name in ("beamlets", "wishes", "gantry_slowdown")}
    if all(getattr(planned, f.name) is getattr(case, f.name) for f in fields(case) if f.name not in settings):
        return planned  # keeps its cached properties
    return case.with_settings(**settings)


def sequencing_error(case: Case, result: PlanResult) -> dict[str, float]:
    """Returns the error that leaf sequencing makes.

    Args:
        case: the case.
        result: a planner's result.

    Returns:
        `sequencing_mnse`, the squared error of the sequenced fluence over the squared wanted fluence, within the jaws;
        empty if no map was sequenced.
    """
    wanted_mu, sequenced_mu = result.wanted_mu, result.sequenced_mu
    if wanted_mu is None or sequenced_mu is None:
        return {}
    inside = case.beamlets.inside_jaws
    wanted_mu, sequenced_mu = wanted_mu[:, inside], sequenced_mu[:, inside]
    return {"sequencing_mnse": float((sequenced_mu - wanted_mu).square().sum() / wanted_mu.square().sum())}


def as_json(case: Case, result: PlanResult, evaluation: Evaluation) -> dict[str, object]:
    """Returns all measures for `metrics.json`; doses in Gy, volumes as fractions; None for jaws the machine lacks."""
    x1, x2, y1, y2 = case.beamlets.field_mm
    return {
        "case": case.case_id,
        "planner": result.planner,
        "unlikeness": result.unlikeness,
        "jaws_mm": [x1, x2, y1, y2] if case.machine.x_jaws else [None, None, y1, y2],
        "wishes": dict(case.wishes),
        "machine_violations": sum(evaluation.violations.values()) if result.plan is not None else None,
        "machine_violations_by_limit": evaluation.violations,
        **_dose_figures(evaluation.structures, evaluation.goals),
        "skipped_structures": skipped_structures(case),
        "complexity": evaluation.complexity,
        "delivery_s": evaluation.delivery_s,
        "objective": evaluation.objective,
        "seconds": {**result.trace.seconds, "total": sum(result.trace.seconds.values())},
        "dose_evaluations": result.trace.dose_evaluations,
    }


def skipped_structures(case: Case) -> list[str]:
    """Returns structures with an optional objective or goal in the protocol that the case lacks."""
    protocol = load_protocol(case.protocol)
    named = {line.structure for line in protocol.objectives} | {goal.structure for goal in protocol.goals}
    return sorted(named - case.structures.keys())


def dose_as_json(case: Case, dose_gy: Float[Tensor, " voxel"]) -> dict[str, object]:
    """Returns the part of `as_json` that applies to any dose on `case.body_index`, e.g. a clinical plan's."""
    return _dose_figures(*evaluate_dose(case, dose_gy))


def _dose_figures(structures: dict[str, dict[str, float]], goals: list[GoalResult]) -> dict[str, object]:
    return {
        "structures": structures,
        "goals": [asdict(goal) for goal in goals],
        "goals_met": sum(goal.met for goal in goals),
    }
