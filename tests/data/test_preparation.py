"""Cohorts are the same bit for bit however they came about: at once, killed and begun again, packed and unpacked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_vmat.cases.case_files import PLAN_FILE, read_case
from lightning_vmat.cases.plan_files import read_plan
from lightning_vmat.commands.prepare import pack, phantom, unpack
from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.data.packed import read_pack
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.plan.wishes import WISHES

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny phantoms with one, two and nested targets, and their reference plans, made at once."""
    root = tmp_path_factory.mktemp("planned") / "cohort"
    phantom(out=root, count=3, size="tiny", seed=3, protocol="mixed", plan=True, jobs=1)
    return root


@pytest.fixture(scope="module")
def file(cohort: Path) -> Path:
    path = cohort.parent / "three.safetensors"
    pack(cohort, out=path)
    return path


def test_killed_run_goes_on_to_the_same_cohort(cohort: Path, tmp_path: Path) -> None:
    """The main process alone is killed, between the first case and the last; its workers follow."""
    out = tmp_path / "cohort"
    options = "--count=3 --size=tiny --seed=3 --protocol=mixed --plan=true --jobs=2"
    command = [sys.executable, "-m", "lightning_vmat.cli", "prepare", "phantom", f"--out={out}", *options.split(" ")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 200
        while not list(out.glob("*/case.yaml")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    done = {path.parent.name for path in out.glob("phantom_*/case.yaml")}
    assert 1 <= len(done) < 3 and not (out / "split.yaml").exists()
    left = next(name for name in ("phantom_0003", "phantom_0004", "phantom_0005") if name not in done)
    (out / f".{left}.begun").mkdir()  # as a process that is killed while it writes leaves it
    time.sleep(2)  # the other processes end within half a second after their parent
    phantom(out=out, count=3, size="tiny", seed=3, protocol="mixed", plan=True, jobs=1)
    assert contents(out) == contents(cohort)


def test_shards_in_processes_make_the_same_cohort(cohort: Path, tmp_path: Path) -> None:
    for shard in ("2/2", "1/2"):
        assert not (tmp_path / "split.yaml").exists()
        phantom(out=tmp_path, count=3, size="tiny", seed=3, protocol="mixed", plan=True, jobs=2, shard=shard)
    assert contents(tmp_path) == contents(cohort)


def test_packed_cohort_comes_back_with_rounded_plans(cohort: Path, file: Path, tmp_path: Path) -> None:
    assert file.stat().st_size < 15_000
    for name in ("back", "again"):
        unpack(str(file), out=tmp_path / name, jobs=1)
    back, before = contents(tmp_path / "back"), contents(cohort)
    assert contents(tmp_path / "again") == back and back.keys() == before.keys()
    assert {name for name in back if back[name] != before[name]} == {name for name in back if "/plan." in name}
    for folder in sorted(cohort.glob("phantom_*")):
        case = read_case(folder)
        (plan, metadata), (rounded, its) = (
            read_plan(root / folder.name / PLAN_FILE) for root in (cohort, tmp_path / "back")
        )
        assert its == {**metadata, "rounded_to": {"leaf_tips_mm": 0.1, "mu_fraction": 0.001}}
        for bank in ("left_mm", "right_mm"):
            assert float((getattr(rounded, bank) - getattr(plan, bank)).abs().max()) <= 0.1
        assert float((rounded.mu / plan.mu - 1).abs().max()) <= 0.001
        assert not any(machine_violations(rounded, case.beam_setup).values())


def test_packed_cohort_keeps_wishes_and_jaws(tmp_path: Path) -> None:
    phantom(out=tmp_path / "wished", count=2, size="tiny", seed=3, wishes=1.0, jaw_margin_mm=8.0, plan=True, jobs=1)
    pack(tmp_path / "wished", out=tmp_path / "wished.safetensors")
    unpack(str(tmp_path / "wished.safetensors"), out=tmp_path / "back", jobs=1)
    back, before = contents(tmp_path / "back"), contents(tmp_path / "wished")
    assert back["phantom_0004/case.yaml"] == before["phantom_0004/case.yaml"]
    assert back["manifest.yaml"] == before["manifest.yaml"]
    assert len(read_case(tmp_path / "back/phantom_0004").wishes) == len(WISHES)
    pack_file = read_pack(tmp_path / "wished.safetensors")
    assert pack_file.manifest["test"] == pack_file.split["test"] == ["phantom_0004"]
    other = replace(pack_file, manifest={**pack_file.manifest, "jaw_margin_mm": 20.0})
    with pytest.raises(ValueError, match="phantom_0003 made here differs"):
        other.sources[0].load()


def test_parts_of_a_cohort_packed_one_after_the_other_make_the_whole(cohort: Path, file: Path, tmp_path: Path) -> None:
    joined = None
    for shard in ("2/2", "1/2"):
        part, packed = tmp_path / f"part{shard[0]}", tmp_path / f"{shard[0]}.safetensors"
        phantom(out=part, count=3, size="tiny", seed=3, protocol="mixed", plan=True, jobs=1, shard=shard)
        pack(part, out=packed, join=joined)
        joined = packed
    assert joined is not None and joined.read_bytes() == file.read_bytes()
    phantom(
        out=tmp_path / "other", count=1, size="tiny", seed=9, jaw_margin_mm=12.0, protocol="mixed", plan=True, jobs=1
    )
    with pytest.raises(ValueError, match=r"other: jaw_margin_mm is 12\.0, expected None as .*1\.safetensors has"):
        pack(tmp_path / "other", out=tmp_path / "x.safetensors", join=joined)


def test_training_reads_a_packed_cohort(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("lightning_vmat.data.packed.available_cores", lambda: 1)
    for _ in range(2):  # made, then found
        module = CohortDataModule(file, ["Rectum", "Bladder"], batch_size=2, voxels=500)
        module.prepare_data()
        module.setup("fit")
        (made,) = (path for path in (tmp_path / "lightning_vmat").iterdir() if path.is_dir())  # beside its lock
        stamps = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
        batches = list(module.train_dataloader())
        assert all(batch.fluence is not None for batch in batches)
    assert stamps == {path: path.stat().st_mtime_ns for path in made.rglob("*")}


def test_cases_of_several_shapes_come_in_batches_of_one(cohort: Path) -> None:
    module = CohortDataModule(cohort, ["Rectum"], batch_size=2, voxels=1000)
    folders = [folder for folder in sorted(cohort.glob("phantom_*")) for _ in range(3)]
    module._load("train", folders)  # three cases of each of three patients, two of one shape
    for _ in range(3):
        batches = list(module.train_dataloader())
        assert sorted(len(batch) for batch in batches) == [1, 2, 2, 2, 2]
        assert sorted(name for batch in batches for name in batch.case_ids) == [folder.name for folder in folders]


def test_scale_of_a_plan_spares_the_problem(cohort: Path) -> None:
    """Same scale with the problem (built anew) and without (the plan's metadata tell it)."""
    scales = []
    for with_problems in (True, False):
        module = CohortDataModule(cohort, ["Rectum"], voxels=1000, with_problems=with_problems)
        module.setup("test")
        (batch,) = module.test_dataloader()
        assert bool(batch.problems) is with_problems
        scales.append(float(batch.scale_mu))
    assert scales[0] == scales[1]


def test_another_phantom_than_the_planned_one_is_refused(file: Path, tmp_path: Path) -> None:
    about = json.loads(json.dumps(vars(read_pack(file)), default=str))
    about["checksums"]["phantom_0003"] = "0" * 16
    del about["path"]
    damaged = tmp_path / "damaged.safetensors"
    save_file(load_file(file), damaged, {"pack_version": "2", "cohort": json.dumps(about)})
    with pytest.raises(ValueError, match=r"damaged\.safetensors: phantom_0003 made here differs"):
        unpack(str(damaged), out=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out/split.yaml").exists()


def test_what_is_no_packed_cohort_is_named(cohort: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing: neither a shipped cohort"):
        read_pack("nothing")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"broken\.safetensors: not a packed cohort"):
        read_pack(broken)
    save_file({"a": torch.zeros(1)}, broken)
    with pytest.raises(ValueError, match=r"pack version None, expected 2"):
        read_pack(broken)
    unplanned = tmp_path / "unplanned"
    phantom(out=unplanned, count=1, size="tiny", jobs=1)
    with pytest.raises(ValueError, match="unplanned: no case with a plan"):
        pack(unplanned, out=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.zip: expected a file ending in \.safetensors"):
        pack(cohort, out=tmp_path / "x.zip")
    assert not (tmp_path / "x.safetensors").exists()
