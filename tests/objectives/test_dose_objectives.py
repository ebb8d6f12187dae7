"""Properties of every dose objective."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels
from lightning_vmat.objectives.dvh import MaxDvh, MinDvh
from lightning_vmat.objectives.falloff import Falloff
from lightning_vmat.objectives.geud import Geud
from lightning_vmat.objectives.max_dose import MaxDose
from lightning_vmat.objectives.mean_dose import MeanDose
from lightning_vmat.objectives.squared_overdose import SquaredOverdose
from lightning_vmat.objectives.squared_underdose import SquaredUnderdose

QUADRATIC = [SquaredOverdose(30.0), SquaredUnderdose(30.0), MeanDose(), MaxDose(35.0), Falloff()]
SMOOTH = [*QUADRATIC, Geud(20.0, 1.0), Geud(20.0, 8.0)]
ALL = [*SMOOTH, MaxDvh(20.0, 0.3), MinDvh(40.0, 0.9)]


def name_of(objective: DoseObjective) -> str:
    return type(objective).__name__


def voxels(count: int, seed: int = 0) -> StructureVoxels:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(count, generator=generator, dtype=torch.float64) + 0.1
    distance = 40 * torch.rand(2, count, generator=generator, dtype=torch.float64)
    return StructureVoxels(
        torch.arange(count), weight / weight.sum(), weight, distance, torch.tensor([60.0, 50.0], dtype=torch.float64)
    )


def doses(*shape: int, seed: int = 1) -> torch.Tensor:
    return 60 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("objective", ALL, ids=name_of)
def test_gradient_is_that_of_the_value(objective: DoseObjective) -> None:
    v = voxels(9)
    assert torch.autograd.gradcheck(lambda d: objective(d, v), doses(2, 9).requires_grad_())


@pytest.mark.parametrize("objective", SMOOTH, ids=name_of)
def test_second_derivatives_flow(objective: DoseObjective) -> None:
    v = voxels(7)
    assert torch.autograd.gradgradcheck(lambda d: objective(d, v).square(), doses(7).requires_grad_())


@pytest.mark.parametrize("objective", ALL, ids=name_of)
def test_a_batch_gives_each_plans_value(objective: DoseObjective) -> None:
    v, batch = voxels(50), doses(3, 2, 50)
    one_by_one = torch.stack([torch.stack([objective(d, v) for d in row]) for row in batch])
    assert torch.allclose(objective(batch, v), one_by_one)


@pytest.mark.parametrize("objective", ALL, ids=name_of)
def test_never_negative(objective: DoseObjective) -> None:
    v = voxels(200)
    for scale in (0.0, 0.5, 1.0, 2.0):
        d = scale * doses(200)
        assert float(objective(d, v)) >= 0


@pytest.mark.parametrize("objective", SMOOTH, ids=name_of)
def test_convex(objective: DoseObjective) -> None:
    v, a, b = voxels(40), doses(100, 40, seed=2), doses(100, 40, seed=3)
    middle = objective((a + b) / 2, v)
    assert bool((middle <= (objective(a, v) + objective(b, v)) / 2 + 1e-9).all())


@pytest.mark.parametrize("objective", SMOOTH, ids=name_of)
def test_splitting_a_voxel_changes_nothing(objective: DoseObjective) -> None:
    v, d = voxels(20), doses(20)
    twice = torch.arange(20).repeat_interleave(2)
    halves = StructureVoxels(
        twice,
        v.fraction[twice] / 2,
        v.volume_cc[twice] / 2,
        v.target_distance_mm[:, twice],
        v.target_prescription_gy,
    )
    assert torch.allclose(objective(d[twice], halves), objective(d, v))


def even(count: int) -> StructureVoxels:
    share = torch.full((count,), 1 / count)
    return StructureVoxels(torch.arange(count), share, share, torch.zeros(1, count), torch.ones(1))


def test_values_by_hand() -> None:
    d = torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert float(SquaredOverdose(25.0)(d, even(4))) == pytest.approx((25 + 225) / 4)
    assert float(SquaredUnderdose(25.0)(d, even(4))) == pytest.approx((225 + 25) / 4)
    assert float(MeanDose()(d, even(4))) == pytest.approx(25.0)
    assert float(Geud(20.0, 1.0)(d, even(4))) == pytest.approx(25.0)  # (mean 25 - 20)^2
    assert float(Geud(0.0, 2.0)(d, even(4))) == pytest.approx(750.0)  # root mean square, squared
    assert float(MaxDvh(15.0, 0.5)(d, even(4))) == pytest.approx(25 / 4)  # 30 and 40 Gy go free
    assert float(MinDvh(35.0, 0.75)(d, even(4))) == pytest.approx((225 + 25) / 4)  # 10 Gy goes free


def test_dvh_objective_vanishes_exactly_when_the_goal_is_met() -> None:
    d, v = doses(400), voxels(400)
    above = float(v.fraction[d > 20].sum())
    assert float(MaxDvh(20.0, above + 1e-3)(d, v)) == 0
    assert float(MaxDvh(20.0, above - 0.05)(d, v)) > 0


def test_falloff_limit_goes_from_near_to_far() -> None:
    v = even(4)
    v = StructureVoxels(v.index, v.fraction, v.volume_cc, torch.tensor([[0.0, 2.0, 12.0, 1e4]]), torch.tensor([60.0]))
    limit = Falloff(near_fraction=1.0, far_fraction=0.2, decay_per_mm=0.1, start_mm=2.0).limit_gy(v)
    assert torch.allclose(limit, torch.tensor([60.0, 60.0, 60 * (0.2 + 0.8 * 2.718281828**-1), 12.0]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SquaredOverdose(float("nan")), "limit_gy is nan"),
        (lambda: MaxDvh(20.0, 1.5), "volume_fraction is 1.5"),
        (lambda: Geud(20.0, 0.5), "exponent is 0.5"),
        (lambda: Falloff(near_fraction=0.2, far_fraction=0.5), "far_fraction is 0.5"),
    ],
)
def test_nonsense_is_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
