"""Protocol files and clinical goals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.objectives.goal import Goal
from lightning_vmat.objectives.goals import evaluate_goals
from lightning_vmat.objectives.protocol import load_protocol

SHIPPED = ("prostate_60gy_20fx", "prostate_78gy_39fx", "head_and_neck_70gy_35fx")
GOOD = """
prescription_gy: {PTV: 60.0}
fractions: 20
objectives:
  - {structure: PTV, type: squared_underdose, limit_fraction: 1.0, weight: 50.0}
  - {structure: Rectum, type: max_dvh, limit_gy: 45.0, volume_fraction: 0.35, weight: 1.0}
goals:
  - {structure: PTV, measure: D99, at_least: 0.9, of_prescription: true}
  - {structure: Rectum, measure: V54gy, at_most: 0.15}
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_protocols_load(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.goals
    targets = {line.structure for line in protocol.objectives if line.structure.startswith("PTV")}
    assert targets == set(protocol.prescription_gy)


def test_a_file_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    protocol = load_protocol(path)
    assert protocol.name == "mine"
    assert [line.name for line in protocol.objectives] == ["PTV.squared_underdose", "Rectum.max_dvh"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("limit_gy: 45.0", "limt_gy: 45.0", "objectives[1]: unknown key 'limt_gy'"),
        ("limit_gy: 45.0", "limit_gy: .nan", "objectives[1].limit_gy: got nan"),
        ("limit_gy: 45.0", "limit_gy: '45'", "objectives[1].limit_gy: got '45'"),
        ("limit_gy: 45.0", "limit_gy: 45.0, limit_fraction: 0.7", "objectives[1]: expected exactly one of limit_gy"),
        (", volume_fraction: 0.35", "", "objectives[1]: volume_fraction missing"),
        ("volume_fraction: 0.35", "volume_fraction: 35", "objectives[1]: volume_fraction is 35"),
        ("max_dvh", "dvh_max", "objectives[1].type: got 'dvh_max'"),
        ("max_dvh", "[max_dvh]", "objectives[1].type: got ['max_dvh'], expected one of squared_underdose"),
        ("max_dvh", "{max_dvh: 1}", "objectives[1].type: got {'max_dvh': 1}, expected one of squared_underdose"),
        ("weight: 1.0", "weight: -1.0", "objectives[1].weight: got -1.0"),
        ("weight: 1.0", "weight: 1.0, outside: PTVV", "objectives[1].outside: got ['PTVV']"),
        ("weight: 1.0", "weight: 1.0, optional: maybe", "objectives[1].optional: got 'maybe'"),
        ("structure: Rectum, type", "type", "objectives[1].structure: got None"),
        ("at_least: 0.9", "at_least: 0.9, at_most: 1.0", "goals[0]: goal PTV D99: expected exactly one"),
        ("at_most: 0.15", "at_most: 15", "goals[1]: goal Rectum V54gy: limit must be a fraction"),
        ("V54gy", "V54", "goals[1]: goal Rectum V54: measure must be like"),
        ("D99", "D199", "goals[0]: goal PTV D199: measure must be like"),
        ("fractions: 20", "fractions: 20.5", "fractions: got 20.5"),
        ("{PTV: 60.0}", "{PTV: -60.0}", "prescription_gy.PTV: got -60.0"),
        ("{PTV: 60.0}", "[60.0]", "prescription_gy: expected target names"),
        ("goals:", "golas:", "unknown key 'golas'"),
        ("goals:", "goals: [", "while parsing"),
        ("objectives:", "objectives: []\ngoals: [", "while parsing"),
    ],
)
def test_a_bad_file_gets_one_line_naming_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_protocol(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_names_and_missing_files_are_refused(tmp_path: Path) -> None:
    line = "  - {structure: PTV, type: squared_underdose, limit_fraction: 1.0, weight: 50.0}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(line, line + line))
    with pytest.raises(ValueError, match=r"objectives\[1\].name: 'PTV.squared_underdose' is taken"):
        load_protocol(path)
    with pytest.raises(ValueError, match="neither a shipped protocol nor a YAML file"):
        load_protocol("prostate_99gy")


def histograms(rectum_gy: float) -> dict[str, Dvh]:
    rectum = torch.zeros(100)
    rectum[:20] = rectum_gy
    return {"PTV": Dvh(torch.full((50,), 54.5), torch.ones(50)), "Rectum": Dvh(rectum, torch.full((100,), 0.5))}


def test_goals_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    protocol = load_protocol(path)
    coverage, rectum = evaluate_goals(histograms(55.0), protocol)
    assert (coverage.value, coverage.limit) == pytest.approx((54.5, 54.0))
    assert coverage.met and coverage.at_least
    assert (rectum.value, rectum.limit) == pytest.approx((0.2, 0.15))
    assert not rectum.met and not rectum.at_least
    assert evaluate_goals(histograms(53.9), protocol)[1].met
    assert not evaluate_goals(histograms(53.9), protocol, {"PTV": 61.0})[0].met
    with pytest.raises(ValueError, match=r"protocol mine: goal V54gy of structure 'Rectum'"):
        evaluate_goals({"PTV": histograms(50.0)["PTV"]}, protocol)


def test_measures_of_a_goal() -> None:
    dvh = Dvh(torch.arange(1.0, 101.0), torch.full((100,), 0.5))
    values = {"D95": 6.0, "D2": 99.0, "D1cc": 99.0, "D0.01cc": 100.0, "V51gy": 0.5, "mean": 50.5, "max": 100.0}
    for measure, value in values.items():
        assert Goal("PTV", measure, at_most=1.0).value(dvh) == pytest.approx(value), measure
