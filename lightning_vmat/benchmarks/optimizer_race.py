"""Dose evaluations that conventional fluence optimizers need to match a few evaluations of the learned one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from lightning_vmat.l2o.baselines.scipy_lbfgsb import run_scipy_lbfgsb
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.l2o.unroll import OptimizerTrace, run
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.jaws import within_jaws
from lightning_vmat.planning.planners import OPTIMIZERS
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.planning.staged import Start, open_start

RaceRow = dict[str, Any]
LEARNED, GENERATOR, OPEN_FIELD = "learned", "generator", "open field"
NEVER = float("inf")  # median if most cases never matched


@dataclass(frozen=True)
class Setting:
    """A treatment setting for the comparison of optimizers.

    Args:
        change: changes the case.
        weights: factor on the objective weights of all structures but targets and body, or factors by structure.
    """

    change: Callable[[Case], Case] = lambda case: case
    weights: float | Mapping[str, float] = field(default_factory=dict)

    def problems(self, case: Case, voxels: int) -> CaseProblems:
        """The planning problems of a case that `change` returned."""
        factors = self.weights
        if not isinstance(factors, Mapping):
            judged = {line.structure for line in load_protocol(case.protocol).objectives}
            factors = dict.fromkeys(sorted(judged & set(case.structures) - set(case.prescription_gy) - {BODY}), factors)
        wishes = {name: case.wishes.get(name, 1.0) * factors.get(name, 1.0) for name in {**case.wishes, **factors}}
        return CaseProblems(case.with_settings(wishes=wishes), voxels)


def _arc(case: Case, **changes: float | int) -> Case:
    return case.with_settings(arcs=tuple(replace(arc, **changes) for arc in case.arcs))  # type: ignore[arg-type]


def _wide_leaves(case: Case) -> Case:
    grid = replace(case.beamlets, leaf_edges_mm=case.beamlets.leaf_edges_mm[::2], jaws_mm=None)
    return within_jaws(case.with_settings(beamlets=grid), case.beamlets.field_mm)


def settings(machine: str | None) -> dict[str, Setting]:
    """Settings by name; those of prostate phantoms, on which the shipped weights were trained, come first.

    Args:
        machine: YAML file of another machine to compare on as well.
    """
    high = {"protocol": "prostate_78gy_39fx", "prescription_gy": {"PTV": 78.0}, "fractions": 39}
    members = {
        "as trained": Setting(),
        "78 Gy in 39 fractions": Setting(lambda case: case.with_settings(**high)),
        "organ weights x 0.25": Setting(weights=0.25),
        "organ weights x 4": Setting(weights=4.0),
        "rectum x 4, bladder x 0.25": Setting(weights={"Rectum": 4.0, "Bladder": 0.25}),
        "60 control points": Setting(partial(_arc, control_points=60)),
        "180 control points": Setting(partial(_arc, control_points=180)),
        "partial arc of 240 deg": Setting(
            partial(_arc, gantry_start_deg=240.0, gantry_stop_deg=120.0, control_points=60)
        ),
        "collimator 0": Setting(partial(_arc, collimator_deg=0.0)),
        "collimator 30": Setting(partial(_arc, collimator_deg=30.0)),
        "collimator 90": Setting(partial(_arc, collimator_deg=90.0)),
        "leaves of 10 mm": Setting(_wide_leaves),
    }
    if machine is not None:
        members["another machine"] = Setting(lambda case: case.with_settings(machine_name=machine))
    return members


def race(
    problems: CaseProblems,
    start: Start | None,
    optimizer: LearnedOptimizer,
    evaluations: int,
    most: int,
) -> list[RaceRow]:
    """Run all optimizers on one problem, from the generator's maps and from the open field.

    The conventional ones continue until they match the learned optimizer's objectives after `evaluations`.

    Args:
        problems: planning problems of the case.
        start: the generator; None if it does not fit the case.
        optimizer: the learned optimizer.
        evaluations: dose evaluations of the learned optimizer.
        most: dose evaluations after which the conventional ones stop.
    """
    problem = problems.whole
    starts = {OPEN_FIELD: open_start(problems)}
    if start is not None:
        starts = {GENERATOR: start(problems), **starts}
    learned = {name: run(problem, optimizer, x0, evaluations) for name, x0 in starts.items()}
    goals = {name: float(trace.values[evaluations]) for name, trace in learned.items()}
    rows = [count(name, LEARNED, trace, evaluations, {name: goals[name]}) for name, trace in learned.items()]
    racers: dict[str, Callable[..., OptimizerTrace]] = {
        name: partial(run, problem, member) for name, member in OPTIMIZERS.items()
    }
    racers["scipy L-BFGS-B"] = partial(run_scipy_lbfgsb, problem)

    def done(values: Sequence[float]) -> bool:
        return len(values) > evaluations and min(values) <= min(goals.values())

    for began, x0 in starts.items():
        for name, racer in racers.items():
            rows.append(count(began, name, racer(x0=x0, evaluations=most, stop=done), evaluations, goals))
    return rows


def count(start: str, optimizer: str, trace: OptimizerTrace, evaluations: int, goals: Mapping[str, float]) -> RaceRow:
    """Objective of an optimizer after some evaluations, and when it matched each goal; None if it stopped before.

    Args:
        start: name of the start.
        optimizer: name of the optimizer.
        trace: its trace.
        evaluations: number of evaluations after which to read the objective.
        goals: objectives reached by the learned optimizer, by start.
    """
    row: RaceRow = {
        "start": start,
        "optimizer": optimizer,
        "objective": float(trace.values[min(evaluations, len(trace.values) - 1)]),
        "seconds": float(trace.seconds[min(evaluations, len(trace.values) - 1)]),
    }
    for of, goal in goals.items():
        there = (trace.values <= goal).nonzero()
        row[f"evaluations to match learned from {of}"] = int(there[0]) if len(there) else None
        row[f"seconds to match learned from {of}"] = float(trace.seconds[int(there[0])]) if len(there) else None
    return row


def summary(rows: Sequence[RaceRow]) -> list[RaceRow]:
    """Medians over the cases by setting, start and optimizer.

    `over_learned` is the median over cases of an objective over the learned optimizer's from the same start.
    Evaluations and seconds to match are None if half of the cases or more never matched.
    """
    groups: dict[tuple[str, str, str], list[RaceRow]] = {}
    for row in rows:
        groups.setdefault((row["setting"], row["start"], row["optimizer"]), []).append(row)
    lines = []
    for (setting, start, optimizer), members in groups.items():
        reached = {row["case"]: row["objective"] for row in groups[setting, start, LEARNED]}
        line: RaceRow = {"setting": setting, "start": start, "optimizer": optimizer, "cases": len(members)}
        line |= {name: median(row[name] for row in members) for name in ("objective", "seconds")}
        line["over_learned"] = median(row["objective"] / reached[row["case"]] for row in members)
        for name in (name for name in members[0] if " to match " in name):
            value = median(NEVER if row[name] is None else row[name] for row in members)
            line[name] = None if value == NEVER else value
        lines.append(line)
    return lines


def as_table(lines: Sequence[RaceRow]) -> str:
    """The summary as a Markdown table."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    text += ["| " + " | ".join(_cell(line.get(name, "")) for name in columns) + " |" for line in lines]
    return "\n".join(text)


def _cell(value: object) -> str:
    if value is None:
        return "never"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
