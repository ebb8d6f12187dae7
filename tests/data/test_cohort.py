from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from shared_data import OPEN_KBP

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import CASE_VERSION, read_case
from lightning_vmat.cases.phantom.phantom import PHANTOM_VERSION, make_phantom
from lightning_vmat.cases.plan_files import read_plan, write_plan
from lightning_vmat.commands.prepare import open_kbp, phantom, sheet
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.cohort import Cohort, read_cohort, split_in_order
from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.problem import build_problem

STRUCTURES = ["Rectum", "Bladder"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny phantoms, each with a plan of open fields."""
    root = tmp_path_factory.mktemp("cohorts") / "tiny"
    phantom(out=root, count=6, size="tiny", jobs=1)
    for folder in sorted(root.glob("phantom_*")):
        left = torch.full((12, 8), -20.0)
        write_plan(Plan(left, -left, torch.full((12,), 30.0)), folder / "plan.safetensors")
    return root


def datamodule(cohort: Path, with_problems: bool = False, batch_size: int = 2) -> CohortDataModule:
    return CohortDataModule(cohort, STRUCTURES, batch_size=batch_size, voxels=400, with_problems=with_problems)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 24])
def test_split_takes_every_case_once(count: int) -> None:
    names = [str(number) for number in range(count)]
    split = split_in_order(names)
    assert split["train"] + split["validation"] + split["test"] == names
    assert split["train"]
    if count > 2:
        assert split["validation"] and split["test"]


def test_cohort_says_how_it_was_made(cohort: Path) -> None:
    manifest = yaml.safe_load((cohort / "manifest.yaml").read_text())
    assert set(manifest.pop("protocol_versions")) == {"prostate_60gy_20fx"}
    assert manifest == {
        "source": "phantom",
        "size": "tiny",
        "protocol": "prostate_60gy_20fx",
        "seeds": [0, 5],
        "jaw_margin_mm": None,
        "wishes": None,
        "validation": ["phantom_0004"],
        "test": ["phantom_0005"],
        "phantom_version": PHANTOM_VERSION,
        "planner": None,
        "package_version": __version__,
        "case_version": CASE_VERSION,
        "cases": {f"phantom_{number:04d}": {} for number in range(6)},
    }
    assert [folder.name for folder in read_cohort(cohort).folders("test")] == ["phantom_0005"]
    assert torch.equal(read_case(cohort / "phantom_0003").hu, make_phantom(3, "tiny").hu)


def test_finished_cases_are_kept(cohort: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*.nii.gz")}
    phantom(out=cohort, count=6, size="tiny", jobs=1)
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*.nii.gz")} == before


def test_other_settings_need_another_folder(cohort: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.yaml: made with size tiny, expected demo"):
        phantom(out=cohort, count=6, size="demo", jobs=1)


def test_shards_together_make_the_cohort(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        phantom(out=tmp_path, count=3, size="tiny", jobs=1, shard=f"{number}/2")
        made.append(sorted(folder.name for folder in tmp_path.glob("phantom_*")))
    assert made == [["phantom_0000", "phantom_0002"], ["phantom_0000", "phantom_0001", "phantom_0002"]]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_bad_shard_is_named(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ValueError, match=f"shard '{shard}': expected i/n"):
        phantom(out=tmp_path / "out", count=2, size="tiny", shard=shard)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["package_version", "case_version", "phantom_version", "protocol_versions"])
def test_versions_do_not_mix(tmp_path: Path, key: str) -> None:
    phantom(out=tmp_path, count=1, size="tiny", jobs=1)
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({**manifest, key: "0.0.1"}))
    with pytest.raises(
        ValueError, match=rf"manifest\.yaml: made with {key} 0\.0\.1, expected .*; choose another folder"
    ):
        phantom(out=tmp_path, count=1, size="tiny", jobs=1)


def test_plans_of_other_settings_do_not_mix(tmp_path: Path) -> None:
    phantom(out=tmp_path, count=1, size="tiny", jobs=1)
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "planner": {"rounds": 3}}))
    with pytest.raises(ValueError, match=r"made with planner \{'rounds': 3\}, expected \{'planner': 'reference'"):
        phantom(out=tmp_path, count=1, size="tiny", jobs=1, plan=True)


def test_reference_plan_is_added_to_a_case_that_lacks_one(tmp_path: Path) -> None:
    phantom(out=tmp_path, count=1, size="tiny", jobs=1)
    phantom(out=tmp_path, count=1, size="tiny", jobs=1, plan=True)
    case = read_case(tmp_path / "phantom_0000")
    plan, metadata = read_plan(tmp_path / "phantom_0000/plan.safetensors")
    assert not any(machine_violations(plan, case.beam_setup).values())
    assert metadata["planner"] == "reference" and metadata["dose_evaluations"] > 0
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    quality = manifest["cases"]["phantom_0000"]
    assert quality["goals"] == 13 and quality["goals_met"] + len(quality["unmet"]) == 13 and quality["violations"] == 0
    assert manifest["planner"]["voxels"] == 1000
    assert metadata["scale_mu"] == build_problem(case, 1000).scale_mu


@pytest.mark.slow
def test_several_processes_make_the_same_cases(tmp_path: Path) -> None:
    phantom(out=tmp_path, count=2, size="tiny", jobs=2)
    assert torch.equal(read_case(tmp_path / "phantom_0001").hu, make_phantom(1, "tiny").hu)


def test_broken_patient_leaves_no_case_behind(tmp_path: Path) -> None:
    (tmp_path / "data/test-pats/pt_9").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"pt_9/voxel_dimensions\.csv: no such file"):
        open_kbp(tmp_path / "data", out=tmp_path / "out", split="test", jobs=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not OPEN_KBP.is_dir(), reason=f"no OpenKBP patients in {OPEN_KBP}")
def test_cohort_that_is_not_finished_is_none(tmp_path: Path) -> None:
    source = tmp_path / "data/test-pats"
    shutil.copytree(OPEN_KBP / "test-pats/pt_242", source / "pt_1")
    (source / "pt_9").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"pt_9/voxel_dimensions\.csv: no such file"):
        open_kbp(tmp_path / "data", out=tmp_path / "out", split="test", size="tiny", jobs=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.yaml", "pt_1"]
    with pytest.raises(ValueError, match=r"split\.yaml: no such file.* run `vmat prepare` again to finish it"):
        read_cohort(tmp_path / "out")


def test_batches_bring_condition_and_normalised_fluence(cohort: Path) -> None:
    module = datamodule(cohort)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert sorted(name for batch in batches for name in batch.case_ids) == [f"phantom_{n:04d}" for n in range(4)]
    for batch in batches:
        assert batch.condition.shape == (2, 4, 12, 8, 8) and batch.problems == ()
        assert batch.fluence is not None
        assert (batch.fluence * batch.scale_mu[:, None, None, None]).amax() == pytest.approx(30.0)


def test_problem_of_a_batch_is_the_case_s_own(cohort: Path) -> None:
    module = datamodule(cohort, with_problems=True)
    module.setup("test")
    (batch,) = module.test_dataloader()
    (problem,) = batch.problems
    assert problem.name == batch.case_ids[0] == "phantom_0005"
    assert problem.scale_mu == pytest.approx(float(batch.scale_mu[0]))
    assert len(problem.dose(problem.open_field)) == 400
    assert batch.to("cpu").problems[0].name == problem.name


def test_each_case_is_mirrored_in_one_of_two_epochs(cohort: Path) -> None:
    module = datamodule(cohort, with_problems=True)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    first, second = batch.mirrored_in(0), batch.mirrored_in(1)
    for i, turned in enumerate(first.mirrored):
        assert second.mirrored[i] != turned
        image, same = (first, second) if turned else (second, first)
        assert torch.equal(same.condition[i], batch.condition[i])
        assert torch.equal(image.condition[i], batch.condition[i].flip(-3, -1))
        assert torch.equal(image.reference[i], batch.reference[i].flip(-3, -1))
    for epoch in (first, second):  # problems see the maps as they were
        assert torch.equal(epoch.objective(epoch.reference), batch.objective(batch.reference))


def test_cohort_without_plans_has_no_fluence(tmp_path: Path) -> None:
    phantom(out=tmp_path, count=2, size="tiny", jobs=1)
    module = datamodule(tmp_path)
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    assert batch.fluence is None


def test_plan_of_another_case_is_refused(cohort: Path, tmp_path: Path) -> None:
    phantom(out=tmp_path, count=2, size="tiny", jobs=1)
    left = torch.zeros(3, 8)
    write_plan(Plan(left, left + 1, torch.ones(3)), tmp_path / "phantom_0001/plan.safetensors")
    with pytest.raises(ValueError, match=re.escape("plan.safetensors: leaves (3, 8), expected (12, 8)")):
        datamodule(tmp_path).setup("test")


def test_maps_of_different_shapes_do_not_batch(cohort: Path) -> None:
    module = datamodule(cohort)
    module.setup("validate")
    item = module.datasets["validation"][0]
    other = type(item)(**{**vars(item), "case_id": "wide", "condition": item.condition[..., :4], "fluence": None})
    with pytest.raises(ValueError, match=r"phantom_0004 and wide .* expected batch_size 1"):
        PlanBatch.collate([item, other])


def test_batch_checks_its_shapes() -> None:
    condition = torch.zeros(1, 2, 3, 4, 5)
    refused = pytest.raises((ValueError, TypeError))  # the annotations, where tests check them, say it first
    with refused:
        PlanBatch(("a",), (Path("a"),), condition, torch.zeros(1, 3, 4, 6), torch.ones(1))
    with refused:
        PlanBatch(("a", "b"), (Path("a"), Path("b")), condition, None, torch.ones(2))
    with pytest.raises(ValueError, match="2 folders"):
        PlanBatch(("a",), (Path("a"), Path("b")), condition, None, torch.ones(1))


def test_what_is_not_a_cohort_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split\.yaml: no such file, expected a cohort"):
        datamodule(tmp_path).setup("fit")
    (tmp_path / "split.yaml").write_text("train: [a]\nvalidation: []\ntest: []\n")
    with pytest.raises(ValueError, match=r"a: no such case"):
        datamodule(tmp_path).setup("fit")
    with pytest.raises(ValueError, match="no cases for test"):
        datamodule(tmp_path).setup("test")
    (tmp_path / "split.yaml").write_text("train: [a]\ntest: []\n")
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\]"):
        read_cohort(tmp_path)
    (tmp_path / "split.yaml").write_text("train: 3\n")
    with pytest.raises(ValueError, match="a list of case names"):
        read_cohort(tmp_path)
    with pytest.raises(ValueError, match="a listed twice"):
        Cohort(tmp_path, {"train": ["a"], "validation": ["a"], "test": []})


def test_settings_that_make_no_sense_are_refused(cohort: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 0"):
        datamodule(cohort, batch_size=0)


def test_sheet_shows_a_cohort(cohort: Path, tmp_path: Path) -> None:
    sheet(cohort, out=tmp_path / "few.png", count=3)
    sheet(cohort, out=tmp_path / "all.png")
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "all.png") as every:
        assert few.width == every.width and 1.4 < every.height / few.height < 1.6  # two and three rows
        assert np.asarray(few.convert("L")).std() > 20
    with pytest.raises(ValueError, match=r"count 0, .*expected at least 1"):
        sheet(cohort, out=tmp_path / "x.png", count=0)
    with pytest.raises(ValueError, match=r"x\.txt: expected .* \.png"):
        sheet(cohort, out=tmp_path / "x.txt")
