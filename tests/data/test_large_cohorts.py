"""A cohort larger than memory gives the batches of one that fits, to the bit, and so do rays from disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from lightning_vmat.cases.case_files import CASE_FILE, read_case, read_fluence_shape
from lightning_vmat.cases.plan_files import write_plan
from lightning_vmat.commands.arguments import clear_message
from lightning_vmat.commands.prepare import phantom
from lightning_vmat.data import transforms
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.cached_items import items_that_fit, measure_item
from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.data.ray_cache import RayCache, content_checksum
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.plan.aperture import Plan

GB = 1e-9


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny phantoms with plans of open fields; two of them have two arcs."""
    root = tmp_path_factory.mktemp("cohorts") / "tiny"
    phantom(out=root, count=6, size="tiny", jobs=1)
    for number, folder in enumerate(sorted(root.glob("phantom_*"))):
        arcs = 2 if number in (1, 3) else 1
        settings = yaml.safe_load((folder / CASE_FILE).read_text())
        (folder / CASE_FILE).write_text(yaml.safe_dump({**settings, "arcs": settings["arcs"] * arcs}))
        left = torch.full((12 * arcs, 8), -20.0)
        write_plan(Plan(left, -left, torch.full((12 * arcs,), 30.0)), folder / "plan.safetensors")
    return root


def module_of(
    cohort: Path, *, with_problems: bool = True, memory_gb: float = 8.0, num_workers: int = 0, cache: Path | None = None
) -> CohortDataModule:
    return CohortDataModule(
        cohort,
        ["Rectum", "Bladder"],
        batch_size=2,
        voxels=300,
        with_problems=with_problems,
        wishes=True,
        memory_gb=memory_gb,
        num_workers=num_workers,
        cache_dir=cache,
    )


def batches_of(module: CohortDataModule) -> list[PlanBatch]:
    module.setup("fit")
    return [*module.train_dataloader(), *module.val_dataloader()]


def tensors_of(batch: PlanBatch) -> Iterator[Tensor]:
    yield from (batch.condition, batch.reference, batch.scale_mu)
    for problem in batch.problems:
        yield from problem.projection.operator.tensors()
        dose_gy = problem.dose(problem.open_field)
        yield from (dose_gy, problem.objective(dose_gy), problem.objective.gradient(dose_gy))


def assert_same(batches: list[PlanBatch], expected: list[PlanBatch]) -> None:
    assert [batch.case_ids for batch in batches] == [batch.case_ids for batch in expected]
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(batch), tensors_of(other), strict=True))


@pytest.mark.parametrize("with_problems", [False, True])
def test_batches_do_not_depend_on_the_memory_or_on_the_cache(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, with_problems: bool
) -> None:
    expected = batches_of(module_of(cohort, with_problems=with_problems))
    size, _ = measure_item(module_of(cohort, with_problems=with_problems).transform, cohort / "phantom_0000")
    with caplog.at_level(logging.INFO):
        assert_same(batches_of(module_of(cohort, with_problems=with_problems, memory_gb=0)), expected)
        some = module_of(cohort, with_problems=with_problems, memory_gb=3.5 * size * GB)
        assert_same(batches_of(some), expected)
    assert 0 < some.datasets["train"].cache_num < 4
    assert "train: 0 of 4 cases fit in data.memory_gb; the others are prepared for each batch" in caplog.text
    for _ in range(2):
        assert_same(
            batches_of(module_of(cohort, with_problems=with_problems, memory_gb=0, cache=tmp_path / "rays")), expected
        )


@pytest.mark.filterwarnings("ignore")  # of forks and threads
def test_batches_do_not_depend_on_loading_processes(cohort: Path) -> None:
    assert_same(batches_of(module_of(cohort, memory_gb=0, num_workers=2)), batches_of(module_of(cohort)))


