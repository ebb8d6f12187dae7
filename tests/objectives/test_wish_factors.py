"""Wishes: which objectives they multiply, in planning and in judging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.objectives.wishes import known_wishes
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import all_voxels
from lightning_vmat.plan.wishes import PAIRS, WISHES, log_wishes
from lightning_vmat.planning.evaluation import body_objective_of_dose
from lightning_vmat.planning.problem import build_problem

PROTOCOLS = ("prostate_60gy_20fx", "prostate_78gy_39fx", "prostate_boost_67gy_20fx", "prostate_nodes_68gy_25fx")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_phantom(3, "tiny", "prostate_boost_67gy_20fx")


def terms(case: Case, dose_gy: torch.Tensor) -> dict[str, float]:
    objective = PlanObjective.from_case(case, all_voxels(case), load_protocol(case.protocol))
    return {name: float(value) for name, value in objective.terms(dose_gy).items()}


def dose(case: Case) -> torch.Tensor:
    """So high here and there that every objective is above zero."""
    torch.manual_seed(0)
    return torch.rand(len(case.body_index)) * 120


@pytest.mark.parametrize("name", WISHES)
def test_a_wish_multiplies_its_objectives_and_no_others(case: Case, name: str) -> None:
    dose_gy = dose(case)
    plain, wished = terms(case, dose_gy), terms(case.with_settings(wishes={name: 4.0}), dose_gy)
    grown = {term for term in plain if wished[term] == pytest.approx(4 * plain[term], rel=1e-5)}
    assert all(wished[term] == plain[term] > 0 for term in plain.keys() - grown)
    if name == "homogeneity":
        assert grown == {"PTV.squared_overdose", "PTVBoost.squared_overdose"}
    else:
        structures = PAIRS.get(name, (name,))
        assert grown == {term for term in plain if term.partition(".")[0] in structures}
    assert grown or name not in case.structures


def test_wishes_for_one_thing_multiply(case: Case) -> None:
    dose_gy = dose(case)
    plain = terms(case, dose_gy)
    wished = terms(case.with_settings(wishes={"FemoralHeads": 2.0, "FemoralHeadLeft": 3.0, "PTV": 0.5}), dose_gy)
    assert wished["FemoralHeadLeft.max"] == pytest.approx(6 * plain["FemoralHeadLeft.max"])
    assert wished["FemoralHeadRight.max"] == pytest.approx(2 * plain["FemoralHeadRight.max"])
    both = terms(case.with_settings(wishes={"PTV": 0.5, "homogeneity": 4.0}), dose_gy)
    assert both["PTV.squared_overdose"] == pytest.approx(2 * plain["PTV.squared_overdose"])
    assert both["PTV.squared_underdose"] == pytest.approx(plain["PTV.squared_underdose"] / 2)


def test_wishes_replace_each_other_without_rebuilding(case: Case) -> None:
    """An objective with other wishes is the one that is built with them, and shares its voxels."""
    protocol, wishes = load_protocol(case.protocol), {"Rectum": 3.0, "homogeneity": 0.5}
    first = PlanObjective.from_case(case.with_settings(wishes={"Bladder": 2.0}), all_voxels(case), protocol)
    changed = first.with_wishes(wishes, "test")
    built = PlanObjective.from_case(case.with_settings(wishes=wishes), all_voxels(case), protocol)
    assert [one.weight for one in changed.members] == [one.weight for one in built.members]
    assert all(new.voxels is old.voxels for new, old in zip(changed.members, first.members, strict=True))
    with pytest.raises(ValueError, match="test: wish for Thyroid"):
        first.with_wishes({"Thyroid": 2.0}, "test")


def test_planning_and_judging_mean_the_wished_objective(case: Case) -> None:
    wished = case.with_settings(wishes={"Rectum": 4.0, "homogeneity": 0.25})
    whole = build_problem(wished, voxels=10**6)
    x = whole.open_field
    dose_gy = whole.projection(x * whole.scale_mu)
    assert float(whole.value(x)) == pytest.approx(body_objective_of_dose(wished, dose_gy), rel=1e-4)
    assert body_objective_of_dose(wished, dose_gy) != pytest.approx(body_objective_of_dose(case, dose_gy), rel=1e-2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prostate_protocols_know_every_wish(protocol: str) -> None:
    assert set(WISHES) <= set(known_wishes(load_protocol(protocol)))


def test_an_unknown_name_lists_the_known_ones(case: Case) -> None:
    with pytest.raises(
        ValueError, match=r"phantom_0003: wish for Rektum: protocol .* has objectives for .*Rectum, homogeneity"
    ):
        build_problem(case.with_settings(wishes={"Rektum": 2.0}), voxels=300)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), 17.0, 0.05, True])
def test_a_factor_out_of_range_is_refused(case: Case, factor: float) -> None:
    with pytest.raises(ValueError, match=r"wish Rectum is .*, expected a factor from 0\.0625 to 16"):
        case.with_settings(wishes={"Rectum": factor})


def test_case_file_keeps_wishes_and_an_older_one_has_none(case: Case, tmp_path: Path) -> None:
    wishes = {"Rectum": 4.0, "homogeneity": 0.5}
    write_case(case.with_settings(wishes=wishes), tmp_path / "case")
    assert read_case(tmp_path / "case").wishes == wishes
    file = tmp_path / "case/case.yaml"
    settings = yaml.safe_load(file.read_text())
    for wrong in ({"Rectum": -1}, ["Rectum"], 3, {"Rectum": "much"}):
        file.write_text(yaml.safe_dump({**settings, "wishes": wrong}))
        with pytest.raises(ValueError, match=r"case\.yaml: case phantom_0003: wish"):
            read_case(tmp_path / "case")
    del settings["wishes"]
    file.write_text(yaml.safe_dump(settings))
    assert read_case(tmp_path / "case").wishes == {}


def test_log_wishes_have_a_fixed_order() -> None:
    assert log_wishes({}) == (0.0,) * len(WISHES)
    logs = log_wishes({"FemoralHeadLeft": 4.0, "homogeneity": 0.5, "Rectum": 2.0, "PTV": 8.0})
    assert logs == pytest.approx((0.6931, 0, 0.6931, 0, 0, 0, -0.6931), abs=1e-4)
