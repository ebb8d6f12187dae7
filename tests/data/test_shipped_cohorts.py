"""Cohorts in the package: as many good plans as training needs, for the phantoms that this version makes."""

from __future__ import annotations

import pytest

from lightning_vmat.data.packed import Pack, read_pack, shipped_cohorts
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.evaluation import body_objective


@pytest.fixture(params=shipped_cohorts())
def pack(request: pytest.FixtureRequest) -> Pack:
    return read_pack(request.param)


def test_the_cohort_is_there_and_learns_from_no_held_out_phantom() -> None:
    assert shipped_cohorts() == ["prostate_wished"]
    pack = read_pack("prostate_wished")
    assert len(pack.sources) == 640 and len(pack.split["train"]) >= 500
    held_out = {f"phantom_{seed:04d}" for seed in range(160, 200)}
    assert set(pack.split["test"]) == held_out


def test_a_few_megabytes(pack: Pack) -> None:
    assert pack.path.stat().st_size <= 8e6


def test_every_plan_keeps_the_limits_and_nine_in_ten_without_wishes_meet_all_goals(pack: Pack) -> None:
    case = pack.sources[0].load().case
    for source in pack.sources:
        plan = source.plan(case.beam_setup)
        assert not any(machine_violations(plan, case.beam_setup).values()), source.name
    met = [made["goals_met"] == made["goals"] for made in pack.plans.values() if not made.get("wishes")]
    assert sum(met) >= 0.9 * len(met)


def test_no_case_serves_two_purposes(pack: Pack) -> None:
    names = [name for part in pack.split.values() for name in part]
    assert sorted(names) == sorted(source.name for source in pack.sources)


def test_the_last_case_is_made_anew_and_its_plan_is_as_good_as_noted(pack: Pack) -> None:
    loaded = pack.sources[-1].load()  # compares the bits of the phantom
    assert loaded.plan is not None and loaded.plan_metadata is not None
    fluence_mu = loaded.plan.fluence_mu(loaded.case.beam_setup)
    # noted of nodes of 0.25 mm, here of 1.25 mm
    assert float(body_objective(loaded.case, fluence_mu)) == pytest.approx(loaded.plan_metadata["objective"], rel=0.05)