def test_kept_rays_are_not_traced_again(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches_of(module_of(cohort, cache=tmp_path / "rays"))
    kept = sorted((tmp_path / "rays").iterdir())
    assert len(kept) == 2 * 5  # condition and depths of the training and validation cases, no drafts

    def refuse(*_: object) -> None:
        raise AssertionError("traced again")

    for name in ("condition_channels", "radiological_depth"):
        monkeypatch.setattr(transforms, name, refuse)
    assert_same(batches_of(module_of(cohort, cache=tmp_path / "rays")), expected)


def test_rays_of_another_case_or_setting_are_traced(cohort: Path, tmp_path: Path) -> None:
    """Rays follow every file of the case that they come from, the structures in their order, and the voxel sample."""
    folder = tmp_path / "case"
    shutil.copytree(cohort / "phantom_0000", folder)
    before = content_checksum(folder)
    for name in ("ct.nii.gz", "structures/Rectum.nii.gz", "case.yaml"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b"\n")
        assert content_checksum(folder) != before, name
        (folder / name).write_bytes(content)
    assert content_checksum(folder) == before

    rays = RayCache(tmp_path / "rays")
    chains = [(["Rectum", "Bladder"], 300, 0), (["Bladder", "Rectum"], 300, 0), (["Rectum", "Bladder"], 300, 1)]
    for structures, voxels, seed in [*chains, *chains]:
        channels, record = ChannelSettings(structures), {"case_dir": folder}
        cached = transforms.item_transform(channels, voxels, True, seed, rays=rays)(record)
        traced = transforms.item_transform(channels, voxels, True, seed)(record)
        assert torch.equal(cached.condition, traced.condition) and cached.scale_mu == traced.scale_mu
        pairs = zip(*(item.problem.projection.operator.tensors() for item in (cached, traced)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("broken", [b"", b"not rays", "half"])
def test_broken_rays_are_traced_again(tmp_path: Path, broken: bytes | str) -> None:
    rays, whole = RayCache(tmp_path), torch.arange(6.0).reshape(2, 3)
    assert torch.equal(rays.get("case", "kind", lambda: whole), whole)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if isinstance(broken, str) else broken)
    assert torch.equal(rays.get("case", "kind", lambda: whole), whole)
    assert path.read_bytes() == content


def test_shape_is_read_without_the_volumes(cohort: Path, tmp_path: Path) -> None:
    for folder in sorted(cohort.glob("phantom_*")):
        assert read_fluence_shape(folder) == read_case(folder).fluence_shape
    shutil.copy(cohort / "phantom_0001" / CASE_FILE, tmp_path)
    assert read_fluence_shape(tmp_path) == (24, 8, 8)
    text = (tmp_path / CASE_FILE).read_text()
    (tmp_path / CASE_FILE).write_text(text.replace("control_points: 12", "control_points: 0", 1))
    with pytest.raises(ValueError, match=r"case\.yaml: arc with 0 control points"):
        read_fluence_shape(tmp_path)


def test_first_items_are_kept_until_the_memory_is_used() -> None:
    small, large = (1, 1, 1), (2, 1, 1)
    sizes = {small: 10, large: 25}
    fit = [items_that_fit([small, large, small], sizes, budget) for budget in (0, 9, 10, 34, 35, 44, 45, 1e9)]
    assert fit == [0, 0, 1, 1, 2, 2, 3, 3]
    assert items_that_fit([], sizes, 0) == 0


@pytest.mark.parametrize("memory_gb", [-1.0, float("nan"), float("inf")])
def test_memory_that_makes_no_sense_is_refused(cohort: Path, memory_gb: float) -> None:
    with pytest.raises(ValueError, match=r"memory_gb .*: expected 0 or more GB"):
        module_of(cohort, memory_gb=memory_gb)


@pytest.mark.filterwarnings("ignore")  # of forks and threads
@pytest.mark.parametrize("num_workers", [0, 1])
def test_case_that_breaks_after_the_start_is_named_in_one_line(cohort: Path, tmp_path: Path, num_workers: int) -> None:
    shutil.copytree(cohort, tmp_path / "cohort")
    module = module_of(tmp_path / "cohort", memory_gb=0, num_workers=num_workers)
    module.setup("fit")
    for path in (tmp_path / "cohort").glob("*/ct.nii.gz"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError) as caught:
        list(module.train_dataloader())
    message = clear_message(caught.value)
    assert message.startswith(f"{tmp_path}/cohort/phantom_") and "ct.nii.gz: not a readable NIfTI volume" in message
    assert "Traceback" not in message
