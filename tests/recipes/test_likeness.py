"""Planners of trained runs say when a case is unlike those of the training, and can leave it to another planner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from shared_data import OPEN_KBP

from lightning_vmat.api.planners import planner
from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.open_kbp import read_open_kbp
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.recipes.likeness import SeenCases

RUN = Path("prostate_wished", "regression")
VOXELS, EVALUATIONS = 2000, 5


def strange(case: Case) -> Case:
    """With the bladder behind the prostate, the rectum before it, and both femoral heads on one side."""
    names = {"Rectum": "Bladder", "Bladder": "Rectum", "FemoralHeadLeft": "FemoralHeadRight"}
    exchanged = {name: case.structures[other] for name, other in names.items()}
    return case.with_settings(structures=case.structures | exchanged)


def test_distance_grows_with_what_the_training_cases_do_not_show() -> None:
    """Two features, the second twice the first: a case beside that line is unlike, one on it is not."""
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(300, 1, generator=generator)
    features = torch.cat((line, 2 * line + 0.1 * torch.randn(300, 1, generator=generator)), dim=1)
    seen = SeenCases(features[:200], features[200:])

    def unlikeness(mean: float, spread: float) -> float:
        """Of a condition of one channel with this mean and standard deviation."""
        values = torch.tensor([-1.0, 1.0]).repeat(500)
        values = mean + spread * values / values.std()
        return seen.unlikeness(values.view(1, 10, 10, 10))

    assert unlikeness(0.5, 1.0) < 0.5
    assert unlikeness(1.0, 0.5) > 1.5 * unlikeness(0.5, 1.0)
    assert unlikeness(5.0, 10.0) > 1
    many = SeenCases(features, features).unlikeness
    shares = [
        many(torch.tensor([-1.0, 1.0]).repeat(500).view(1, 10, 10, 10) * spread.item() + mean.item()) > 1
        for mean, spread in features.abs()
    ]
    assert sum(shares) / len(shares) < 0.05


def test_a_planner_says_when_a_case_is_unlike_and_leaves_it_to_another() -> None:
    like = make_phantom(199, "base")
    careful = planner("regression", when_unlike="conventional", voxels=VOXELS, evaluations=EVALUATIONS)
    result = careful.plan(like)
    assert result.unlikeness is not None and 0.2 < result.unlikeness < 1
    assert result.planner == "regression"
    unlike = strange(like)
    result = careful.plan(unlike)
    assert result.unlikeness is not None and result.unlikeness > 1
    assert result.planner == "conventional"
    alone = planner("conventional", voxels=VOXELS, evaluations=EVALUATIONS).plan(unlike)
    assert result.plan is not None and alone.plan is not None
    torch.testing.assert_close(result.plan.mu, alone.plan.mu)
    spent = result.trace.dose_evaluations
    assert spent > alone.trace.dose_evaluations  # the condition of the network is paid for too


@pytest.mark.skipif(not OPEN_KBP.is_dir(), reason=f"no OpenKBP patients in {OPEN_KBP}, expected VMAT_SHARED_DATA")
def test_head_and_neck_is_unlike_prostate() -> None:
    case, _ = read_open_kbp(OPEN_KBP / "test-pats/pt_242", "demo")
    result = planner("regression", run=RUN, when_unlike="conventional", voxels=VOXELS, evaluations=EVALUATIONS).plan(
        case
    )
    assert result.unlikeness is not None and result.unlikeness > 1.5
    assert result.planner == "conventional"


def test_plan_prints_that_a_case_is_unlike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(strange(with_jaws(make_phantom(199, "base"), 8.0)), tmp_path / "case")
    options = ["--planner", "learned", "--voxels", "300", "--evaluations", "5", "--when_unlike", "conventional"]
    assert main(["plan", str(tmp_path / "case"), "--out", str(tmp_path / "plan"), *options]) == 0
    measured = json.loads((tmp_path / "plan" / "metrics.json").read_text())
    assert measured["unlikeness"] > 1 and measured["planner"] == "conventional"
    assert "unlike the cases of the training" in capsys.readouterr().out
    assert "UNLIKE the cases of the training" in (tmp_path / "plan" / "report.html").read_text()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="when_unlike 'learned': expected reference or conventional"):
        planner("generator", when_unlike="learned")
    with pytest.raises(ValueError, match="when_unlike reference: planner conventional does not take one"):
        planner("conventional", when_unlike="reference")
