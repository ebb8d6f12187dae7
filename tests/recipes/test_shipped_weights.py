"""Weights in the package: small, explained, and still doing what their cards say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from shared_data import OPEN_KBP

from lightning_vmat.api.planners import planner
from lightning_vmat.benchmarks.optimizer_race import GENERATOR, OPEN_FIELD, as_table, count, race, settings, summary
from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.open_kbp import OpenKbpSource
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.plan_files import write_plan
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.packed import read_pack
from lightning_vmat.l2o.unroll import OptimizerTrace
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.card import CHECKED_CASES, case_figures
from lightning_vmat.recipes.loading import load_recipe
from lightning_vmat.recipes.trained import RECIPES, learned_optimizer, load_start
from lightning_vmat.recipes.weights import FAMILY, default_weights, shipped_weights

HEAD_AND_NECK = "head_and_neck_base"
MARGIN = 0.02  # of a card's figures: other processors round otherwise


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The cases of the cards, in a folder of the cohort's name."""
    root, pack = tmp_path_factory.mktemp("cards") / FAMILY, read_pack(FAMILY)
    checked = pack.split["validation"][:CHECKED_CASES]
    for source in pack.sources:
        if source.name in checked:
            loaded = source.load()
            write_case(loaded.case, root / source.name)
            assert loaded.plan is not None
            write_plan(loaded.plan, root / source.name / "plan.safetensors", loaded.plan_metadata)
    return Cohort(root, {"train": [], "validation": checked, "test": []})


def test_the_families_are_complete_and_small() -> None:
    others = {f"{HEAD_AND_NECK}/{recipe}" for recipe in ("regression", "learned")}
    assert set(shipped_weights()) == {str(default_weights(recipe)) for recipe in RECIPES} | others
    sizes = [file.stat().st_size for folder in shipped_weights().values() for file in folder.iterdir()]
    assert sum(sizes) < 10e6


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_do_what_their_card_says(recipe: str, cohort: Cohort) -> None:
    folder = shipped_weights()[f"{FAMILY}/{recipe}"]
    card, config = (yaml.safe_load((folder / file).read_text()) for file in ("card.yaml", "config.yaml"))
    assert card["cohort"] == FAMILY
    if recipe == "learned":
        assert config["model"]["init_args"]["generator"] == f"{FAMILY}/regression"
    found = case_figures(load_recipe(folder), config["data"], cohort)
    assert set(found) == set(card["figures"])
    for case_id, figures in card["figures"].items():
        assert found[case_id] == pytest.approx(figures, rel=MARGIN), case_id


@pytest.mark.skipif(not OPEN_KBP.is_dir(), reason=f"no OpenKBP patients in {OPEN_KBP}, expected VMAT_SHARED_DATA")
@pytest.mark.parametrize("recipe", ["regression", "learned"])
def test_head_and_neck_weights_do_what_their_card_says(recipe: str, tmp_path: Path) -> None:
    """On a real patient, which is not in the package: the objective that the card gives for its wishes."""
    folder = shipped_weights()[f"{HEAD_AND_NECK}/{recipe}"]
    card, config = (yaml.safe_load((folder / file).read_text()) for file in ("card.yaml", "config.yaml"))
    case_id, share = next(iter(card["figures"])), card["cohort_manifest"]["wishes"]["share"]
    case = OpenKbpSource(OPEN_KBP / "train-pats" / case_id, "base", share).load().case
    assert default_weights(recipe, case) == Path(HEAD_AND_NECK, recipe)
    assert load_start(folder).channels == load_start(Path(HEAD_AND_NECK, "regression")).channels
    write_case(case, tmp_path / case_id)
    cohort = Cohort(tmp_path, {"train": [], "validation": [case_id], "test": []})
    found = case_figures(load_recipe(folder), config["data"], cohort)
    assert found[case_id]["objective"] == pytest.approx(card["figures"][case_id]["objective"], rel=MARGIN)


