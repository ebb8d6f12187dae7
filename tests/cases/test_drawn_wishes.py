"""Wishes of phantoms: drawn from their seeds, kept in the case, and what the planners' objective is made of."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest
import torch
import yaml

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.drawn_wishes import draw_wishes
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import is_held_out, read_cohort, split_of_seeds
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.wishes import WISHES


def test_wishes_are_log_uniform_and_a_quarter_of_the_cases_has_none() -> None:
    drawn = [draw_wishes(seed) for seed in range(200, 2200)]
    some = [wishes for wishes in drawn if wishes]
    assert len(some) / len(drawn) == pytest.approx(0.75, abs=0.03)
    logs = torch.tensor([[log(wishes[name]) / log(4) for name in WISHES] for wishes in some])
    assert float(logs.abs().max()) <= 1
    assert torch.allclose(logs.mean(dim=0), torch.zeros(len(WISHES)), atol=0.06)
    assert torch.allclose(logs.std(dim=0), torch.full((len(WISHES),), 3**-0.5), atol=0.03)
    assert float((torch.corrcoef(logs.T) - torch.eye(len(WISHES))).abs().max()) < 0.1
    assert drawn[:50] == [draw_wishes(seed) for seed in range(200, 250)]
    assert not any(draw_wishes(seed, 0.0) for seed in range(50)) and all(draw_wishes(seed, 1.0) for seed in range(50))


def test_held_out_seeds_are_never_trained_on() -> None:
    for seeds in (range(190), range(160, 300), range(170, 172), range(899_990, 900_020), range(900_001, 900_005)):
        split = split_of_seeds(seeds, str)
        assert sorted(name for part in split.values() for name in part) == sorted(map(str, seeds))
        assert not any(is_held_out(int(name)) for name in (*split["train"], *split["validation"]))
    assert not is_held_out(159) and is_held_out(160) and is_held_out(199) and not is_held_out(200)
    assert not is_held_out(900_000) and is_held_out(900_001)


def test_cohort_with_wishes_and_jaws(tmp_path: Path) -> None:
    """Shards make what one run makes; anatomy is that of the seed; a folder of other settings is refused."""
    arguments = ["prepare", "phantom", "--seed", "197", "--count", "6", "--size", "tiny", "--jobs", "1"]
    arguments += ["--wishes", "--jaw_margin_mm", "8"]
    for shard in ("1/2", "2/2"):
        assert main([*arguments, "--out", str(tmp_path / "sharded"), "--shard", shard]) == 0
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    split = read_cohort(tmp_path / "whole").split
    assert split["test"] == ["phantom_0197", "phantom_0198", "phantom_0199"]
    manifest = yaml.safe_load((tmp_path / "whole/manifest.yaml").read_text())
    assert manifest["test"] == split["test"] and manifest["validation"] == split["validation"]
    assert manifest["jaw_margin_mm"] == 8.0
    assert manifest["wishes"] == {"share": 0.75, "factors": [0.25, 4.0], "names": list(WISHES)}
    for seed in range(197, 203):
        case, again = (read_case(tmp_path / cohort / f"phantom_{seed:04d}") for cohort in ("whole", "sharded"))
        bare = make_phantom(seed, "tiny")
        assert case.wishes == again.wishes == draw_wishes(seed)
        assert case.beamlets == again.beamlets == with_jaws(bare, 8.0).beamlets
        assert case.beamlets.jaws_mm is not None and torch.equal(case.hu, bare.hu)
    assert main([*arguments, "--wishes", "0.5", "--out", str(tmp_path / "whole")]) == 2
    assert main([*arguments, "--wishes", "1.5", "--out", str(tmp_path / "none")]) == 2
    assert main([*arguments, "--jaw_margin_mm", "-3", "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
