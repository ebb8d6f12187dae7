"""Condition channels against lengths known by hand: a sphere in a water cylinder, a bar on the patient's left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.networks.bev_conditioning import ChannelSettings, bev_channels
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid
from lightning_vmat.plan.wishes import WISHES, log_wishes
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems, build_problem

TARGET_RADIUS_MM, BODY_RADIUS_MM = 30.0, 80.0


@pytest.fixture(scope="module")
def case() -> Case:
    grid = VolumeGrid((34, 68, 68), (2.5, 2.5, 2.5), (-83.75, -83.75, -41.25))
    z, y, x = (torch.arange(n) * 2.5 + o for n, o in ((34, -41.25), (68, -83.75), (68, -83.75)))
    z, y, x = torch.meshgrid(z, y, x, indexing="ij")
    body = x**2 + y**2 < BODY_RADIUS_MM**2
    sphere = x**2 + y**2 + z**2 < TARGET_RADIUS_MM**2
    return Case(
        case_id="sphere",
        source="test",
        grid=grid,
        hu=torch.where(body, 0.0, -1000.0),
        structures={
            "Body": body,
            "PTV": sphere,
            "Boost": sphere & (x**2 + y**2 + z**2 < 15.0**2),
            "Bar": (x - 55).abs().lt(10) & y.abs().lt(20),
        },
        prescription_gy={"PTV": 50.0, "Boost": 60.0},
        fractions=25,
        isocentre_mm=(0.0, 0.0, 0.0),
        arcs=(Arc(0.0, 0.0, 8),),
        beamlets=BeamletGrid((-40.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0), -42.0, 12.0, 7),
        machine_name="truebeam_millennium120",
        protocol="prostate_60gy_20fx",
    )


def test_channels_lie_on_the_fluence_grid(case: Case) -> None:
    channels = bev_channels(case, ["Bar", "PTV"])
    assert channels.shape == (4, *case.fluence_shape)
    assert bool(channels.isfinite().all())


def test_thickness_and_depth_at_the_centre(case: Case) -> None:
    channels = bev_channels(case, ["PTV"])
    centre = channels[:, :, 3:5, 3].mean(dim=-1) * 100.0  # rays 5 mm off the axis
    prescribed = (2 * (TARGET_RADIUS_MM**2 - 25.0) ** 0.5 * 50 + 2 * (15.0**2 - 25.0) ** 0.5 * 10) / 60
    torch.testing.assert_close(centre[0], torch.full((8,), prescribed), rtol=0.0, atol=2.5)
    torch.testing.assert_close(centre[1], torch.full((8,), BODY_RADIUS_MM), rtol=0.0, atol=2.5)
    torch.testing.assert_close(centre[2], torch.full((8,), 2 * (900.0 - 25.0) ** 0.5), rtol=0.0, atol=2.5)


def test_target_is_not_seen_outside_its_shadow(case: Case) -> None:
    channels = bev_channels(case, ["PTV"])
    assert channels[[0, 2]][:, :, [0, -1]].abs().max().item() == 0.0


def test_structure_shows_from_the_front_and_hides_at_the_side(case: Case) -> None:
    bar = bev_channels(case, ["Bar"])[2].mean(dim=1) * 100.0  # control points at 22.5 + 45 k degrees
    assert bar.amax(dim=1)[[1, 2, 5, 6]].min() > bar.amax(dim=1)[[0, 3, 4, 7]].min()
    assert bar.sum(dim=1).min() > 0


def test_missing_structure_is_empty(case: Case) -> None:
    assert bev_channels(case, ["Bladder"])[2].abs().max().item() == 0.0


def test_turning_the_arc_turns_the_channels(case: Case) -> None:
    turned = case.with_settings(arcs=(Arc(90.0, 90.0, 8),))
    expected = bev_channels(case, ["Bar"]).roll(-2, dims=1)
    torch.testing.assert_close(bev_channels(turned, ["Bar"]), expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("structures", [[], ["Bar", "Bar"]])
def test_structures_must_be_named_once(structures: list[str]) -> None:
    with pytest.raises(ValueError, match="condition structures"):
        ChannelSettings(structures)


def test_wishes_are_constant_channels_behind_the_others(case: Case) -> None:
    wished = case.with_settings(wishes={"Bowel": 4.0, "homogeneity": 0.5})
    settings = ChannelSettings(["Bar"], wishes=True)
    channels, names = condition_channels(CaseProblems(wished), settings), settings.names
    assert channels.shape == (len(names), *case.fluence_shape)
    assert torch.equal(channels[: -len(WISHES)], bev_channels(case, ["Bar"]))
    assert torch.equal(bev_channels(wished, ["Bar"]), bev_channels(case, ["Bar"]))
    for channel, name, value in zip(channels[-len(WISHES) :], WISHES, log_wishes(wished.wishes), strict=True):
        assert names[len(channels) - len(WISHES) + WISHES.index(name)] == f"wish {name}"
        assert bool((channel == torch.tensor(value)).all())
    assert condition_channels(CaseProblems(case), settings)[-len(WISHES) :].abs().max().item() == 0.0


def test_optimised_fluence_follows_prescription_and_wishes() -> None:
    """The channel lowers the objective of the case's own wishes, more than the map for other wishes does."""
    case = make_phantom(3, "tiny")
    settings = ChannelSettings(["Rectum"], wishes=["Rectum"], fluence_evaluations=8)
    assert settings.names[3:] == ("optimised fluence", "wish Rectum")
    wished = case.with_settings(wishes={"Rectum": 8.0})
    plain, steered = (condition_channels(CaseProblems(one), settings)[3] for one in (case, wished))
    problem = build_problem(wished, 2000, seed=5)
    values = [float(problem.value(x)) for x in (problem.open_field, plain, steered)]
    assert values[0] > values[1] > values[2]


def test_reversed_channels_are_those_of_the_mirror_image(case: Case) -> None:
    """What `data.mirror` trains on: a patient mirrored left to right, with the opposite collimator angle."""
    turned = case.with_settings(arcs=(Arc(0.0, 0.0, 8, collimator_deg=30.0),))
    image = replace(
        case.with_settings(arcs=(Arc(0.0, 0.0, 8, collimator_deg=330.0),)),
        hu=case.hu.flip(-1),
        structures={name: mask.flip(-1) for name, mask in case.structures.items()},
    )
    expected = bev_channels(turned, ["Bar"]).flip(-3, -1)
    torch.testing.assert_close(bev_channels(image, ["Bar"]), expected, rtol=0.0, atol=1e-3)