def test_weights_are_validated_like_a_checkpoint(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{FAMILY}/regression"
    folder = shipped_weights()[name]
    (cohort.root / "split.yaml").write_text(yaml.safe_dump(cohort.split))
    options = ["--data.cohort", str(cohort.root), "--trainer.accelerator", "cpu"]
    options += ["--trainer.default_root_dir", str(tmp_path), "--trainer.num_sanity_val_steps", "0"]
    validate = ["validate", "--config", str(folder / "config.yaml"), *options, "--ckpt_path"]
    assert main([*validate, name]) == 0
    (path,) = tmp_path.glob("metrics/*/metrics.csv")
    row = dict(zip(*(line.split(",") for line in path.read_text().splitlines()), strict=True))
    figures = yaml.safe_load((folder / "card.yaml").read_text())["figures"].values()
    expected = sum(figure["fluence_error"] for figure in figures) / len(figures)
    assert float(row["val/fluence_error"]) == pytest.approx(expected, rel=MARGIN)
    narrow = ["--model.init_args.network.init_args.channels", "[32, 64]"]
    assert main([*validate, name, *narrow]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"vmat: error: weights {name}: another network than the configuration's"
    assert main([*validate, f"{FAMILY}/teacher"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"vmat: error: weights {FAMILY}/teacher: of a Teacher, expected a Regression as in the configuration"
    )


def test_a_phantom_is_planned_without_naming_a_run() -> None:
    case = make_phantom(199, "base")
    result = planner("generator", voxels=3000, evaluations=5, jaw_margin_mm=None).plan(case)
    assert result.plan is not None and result.wanted_mu is not None
    assert not any(machine_violations(result.plan, case.beam_setup).values())


def test_a_case_without_the_organs_that_the_weights_know_is_named() -> None:
    case = make_phantom(0, "tiny")
    bare = case.with_settings(structures={name: case.structures[name] for name in ("Body", "PTV")})
    start = load_start(Path(FAMILY, "regression"))
    with pytest.raises(ValueError, match="phantom_0000: none of Rectum"):
        start(CaseProblems(bare, 300))


def test_a_racer_is_counted_until_it_matches_each_goal() -> None:
    trace = OptimizerTrace(torch.zeros(1, 1, 1), torch.tensor([9.0, 5.0, 2.0]), torch.tensor([0.0, 0.1, 0.3]))
    row = count(GENERATOR, "adam", trace, 1, {GENERATOR: 5.0, OPEN_FIELD: 1.0})
    assert (row["objective"], row["seconds"]) == pytest.approx((5.0, 0.1))
    assert row[f"evaluations to match learned from {GENERATOR}"] == 1
    assert row[f"seconds to match learned from {GENERATOR}"] == pytest.approx(0.1)
    assert row[f"evaluations to match learned from {OPEN_FIELD}"] is None


def test_medians_of_a_race_count_given_up_cases_as_endless() -> None:
    def row(case: str, optimizer: str, objective: float, needed: int | None) -> dict[str, Any]:
        about = {"setting": "as trained", "case": case, "start": GENERATOR, "optimizer": optimizer, "seconds": 1.0}
        return {**about, "objective": objective, "evaluations to match learned from generator": needed}

    rows = [row(case, "learned", 10.0, 3) for case in "abc"]
    rows += [row("a", "adam", 20.0, 8), row("b", "adam", 30.0, None), row("c", "adam", 5.0, 2)]
    learned, adam = summary(rows)
    assert (learned["over_learned"], adam["over_learned"]) == (1.0, 2.0)
    assert adam["evaluations to match learned from generator"] == 8
    rows += [row("d", "learned", 10.0, 3), row("d", "adam", 40.0, None)]
    assert summary(rows)[1]["evaluations to match learned from generator"] is None


def test_hand_made_optimizers_go_on_until_they_match_the_better_start() -> None:
    """The open field as the generator and a bad map as the other start: all but the given up beat both goals."""
    problems = CaseProblems(make_phantom(42, "tiny"), 500)
    optimizer = learned_optimizer(Path(FAMILY, "learned"))
    rows = race(problems, lambda given: 0.1 * given.whole.open_field, optimizer, evaluations=2, most=60)
    columns = [f"evaluations to match learned from {name}" for name in (GENERATOR, OPEN_FIELD)]
    learned, others = (
        [row for row in rows if (row["optimizer"] == "learned") == is_learned] for is_learned in (True, False)
    )
    assert [row["start"] for row in learned] == [GENERATOR, OPEN_FIELD]
    assert all(0 < row[f"evaluations to match learned from {row['start']}"] <= 2 for row in learned)
    assert all(column in row for row in others for column in columns)
    lbfgs = [row for row in others if row["optimizer"] == "lbfgs"]
    assert len(lbfgs) == 2 and all(row[column] is not None for row in lbfgs for column in columns)


def test_the_race_is_run_under_changed_settings() -> None:
    case = make_phantom(42, "tiny")
    optimizer = learned_optimizer(Path(FAMILY, "learned"))
    rows = []
    for name in ("as trained", "partial arc of 240 deg", "organ weights x 4", "leaves of 10 mm"):
        setting = settings(None)[name]
        changed = setting.change(case)
        found = race(setting.problems(changed, 500), None, optimizer, evaluations=3, most=12)
        rows += [{"setting": name, "case": case.case_id, **row} for row in found]
    lines = summary(rows)
    assert len({line["objective"] for line in lines if line["optimizer"] == "learned"}) == 4
    assert len(as_table(lines).splitlines()) == 2 + 4 * 6
