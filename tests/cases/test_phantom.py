from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vmat.cases.phantom.hardest import hardest_seeds
from lightning_vmat.cases.phantom.phantom import NODES, SHARES, draw_protocol, make_phantom
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.sizes import SIZES, get_size
from lightning_vmat.networks.bev_conditioning import bev_channels
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import load_machine
from lightning_vmat.planning.problem import build_problem

SEEDS = range(12)
CHECKSUMS = json.loads((Path(__file__).parent / "phantom_checksums.json").read_text())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make_phantom(seed, "demo") for seed in SEEDS]


def volume_cc(case: Case, name: str) -> float:
    return float(case.structures[name].sum()) * case.grid.voxel_volume_cc


def digest(case: Case) -> str:
    parts = [case.hu.numpy().tobytes()]
    parts += [name.encode() + mask.numpy().tobytes() for name, mask in sorted(case.structures.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def room_mm(case: Case) -> tuple[float, float]:
    """Least distance between targets and the edge of the field, along and across leaf travel."""
    points = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev, _ = project_to_bev(points, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    width, height = bev.abs().amax(dim=(0, 1)).tolist()
    edges = case.beamlets.leaf_edges_mm
    return case.beamlets.beamlet_stop_mm - width, min(-edges[0], edges[-1]) - height


def test_same_seed_gives_the_same_bits_whatever_ran_before() -> None:
    first = digest(make_phantom(7, "tiny"))
    other = digest(make_phantom(8, "tiny"))
    assert digest(make_phantom(7, "tiny")) == first != other


@pytest.mark.parametrize("key", CHECKSUMS)
def test_bits_are_those_of_other_machines(key: str) -> None:
    """A change of anatomy changes these on purpose: `python tests/cases/test_phantom.py` writes them anew."""
    seed, size, protocol = key.split()
    assert digest(make_phantom(int(seed), size, protocol)) == CHECKSUMS[key]


@pytest.mark.slow
def test_bits_do_not_depend_on_the_processor() -> None:
    """With numpy's vector instructions off (other roundings of sines, powers, sums) and other BLAS kernels."""
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(features), "OPENBLAS_CORETYPE": "Prescott"}
    command = [sys.executable, __file__, "--print"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == CHECKSUMS


def test_body_has_the_size_of_men(cases: list[Case]) -> None:
    for case in cases:
        body = case.structures["Body"]
        width = int(body.any(dim=0).any(dim=0).sum()) * case.grid.spacing_mm[0]
        depth = int(body.any(dim=0).any(dim=1).sum()) * case.grid.spacing_mm[1]
        assert 325 < width < 430 and 200 < depth < 295
        assert not body[:, 0].any() and not body[:, :, 0].any() and not body[:, :, -1].any()


def test_patients_differ(cases: list[Case]) -> None:
    bladders = torch.tensor([volume_cc(case, "Bladder") for case in cases])
    assert bladders.max() / bladders.min() > 2
    with_gas = [bool((case.hu[case.structures["Rectum"]] < -300).any()) for case in cases]
    assert 1 < sum(with_gas) < len(cases) - 1
    assert 0 < sum("Bowel" in case.structures for case in cases) <= len(cases)


def test_anatomy_is_where_it_belongs(cases: list[Case]) -> None:
    """Patient LPS: x to the left, y to the back, z to the head."""
    for case in cases:
        centre = {
            name: case.grid.centres_mm(mask.flatten().nonzero()[:, 0]).mean(dim=0)
            for name, mask in case.structures.items()
        }
        assert centre["FemoralHeadLeft"][0] > 70 and centre["FemoralHeadRight"][0] < -70
        assert centre["Rectum"][1] > centre["CTV"][1] + 15
        assert centre["Bladder"][2] > centre["CTV"][2] + 20
        assert centre["PenileBulb"][2] < centre["CTV"][2] - 20


def test_structures_do_not_intrude(cases: list[Case]) -> None:
    for case in cases:
        masks = case.structures
        for one, other in (("Rectum", "CTV"), ("Bladder", "CTV"), ("Rectum", "Bladder")):
            assert not (masks[one] & masks[other]).any()
        assert not (masks["CTV"] & ~masks["PTV"]).any()
        assert all(not (mask & ~masks["Body"]).any() for mask in masks.values())
        assert (case.hu[~masks["Body"]] < -300).float().mean() > 0.97  # the skin is blurred


def test_margins_are_five_to_eight_mm_and_least_at_the_back() -> None:
    case = make_phantom(9, "clinical")
    points = {name: case.grid.centres_mm(case.structures[name].flatten().nonzero()[:, 0]) for name in ("CTV", "PTV")}
    reach = points["PTV"].amax(dim=0) - points["CTV"].amax(dim=0)
    front = float(points["CTV"][:, 1].min() - points["PTV"][:, 1].min())
    assert 3.5 <= float(reach[0]) <= 10.5 and 3.5 <= float(reach[2]) <= 10.5 and 3.5 <= front <= 10.5
    level = {name: p[(p[:, 2] + 5).abs() < 3] for name, p in points.items()}  # below the seminal vesicles
    assert 2.5 <= float(level["PTV"][:, 1].max() - level["CTV"][:, 1].max()) <= min(front, 7.5)


def test_every_size_shows_the_same_anatomy() -> None:
    coarse, fine = make_phantom(5, "tiny"), make_phantom(5, "base")
    for name in ("Bladder", "PTV", "Body"):
        assert volume_cc(coarse, name) == pytest.approx(volume_cc(fine, name), rel=0.1)


def test_every_treatment_shows_the_same_patient() -> None:
    plain = make_phantom(5, "demo")
    for protocol in SHARES:
        case = make_phantom(5, "demo", protocol)
        assert case.protocol == protocol and case.prescription_gy == load_protocol(protocol).prescription_gy
        for name in ("Bladder", "PTV"):
            assert volume_cc(case, name) == pytest.approx(volume_cc(plain, name), rel=0.06)


def test_mixed_population_has_its_shares() -> None:
    drawn = [draw_protocol(Draws(seed)) for seed in range(2000)]
    for name, share in SHARES.items():
        assert drawn.count(name) / len(drawn) == pytest.approx(share, abs=0.03)
    assert make_phantom(4, "tiny", "mixed").protocol == drawn[4] != make_phantom(5, "tiny", "mixed").protocol


def test_boost_is_a_small_part_of_the_target() -> None:
    for seed in range(4):
        case = make_phantom(seed, "demo", "prostate_boost_67gy_20fx")
        boost, target = case.structures["PTVBoost"], case.structures["PTV"]
        assert not (boost & ~target).any() and 2 < volume_cc(case, "PTVBoost") < 15


def test_nodes_lie_on_both_sides_above_the_prostate() -> None:
    for seed in range(4):
        case = make_phantom(seed, "demo", "prostate_nodes_68gy_25fx")
        nodes = case.structures[NODES]
        assert not (nodes & case.structures["PTV"]).any() and 250 < volume_cc(case, NODES) < 900
        points = case.grid.centres_mm(nodes.flatten().nonzero()[:, 0])
        assert 0.3 < float((points[:, 0] > 0).float().mean()) < 0.7 and float(points[:, 2].mean()) > 30


@pytest.mark.parametrize("protocol", SHARES)
def test_planning_copes_with_every_treatment(protocol: str) -> None:
    case = make_phantom(3, "tiny", protocol)
    problem = build_problem(case, voxels=800)
    dose_gy = problem.dose(problem.open_field)
    value, gradient = float(problem.objective(dose_gy)), problem.objective.gradient(dose_gy)
    assert 0 < value < float("inf") and bool(gradient.isfinite().all())
    channels = bev_channels(case, ["Rectum", "Bladder"])
    levels = sorted(set(case.prescription_gy.values()))
    assert tuple(channels.shape[1:]) == case.fluence_shape and float(channels[0].max()) > 0
    assert len(levels) == len(case.prescription_gy)


@pytest.mark.parametrize("name", SIZES)
def test_target_lies_in_the_fixed_field(name: str) -> None:
    size = get_size(name)
    for seed in (0, 3, 9):
        case = make_phantom(seed, "demo").with_settings(
            beamlets=size.centred_field(load_machine("truebeam_millennium120"))
        )
        assert case.beamlets.shape == (size.rows, size.beamlets)
        assert min(room_mm(case)) > 5


@pytest.mark.parametrize("name", SIZES)
def test_nodes_lie_in_their_field(name: str) -> None:
    case = make_phantom(3, "demo", "prostate_nodes_68gy_25fx").with_settings(
        beamlets=get_size(name).nodal_field(load_machine("truebeam_millennium120"))
    )
    assert all(number % 4 == 0 for number in case.beamlets.shape)
    assert min(room_mm(case)) > 8


def test_artificial_hip_is_metal_on_one_side(cases: list[Case]) -> None:
    with_metal = [case for case in cases if case.hu.max() > 2500]
    assert [case.case_id for case in with_metal] == ["phantom_0001", "phantom_0008", "phantom_0011"]
    for case in with_metal:
        sides = [float(case.hu[case.structures[f"FemoralHead{side}"]].median()) for side in ("Left", "Right")]
        assert max(sides) > 2500 and min(sides) < 800


def test_draws_have_the_moments_they_claim() -> None:
    draws = Draws(3)
    normal = np.array([draws.normal(2.0) for _ in range(4000)])
    assert abs(normal.mean()) < 0.1 and abs(normal.std() - 2.0) < 0.1
    quantiles = np.array([draws.quantiles((0.0, 1.0, 4.0)) for _ in range(4000)])
    assert np.median(quantiles) == pytest.approx(1.0, abs=0.1) and quantiles.max() <= 4.0
    noise = draws.noise((40, 41, 42), (3, 5, 1))
    assert noise.shape == (40, 41, 42) and abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] > 0.8
    assert abs(np.corrcoef(noise[..., 1:].ravel(), noise[..., :-1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_phantom(-1, "tiny"), "seed -1"),
        (lambda: make_phantom(0, "huge"), "size 'huge': expected one of tiny, demo"),
        (lambda: make_phantom(0, "tiny", "lung"), "protocol 'lung': expected one of mixed, prostate_60gy_20fx"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Case], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def checksums() -> dict[str, str]:
    keys = [(seed, "tiny", "mixed") for seed in range(6)]
    keys += [(1, "demo", "prostate_60gy_20fx"), (4, "demo", "prostate_nodes_68gy_25fx"), (2, "base", "mixed")]
    return {f"{seed} {size} {protocol}": digest(make_phantom(seed, size, protocol)) for seed, size, protocol in keys}


if __name__ == "__main__":
    text = json.dumps(checksums(), indent=1)
    if "--print" in sys.argv:
        print(text)
    else:
        (Path(__file__).parent / "phantom_checksums.json").write_text(text + "\n")


def test_the_hardest_phantoms_are_large_or_overlap() -> None:
    seeds = range(900_001, 900_009)
    chosen = hardest_seeds(seeds, 4, "prostate_60gy_20fx")
    cases = {seed: make_phantom(seed, "demo") for seed in seeds}
    volume_cc = {seed: case.volumes_cc()["PTV"] for seed, case in cases.items()}
    overlap = {}
    for seed, case in cases.items():
        target, spared = case.structures["PTV"], case.structures["Rectum"] | case.structures["Bladder"]
        overlap[seed] = int((target & spared).sum()) / int(target.sum())
    large = sorted(chosen, key=lambda seed: volume_cc[seed])[2:]
    left = [seed for seed in seeds if seed not in chosen]
    assert chosen == sorted(set(chosen)) and len(chosen) == 4
    assert all(volume_cc[seed] < min(volume_cc[one] for one in large) for seed in left)
    assert max(overlap[seed] for seed in left) <= min(overlap[one] for one in chosen if one not in large)


@pytest.mark.parametrize("count", [0, 9])
def test_as_many_hard_phantoms_as_there_are(count: int) -> None:
    with pytest.raises(ValueError, match=f"hardest {count}: expected 1 to 8"):
        hardest_seeds(range(8), count, "prostate_60gy_20fx")
