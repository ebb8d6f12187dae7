"""Dose-volume histograms, homogeneity, conformity and their averages over cases."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.metrics.case_means import CaseMeans
from lightning_vmat.metrics.conformity import homogeneity_index, paddick_index
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.metrics.plan_report import structure_dvhs, summarise_structures
from lightning_vmat.metrics.target_dose import target_values
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid


def random_dvh(seed: int, count: int = 300) -> tuple[Dvh, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dose = 70 * torch.rand(count, generator=generator)
    volume = torch.rand(count, generator=generator) + 0.01
    return Dvh(dose, volume), dose, volume


@pytest.mark.parametrize("seed", range(3))
def test_dvh_is_monotone_and_bounded(seed: int) -> None:
    dvh, dose, _ = random_dvh(seed)
    at_volume = [dvh.dose_at_volume(v / 100) for v in range(101)]
    at_dose = [dvh.volume_at_dose(float(d)) for d in range(75)]
    assert at_volume == sorted(at_volume, reverse=True)
    assert at_dose == sorted(at_dose, reverse=True)
    assert at_dose[0] == 1 and at_dose[-1] == 0
    assert at_volume[0] == pytest.approx(float(dose.max()))
    assert at_volume[100] == pytest.approx(float(dose.min()))


@pytest.mark.parametrize("seed", range(3))
def test_dose_and_volume_are_inverse(seed: int) -> None:
    dvh, _, _ = random_dvh(seed)
    for fraction in (0.02, 0.3, 0.5, 0.95, 0.98):
        dose = dvh.dose_at_volume(fraction)
        assert dvh.volume_at_dose(dose) >= fraction - 1e-6
        assert dvh.volume_at_dose(dose + 1e-9) < fraction + 1e-6


def test_a_weight_is_as_many_voxels() -> None:
    dose, count = torch.tensor([50.0, 60.0, 70.0]), torch.tensor([2, 5, 3])
    weighted, repeated = Dvh(dose, count * 0.1), Dvh(dose.repeat_interleave(count), torch.full((10,), 0.1))
    assert weighted.summary() == pytest.approx(repeated.summary())
    assert weighted.dose_at_hottest(0.4) == repeated.dose_at_hottest(0.4) == 60.0


def test_dvh_by_hand() -> None:
    dvh = Dvh(torch.arange(1.0, 11.0), torch.full((10,), 0.2))
    assert dvh.total_cc == pytest.approx(2.0)
    assert dvh.dose_at_volume(0.5) == 6.0
    assert dvh.dose_at_volume(1.0) == 1.0
    assert dvh.volume_at_dose(6.0) == pytest.approx(0.5)
    assert dvh.dose_at_hottest(0.01) == 10.0
    assert dvh.dose_at_hottest(0.4) == 9.0
    assert dvh.dose_at_hottest(50.0) == 1.0
    assert dvh.summary()["mean_gy"] == pytest.approx(5.5)
    assert homogeneity_index(dvh) == pytest.approx((10.0 - 1.0) / 6.0)


def test_a_curve_is_the_volume_at_each_dose() -> None:
    dvh = Dvh(torch.tensor([10.0, 20.0, 20.0, 40.0]), torch.tensor([1.0, 2.0, 1.0, 4.0]))
    edges = torch.tensor([0.0, 10.0, 10.5, 20.0, 30.0, 40.0, 50.0])
    assert dvh.curve(edges).tolist() == [dvh.volume_at_dose(float(edge)) for edge in edges]
    assert dvh.curve(edges).tolist() == [1.0, 1.0, 0.875, 0.875, 0.5, 0.5, 0.0]


def test_bad_histograms_are_refused() -> None:
    for dose, volume in (([], []), ([float("nan")], [1.0]), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="DVH"):
            Dvh(torch.tensor(dose), torch.tensor(volume))


def test_paddick_by_hand() -> None:
    target = torch.zeros(20, dtype=torch.bool)
    target[:10] = True
    exact = torch.where(target, 60.0, 0.0)
    assert paddick_index(exact, target, 57.0) == pytest.approx(1.0)
    shifted = torch.zeros(20)
    shifted[2:10] = 60.0  # 8 of 10 covered
    shifted[10:18] = 60.0  # and 8 outside
    assert paddick_index(shifted, target, 57.0) == pytest.approx(64 / (10 * 16))
    assert paddick_index(torch.zeros(20), target, 57.0) == 0
    assert paddick_index(exact, target, 57.0, torch.rand(20) + 0.1) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def line_case() -> Case:
    body = torch.ones(1, 1, 20, dtype=torch.bool)
    high, low = body.clone(), body.clone()
    high[..., 4:] = False
    low[..., :4] = False
    low[..., 10:] = False
    empty = torch.zeros_like(body)
    return Case(
        case_id="line",
        source="test",
        grid=VolumeGrid((1, 1, 20), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)),
        hu=torch.zeros(1, 1, 20),
        structures={"Body": body, "PTV70": high, "PTV56": low, "Empty": empty},
        prescription_gy={"PTV70": 70.0, "PTV56": 56.0},
        fractions=35,
        isocentre_mm=(0.0, 0.0, 0.0),
        arcs=(Arc(control_points=2),),
        beamlets=BeamletGrid((-5.0, 5.0), -5.0, 5.0, 2),
        machine_name="truebeam_millennium120",
        protocol="head_and_neck_70gy_35fx",
    )


def test_a_perfect_dose_gets_a_perfect_report(line_case: Case) -> None:
    dose = torch.cat((torch.full((4,), 70.0), torch.full((6,), 56.0), torch.zeros(10)))
    report = summarise_structures(line_case, dose)
    assert set(report) == {"Body", "PTV70", "PTV56"}
    for name, prescribed in line_case.prescription_gy.items():
        assert report[name]["d95_gy"] == report[name]["max_gy"] == prescribed
        assert report[name]["hi"] == 0
        assert report[name]["paddick"] == pytest.approx(1.0)
    assert structure_dvhs(line_case, dose)["PTV70"].total_cc == pytest.approx(0.5)
    with pytest.raises(ValueError, match="case line: dose on 7 voxels, expected the body's 20"):
        structure_dvhs(line_case, torch.zeros(7))


def flat(dose: float) -> dict[str, Dvh]:
    return {"PTV70": Dvh(torch.full((5,), dose), torch.ones(5)), "PTV56": Dvh(torch.zeros(2), torch.ones(2))}


def test_target_values_are_those_of_the_highest_prescription() -> None:
    values = target_values(flat(63.0), {"PTV56": 56.0, "PTV70": 70.0})
    assert values == pytest.approx({"target_d95": 0.9, "target_d98": 0.9, "target_hi": 0.0})


def test_means_are_over_the_cases_that_have_a_value() -> None:
    means = CaseMeans(("a", "b", "never"))
    means.update({"a": torch.tensor([1.0, 2.0]), "b": 5.0})
    means.update({"a": 6.0})
    assert {name: float(value) for name, value in means.compute().items()} == {"a": 3.0, "b": 5.0}
    means.reset()
    means.update({"a": 1.0})
    assert {name: float(value) for name, value in means.compute().items()} == {"a": 1.0}


def test_uneven_ranks_reduce_to_the_mean_over_cases() -> None:
    ranks, together = (CaseMeans(("a", "b")), CaseMeans(("a", "b"))), CaseMeans(("a", "b"))
    for place, value in enumerate((1.0, 0.4, 0.1)):
        values = {"a": value} if place else {"a": value, "b": 2.0}  # nothing of b on the second rank
        ranks[place // 2].update(values)
        together.update(values)
    ranks[0].merge_state(ranks[1])
    assert {k: float(v) for k, v in ranks[0].compute().items()} == pytest.approx(
        {k: float(v) for k, v in together.compute().items()}
    )
