"""Weights in the package: small, explained, and still doing what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_vmat.commands.optimizer_race import as_table, race, settings, summary
from lightning_vmat.commands.plan import find_planner
from lightning_vmat.data.case_files import write_case
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.packed import read_pack
from lightning_vmat.data.phantom import make_phantom
from lightning_vmat.data.plan_files import write_plan
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.recipes.card import CHECKED_CASES, case_figures
from lightning_vmat.recipes.loading import load_recipe
from lightning_vmat.recipes.planning import learned_optimizer
from lightning_vmat.recipes.weights import SHIPPED, shipped_weights

FAMILY = ("generator", "learned", "regression", "teacher")
MARGIN = 0.02  # of a card's figures: other processors round otherwise


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The cases of the cards."""
    root, pack = tmp_path_factory.mktemp("cards"), read_pack("prostate_base")
    checked = pack.split["validation"][:CHECKED_CASES]
    for source in pack.sources:
        if source.name in checked:
            loaded = source.load()
            write_case(loaded.case, root / source.name)
            assert loaded.plan is not None
            write_plan(loaded.plan, root / source.name / "plan.safetensors", loaded.plan_metadata)
    return Cohort(root, {"train": [], "validation": checked, "test": []})


def test_the_family_is_complete_and_small() -> None:
    assert set(shipped_weights()) == {f"{SHIPPED}/{name}" for name in FAMILY}
    sizes = [file.stat().st_size for folder in shipped_weights().values() for file in folder.iterdir()]
    assert sum(sizes) < 10e6


@pytest.mark.parametrize("name", FAMILY)
def test_weights_do_what_their_card_says(name: str, cohort: Cohort) -> None:
    folder = shipped_weights()[f"{SHIPPED}/{name}"]
    card, config = (yaml.safe_load((folder / file).read_text()) for file in ("card.yaml", "config.yaml"))
    if name == "learned":
        assert config["model"]["init_args"]["generator"] == f"{SHIPPED}/generator"
    found = case_figures(load_recipe(folder), config["data"], cohort)
    assert set(found) == set(card["figures"])
    for case_id, figures in card["figures"].items():
        assert found[case_id] == pytest.approx(figures, rel=MARGIN), case_id


def test_a_phantom_is_planned_without_naming_a_run(cohort: Cohort) -> None:
    case = make_phantom(199, "base")
    result = find_planner("generator", None, voxels=3000, seed=0, progress=False, polish=3).plan(case)
    assert result.plan is not None and result.wanted_mu is not None
    assert not any(machine_violations(result.plan, case.control_points, case.machine).values())


def test_a_case_without_the_organs_that_the_weights_know_is_named() -> None:
    case = make_phantom(0, "tiny")
    bare = case.with_settings(structures={name: case.structures[name] for name in ("Body", "PTV")})
    planner = find_planner("regression", None, voxels=300, seed=0, progress=False)
    with pytest.raises(ValueError, match="phantom_0000: none of Rectum"):
        planner.start(bare, build_problem(case, 300))  # type: ignore[attr-defined]


def test_the_race_counts_what_the_others_need() -> None:
    case = make_phantom(42, "tiny")
    optimizer = learned_optimizer(Path(SHIPPED, "learned"))
    rows = []
    for name in ("as trained", "partial arc of 240 deg", "organ weights x 4", "leaves of 10 mm"):
        setting = settings(None)[name]
        changed = setting.change(case)
        found = race(changed, setting.problem(changed, 500), None, optimizer, evaluations=3, most=12)
        rows += [{"setting": name, "case": case.case_id, **row} for row in found]
    lines = summary(rows)
    learned = [line for line in lines if line["optimizer"] == "learned"]
    assert len(learned) == 4 and all(line["evaluations to match learned from open field"] <= 3 for line in learned)
    assert all(line["over_learned"] == 1 for line in learned)
    assert len({line["objective"] for line in learned}) == 4
    adam = next(row for row in rows if row["optimizer"] == "adam")
    needed = adam["evaluations to match learned from open field"]
    assert needed is None or 0 <= needed <= 12
    assert len(as_table(lines).splitlines()) == 2 + 4 * 5
