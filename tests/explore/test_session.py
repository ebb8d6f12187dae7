"""A session of planning by wish, without a page."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lightning_vmat as vmat
from lightning_vmat.cases.dicom.dicom_references import PatientLink, lying_supine
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.cases.plan_files import read_dose
from lightning_vmat.explore.cancelling import Cancelled
from lightning_vmat.explore.export import export_plan
from lightning_vmat.explore.generated import GeneratedFluence
from lightning_vmat.explore.kept import Kept
from lightning_vmat.explore.made_plan import Computation
from lightning_vmat.explore.session import Session
from lightning_vmat.explore.settings import Settings, session_wishes, with_geometry
from lightning_vmat.export.rtplan import check_gantry_stop
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.evaluation import evaluate_plan
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.recipes.trained import TrainedStart

PLANNER = "conventional@5"  # a cheap first plan
RECTUM, BLADDER = "Rectum mean (Gy)", "Bladder mean (Gy)"


def opened(size: str = "tiny") -> OpenedPatient:
    return OpenedPatient(vmat.phantom(0, size=size), None, None, None)


def started(**settings: object) -> Session:
    session = Session(opened(), PLANNER, **{"voxels": 500, **settings})  # type: ignore[arg-type]
    session.wait()
    return session


@pytest.fixture
def session() -> Iterator[Session]:
    made = started()
    yield made
    made.close()


@pytest.fixture(scope="module")
def still() -> Iterator[Session]:
    """A session for tests that change nothing."""
    made = started()
    yield made
    made.close()


def figure(session: Session, name: str) -> float:
    current = session.current
    assert current is not None
    return current.figures[name]


def test_a_wish_spares_its_structure_and_the_plan_keeps_the_limits(session: Session) -> None:
    before = figure(session, RECTUM)
    session.change(wishes={"Rectum": 4.0})
    session.wait()
    current = session.current
    assert current is not None and current.number == 2 and current.case.wishes == {"Rectum": 4.0}
    assert figure(session, RECTUM) < before - 0.2
    assert sum(current.violations.values()) == 0
    spared = figure(session, RECTUM)
    session.change(wishes={"Rectum": 1.0})
    session.wait()
    assert session.settings.wishes == {} and figure(session, RECTUM) > spared


def test_the_plan_never_has_a_higher_objective_than_the_one_before(session: Session) -> None:
    first = session.current
    assert first is not None
    session.change(wishes={"Bladder": 2.0, "homogeneity": 0.5})
    session.wait()
    second = session.current
    assert second is not None
    objective = session.kept.bench(second.settings).problems(second.case, lambda: None).whole.objective
    assert float(objective(second.sample_dose_gy)) <= float(objective(first.sample_dose_gy))


def test_a_plan_may_be_explored_on_smaller_samples_of_voxels() -> None:
    """As at base size; figures of the way there come from the whole sample alone."""
    case = vmat.phantom(0, size="tiny")
    narrow = case.with_settings(arcs=(replace(case.arcs[0], control_points=72),))
    session = Session(OpenedPatient(narrow, None, None, None), "conventional", voxels=4000)
    session.wait()
    current = session.current
    session.close()
    assert current is not None and {"exploration", "apertures"} <= set(current.trace.seconds)
    assert len(current.sample_dose_gy) < 4500


def test_weights_alone_change_with_a_wish(still: Session) -> None:
    """The objective of a session is that of a problem built with the wish; the operator is the same object."""
    bench, wishes = still.kept.bench(still.settings), {"Rectum": 3.0, "FemoralHeads": 0.5, "homogeneity": 2.0}
    wished, plain = bench.wished(wishes), bench.wished({})
    built = vmat.build_problem(wished, bench.voxels, bench.seed)
    kept = bench.problems(wished, lambda: None).whole
    dose_gy = built.dose(built.open_field)
    assert float(kept.objective(dose_gy)) == pytest.approx(float(built.objective(dose_gy)), rel=1e-6)
    assert kept.projection.operator is bench.problems(plain, lambda: None).whole.projection.operator
    with pytest.raises(ValueError, match="Thyroid"):
        _ = bench.problems(bench.wished({"Thyroid": 2.0}), lambda: None).whole


def test_figures_are_those_of_the_evaluated_plan(session: Session) -> None:
    session.wait(judged=True)
    made = session.current
    assert made is not None and made.measured.exact
    expected = evaluate_plan(made.case, PlanResult(made.plan.fluence_mu(made.case.beam_setup), made.plan, Trace()))
    assert made.figures[RECTUM] == pytest.approx(expected.structures["Rectum"]["mean_gy"], rel=1e-4)
    assert [goal.met for goal in made.measured.goals] == [goal.met for goal in expected.goals]
    assert made.delivery_s == pytest.approx(expected.delivery_s)
    torch.testing.assert_close(session.volume(made.number), expected.dose_gy, rtol=1e-4, atol=1e-3)


def test_estimates_are_close_to_the_exact_figures() -> None:
    """On a sample of a third of the voxels, and the quick dose between the voxels of its lattice."""
    session = started(voxels=1500)
    made = session.current
    assert made is not None
    quick = session.kept.bench(made.settings).quick_volume(made.plan.fluence_mu(made.case.beam_setup))
    session.wait(judged=True)
    judged = session.current
    assert judged is not None
    for name in (RECTUM, BLADDER, "PTV D50 (Gy)"):
        assert made.figures[name] == pytest.approx(judged.figures[name], abs=1.5)
    exact = session.volume(1)
    target = made.case.target
    assert float((quick[target] - exact[target]).abs().mean()) < 1.0
    session.close()


@pytest.mark.parametrize(("normalisation", "name"), [("D95", "PTV D95 (Gy)"), ("D50", "PTV D50 (Gy)")])
def test_normalisation_gives_the_prescription(session: Session, normalisation: str, name: str) -> None:
    session.change(normalisation=normalisation)
    session.wait(judged=True)
    current = session.current
    assert current is not None and sum(current.violations.values()) == 0
    assert figure(session, name) == pytest.approx(60.0, rel=2e-3)


def test_undo_and_redo_return_to_settings_and_plans(session: Session) -> None:
    session.change(wishes={"Rectum": 4.0})
    session.wait()
    session.undo()
    assert session.settings.wishes == {} and session.state()["current"] == 1
    session.redo()
    assert session.settings.wishes == {"Rectum": 4.0} and session.state()["current"] == 2
    session.undo()
    session.change(wishes={"Bladder": 4.0})
    session.wait()
    state = session.state()
    assert state["steps"] == [1, 3] and not state["can_redo"] and set(state["plans"]) == {1, 2, 3}
    session.choose(2)
    assert session.settings.wishes == {"Rectum": 4.0} and session.state()["steps"] == [1, 3, 2]
    with pytest.raises(ValueError, match="no later step"):
        session.redo()
    with pytest.raises(ValueError, match="expected one of 1 to 3"):
        session.choose(9)


def test_a_newer_wish_ends_the_older_computation(session: Session) -> None:
    session.change(evaluations=200)
    session.change(wishes={"Rectum": 4.0})
    older = session.computation
    assert older is not None
    while not older.points:  # in the middle of it
        time.sleep(0.01)
    session.change(wishes={"Rectum": 2.0}, evaluations=3)
    session.wait()
    state = session.state()
    assert set(state["plans"]) == {1, 2} and state["settings"]["wishes"] == {"Rectum": 2.0}
    assert session.cancelled >= 1 and len(older.points) < 150
    with pytest.raises(Cancelled):
        older.check()


def test_undo_during_a_computation_ends_it(session: Session) -> None:
    session.change(wishes={"Rectum": 4.0}, evaluations=200)
    session.undo()
    session.wait()
    assert session.settings.wishes == {} and list(session.plans) == [1]


def test_many_moves_leave_one_computation_and_no_threads(session: Session) -> None:
    threads = threading.active_count()
    for move in range(100):
        session.change(wishes={"Rectum": 2.0 ** (move % 9 / 2 - 2)})
    session.wait()
    assert session.settings.wishes == {} or session.settings.wishes == {"Rectum": 2.0 ** (99 % 9 / 2 - 2)}
    assert session.computation is None and threading.active_count() == threads
    assert len(session.plans) < 50, "most moves are overtaken by newer ones"
    assert len(session.kept.volumes) <= 6 and len(session.kept.benches) == 1


def resident_mb() -> float:
    """Memory of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
