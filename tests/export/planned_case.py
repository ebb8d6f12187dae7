"""A planned case made in code: ellipses, a smooth dose, leaves that follow the target."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import torch

from lightning_vmat.export.content import ComparedPlan, ReportContent
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.volume import VolumeGrid
from lightning_vmat.planning.evaluation import Evaluation
from lightning_vmat.planning.planner import PlanResult, Trace


def ellipsoid(grid: VolumeGrid, centre_mm: tuple[float, ...], radius_mm: tuple[float, ...]) -> torch.Tensor:
    points = grid.centres_mm(torch.arange(grid.voxel_count))
    distance = ((points - torch.tensor(centre_mm)) / torch.tensor(radius_mm)).norm(dim=-1)
    return (distance <= 1).reshape(grid.shape)


def make_case(voxel_mm: float = 5.0, control_points: int = 12, extra: dict[str, str] | None = None) -> Case:
    """A pelvis of ellipsoids; `extra` renames structures."""
    nx, ny, nz = round(400 / voxel_mm), round(280 / voxel_mm), round(200 / voxel_mm)
    origin = (-(nx - 1) / 2 * voxel_mm, -(ny - 1) / 2 * voxel_mm, -(nz - 1) / 2 * voxel_mm)
    grid = VolumeGrid((nz, ny, nx), (voxel_mm, voxel_mm, voxel_mm), origin)
    structures = {
        "Body": ellipsoid(grid, (0, 0, 0), (185, 125, 400)),
        "PTV": ellipsoid(grid, (0, 0, 0), (34, 30, 32)),
        "CTV": ellipsoid(grid, (0, 0, 0), (27, 23, 25)),
        "Rectum": ellipsoid(grid, (0, 42, 5), (18, 18, 50)),
        "Bladder": ellipsoid(grid, (0, -30, 45), (42, 38, 32)),
        "FemoralHeadLeft": ellipsoid(grid, (95, 0, 5), (24, 24, 24)),
        "FemoralHeadRight": ellipsoid(grid, (-95, 0, 5), (24, 24, 24)),
        "PenileBulb": ellipsoid(grid, (0, 22, -48), (10, 9, 10)),
    }
    hu = torch.full(grid.shape, -1000.0)
    hu[structures["Body"]] = -80.0
    hu[ellipsoid(grid, (0, 5, 0), (160, 100, 300))] = 45.0
    for name in ("FemoralHeadLeft", "FemoralHeadRight"):
        hu[structures[name]] = 550.0
    hu[structures["Bladder"]] = 5.0
    names = extra or {}
    half = (control_points + 1) // 2
    there = Arc(181.0, 179.0, half, "clockwise", 10.0)
    back = Arc(179.0, 181.0, control_points - half, "counterclockwise", 350.0)
    return Case(
        case_id="phantom_0007",
        source="phantom",
        grid=grid,
        hu=hu,
        structures={names.get(name, name): mask for name, mask in structures.items()},
        prescription_gy={names.get("PTV", "PTV"): 60.0},
        fractions=20,
        isocentre_mm=(0.0, 0.0, 0.0),
        arcs=(there, back),
        beamlets=BeamletGrid(tuple(float(e) for e in range(-60, 61, 5)), -60.0, 5.0, 24),
        machine_name="truebeam_millennium120",
        protocol="prostate_60gy_20fx",
    )


def make_plan(case: Case) -> Plan:
    """Leaves around an ellipse that shrinks and shifts with the gantry."""
    angle = torch.deg2rad(case.control_points.gantry_deg)[:, None]
    y = case.beamlets.leaf_centres_mm[None]
    half = 36 * (1 - (y / 38) ** 2).clamp(min=0).sqrt() * (0.6 + 0.3 * torch.cos(2 * angle))
    shift = 9 * torch.sin(3 * angle + y / 15)
    mu = 2.0 * case.control_points.sector_deg * (1 + 0.6 * torch.sin(2 * angle[:, 0] + 1))
    return project_to_limits(Plan(shift - half, shift + half, mu), case.beam_setup)


def make_content(case: Case, *, deliverable: bool = True) -> ReportContent:
    points = case.grid.centres_mm(torch.arange(case.grid.voxel_count))
    distance = (points / torch.tensor([38.0, 34.0, 36.0])).norm(dim=-1).reshape(case.grid.shape)
    dose = 61.5 / (1 + ((distance - 0.1).clamp(min=0) / 1.15) ** 4.0) + torch.sin(points[:, 0] / 9).reshape(
        case.grid.shape
    )
    dose = dose.clamp(min=0) * case.structures["Body"]
    plan = make_plan(case) if deliverable else None
    fluence = make_plan(case).fluence_mu(case.beam_setup)
    trace = Trace()
    for stage, start, end in (("fluence", 40.0, 3.0), ("sequencing", 9.0, 8.5), ("apertures", 8.0, 3.4)):
        count = 2 if stage == "sequencing" else 40
        for k in range(count):
            trace.add(stage, k, 0.05 * k, end + (start - end) * 0.85**k)
        trace.spend(count)
        trace.seconds[stage] = 0.05 * count
    target = case.target_names[0]
    organ = next(name for name in case.structures if name not in ("Body", target, "CTV"))
    evaluation = Evaluation(
        dose_gy=dose,
        objective=400.0,
        structures={
            name: dict.fromkeys(("d98_gy", "d95_gy", "d50_gy", "d2_gy", "mean_gy", "max_gy"), 30.0)
            for name in case.structures
        },
        goals=[
            GoalResult(target, "D99", 56.9, 54.0, True, True),
            GoalResult(target, "D2", 63.0, 64.2, False, True),
            GoalResult(organ, "V54gy", 0.171, 0.15, False, False),
            GoalResult(organ, "V39.3gy", 0.33, 0.40, False, True),
            GoalResult("FemoralHeadLeft", "max", 31.0, 42.0, False, True),
            GoalResult("Body", "D0.01cc", 63.9, 66.0, False, True),
        ],
        violations=machine_violations(plan, case.beam_setup) if plan else {},
        complexity={"mcs_v": 0.31, "edge_metric_per_mm": 0.121, "leaf_travel_mm": 420.0, "aperture_area_cm2": 17.4,
                    "mu": 612.0, "mu_per_gy": 204.0} if plan else {},
    )  # fmt: skip
    result = PlanResult(fluence, plan, trace, planner="reference")
    return ReportContent(case, result, evaluation, version="0.1.0", created=datetime(2026, 1, 2, 3, 4))


def make_compared(content: ReportContent, name: str = "RTPLAN") -> ComparedPlan:
    """Three per cent more dose and one goal lost, with more monitor units."""
    ours = content.evaluation
    goals = [replace(goal, value=1.03 * goal.value, met=goal.met and goal.structure != "Body") for goal in ours.goals]
    structures = {name: {key: 1.03 * dose for key, dose in values.items()} for name, values in ours.structures.items()}
    theirs = Evaluation(
        1.03 * ours.dose_gy, 500.0, structures, goals, {"leaf_speed": 2}, {**ours.complexity, "mu": 680.0}
    )
    return ComparedPlan(name, theirs)