def test_moves_do_not_leak(session: Session) -> None:
    """A hundred moves after a hundred others take no more memory, within 5 %; a fifth of them end in a plan."""
    used = []
    for _ in range(2):
        for move in range(100):
            session.change(wishes={"Rectum": 2.0 ** (move % 9 / 2 - 2)}, evaluations=3)
            if move % 5 == 0:
                session.wait()
        session.wait(judged=True)
        gc.collect()
        used.append(resident_mb())
    assert used[1] < 1.05 * used[0]
    assert len(session.plans) > 40


def test_progress_falls_and_is_told(session: Session) -> None:
    versions: list[int] = []
    points: list[tuple[int, float, float]] = []

    def listener(version: int) -> None:
        versions.append(version)
        computation = session.state()["computation"]
        if computation:
            points[:] = computation["points"]

    end = session.listen(listener)
    session.change(wishes={"Rectum": 4.0}, evaluations=8)
    session.wait()
    end()
    objectives = [objective for _, _, objective in points]
    assert len(objectives) >= 4 and objectives == sorted(objectives, reverse=True)
    assert versions == sorted(versions) and session._listeners == []


def test_arc_and_collimator_make_new_plans_on_the_same_grid(session: Session) -> None:
    session.change(arc="two_full", collimator_deg=20.0)
    session.wait()
    made = session.current
    assert made is not None and len(made.case.arcs) == 2
    assert [arc.collimator_deg for arc in made.case.arcs] == [20.0, 340.0]
    assert made.plan.mu.shape == (24,) and session.volume(2).shape == session.volume(1).shape
    session.change(arc="partial")
    session.wait()
    partial = session.current
    assert partial is not None and len(partial.plan.mu) == 8
    assert abs(sum(arc.span_deg for arc in partial.case.arcs)) == pytest.approx(240.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wishes": {"Rectum": 100.0}}, "Rectum is 100.0"),
        ({"wishes": {"Thyroid": 2.0}}, "Thyroid"),
        ({"wishes": [1]}, "expected names with factors"),
        ({"normalisation": "D5"}, "D5"),
        ({"evaluations": 1}, "evaluations 1"),
        ({"evaluations": "6"}, "evaluations '6'"),
        ({"arc": "spiral"}, "spiral"),
        ({"collimator_deg": 400.0}, "400"),
        ({"planner": "oracle"}, "oracle"),
        ({"planner": None}, "expected a name"),
        ({"colour": "red"}, "setting colour"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_changes(
    still: Session, changes: dict[str, object], message: str
) -> None:
    before = still.settings
    with pytest.raises(ValueError, match=message):
        still.change(**changes)
    assert still.settings == before and still.computation is None


def test_a_planner_without_leaves_says_so_and_the_session_goes_on() -> None:
    session = Session(opened(), "fluence", voxels=500)
    with pytest.raises(ValueError, match="no linac delivers"):
        session.wait()
    assert session.current is None and "fluence" in session.state()["error"]
    session.change(planner="conventional", evaluations=3)
    session.wait()
    assert list(session.plans) == [1] and session.state()["error"] == ""
    with pytest.raises(ValueError, match="one plan only"):
        session.another()
    session.close()


def test_pinned_plans_are_judged_too(session: Session) -> None:
    session.pin(1)
    session.change(wishes={"Rectum": 4.0})
    session.wait(judged=True)
    assert session.pinned == [1] and all(made.measured.exact for made in session.plans.values())
    session.pin(1, False)
    assert session.pinned == []


def test_an_exported_plan_is_read_back(session: Session, tmp_path: Path) -> None:
    session.change(wishes={"Rectum": 2.0}, normalisation="D95")
    session.wait()
    export_plan(session, 2, tmp_path / "plan")
    made = session.plan(2)
    names = {path.name for path in (tmp_path / "plan").iterdir()}
    assert names == {"RTPLAN.dcm", "RTDOSE.dcm", "report.html", "metrics.json", "plan.safetensors", "dose.nii.gz"}
    plan, metadata = vmat.read_plan(tmp_path / "plan" / "plan.safetensors")
    assert torch.equal(plan.mu, made.plan.mu) and metadata["wishes"] == {"Rectum": 2.0}
    leaves, _ = read_rtplan(tmp_path / "plan" / "RTPLAN.dcm").on_leaves(made.case.machine)
    assert float(leaves.mu.sum()) == pytest.approx(float(made.plan.mu.sum()), rel=1e-4)
    dose_gy = read_dose(tmp_path / "plan" / "dose.nii.gz", made.case.grid)
    torch.testing.assert_close(dose_gy, session.judged(2) and session.volume(2), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError):
        export_plan(session, 2, tmp_path / "plan")


def test_settings_of_a_case() -> None:
    case = vmat.phantom(0, size="tiny")
    names = session_wishes(case, load_protocol(case.protocol))
    assert names[0] == "PTV" and "FemoralHeads" in names and names[-2:] == ["Body", "homogeneity"]
    assert "FemoralHeadLeft" not in names
    assert with_geometry(case, Settings(), "HFS") is case
    stored = case.with_settings(influence_path=Path("influence.safetensors"))
    with pytest.raises(ValueError, match="own arcs"):
        with_geometry(stored, Settings(arc="full"), "HFS")


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_new_arcs_begin_and_end_where_the_gantry_can(position: str) -> None:
    link = PatientLink("1", "2", "3", patient_position=position)
    kept = Kept(opened()._replace(link=link), {}, voxels=500, seed=0, jaw_margin_mm=None)
    for arc in ("full", "two_full", "partial"):
        turned = kept.bench(Settings(arc=arc)).case
        check_gantry_stop(turned, link)
        start_deg, _ = lying_supine(position, turned.arcs[0].gantry_start_deg, 0.0)
        assert start_deg == (240.0 if arc == "partial" else 180.0)


def test_a_cancelled_computation_stops_at_the_next_dose() -> None:
    computation = Computation(1, Settings(), 0, True, 20)
    computation.check()
    computation.cancel()
    with pytest.raises(Cancelled):
        computation.check()


def test_a_wrong_planner_ends_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match="oracle"):
        Session(opened(), "oracle")


def test_another_one_comes_from_other_noise() -> None:
    """With a generator: its fluence is shown first, and another seed gives another plan for the same wishes."""
    session = Session(opened(), "generator@5", voxels=500)
    previews: list[bool] = []
    session.listen(lambda version: previews.append((session.state()["computation"] or {}).get("preview", False)))
    session.wait()
    assert any(previews) and session.state()["can_draw"] and session.preview_volume() is None
    session.another()
    session.wait()
    first, second = session.plan(1), session.plan(2)
    assert (first.seed, second.seed) == (0, 1) and first.settings == second.settings
    assert not torch.equal(first.plan.mu, second.plan.mu)
    session.change(wishes={"Rectum": 2.0})
    session.wait()
    assert session.plan(3).seed == 1
    session.close()


def test_a_network_sees_the_wishes_and_arcs_that_it_was_trained_with() -> None:
    case = vmat.phantom(0, size="tiny").with_settings(wishes={"Rectum": 4.0})
    problems = CaseProblems(case, voxels=300)
    seen: list[torch.Tensor] = []

    def maps(condition: torch.Tensor, problem: Problem, seed: int) -> torch.Tensor:
        seen.append(condition[0])
        return problem.open_field[None]

    generated, settings = GeneratedFluence(), ChannelSettings(["Rectum"], ["Rectum", "Body"], True, 3)
    for _ in range(2):  # the second time with the anatomy that was kept
        generated(TrainedStart(Path("run"), maps, settings, seed=0), problems)
    expected = condition_channels(problems, settings)
    assert len(seen) == 2 and all(torch.equal(condition, expected) for condition in seen)


def test_a_page_cannot_name_modules(still: Session) -> None:
    """Import paths are for command lines: what a page sends must not import anything."""
    with pytest.raises(ValueError, match="expected one of learned, generator"):
        still.change(planner="tests.explore.Planner")


def test_any_registered_planner_can_be_explored() -> None:
    """One that is not made of the package's stages plans as a whole; wishes then start from its plan."""

    @vmat.register_planner("half_open")
    class HalfOpen:
        takes = ()

        def __init__(self, settings: vmat.PlannerSettings) -> None:
            self.settings = settings

        def plan(self, case: vmat.Case) -> vmat.PlanResult:
            problem = vmat.build_problem(case, self.settings.voxels, self.settings.seed)
            plan = sequence(0.5 * problem.open_field * problem.scale_mu, case.beamlets)
            plan = project_to_limits(plan, case.beam_setup)
            return vmat.PlanResult(plan.fluence_mu(case.beam_setup), plan, vmat.Trace())

    session = Session(opened(), "half_open", voxels=500)
    session.wait()
    before = session.plan(1)
    assert not session.can_draw and sum(before.violations.values()) == 0
    session.change(wishes={"Rectum": 2.0})
    session.wait()
    assert session.plan(2).measured.objective < before.measured.objective
    session.close()
