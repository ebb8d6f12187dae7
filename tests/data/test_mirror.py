"""Mirror images: condition and fluence of the mirrored patient, to the beamlet."""

from dataclasses import replace

import pytest
import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.data.mirror import Mirror
from lightning_vmat.networks.arc_channels import arc_channels
from lightning_vmat.networks.bev_conditioning import ChannelSettings, bev_channels, wish_channels
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case

STRUCTURES = ["FemoralHeadLeft", "FemoralHeadRight", "Rectum"]
SETTINGS = ChannelSettings(STRUCTURES, wishes=["FemoralHeadLeft", "FemoralHeadRight"], arcs=True)
PAIR = (Arc(170.0, 190.0, 6, "counterclockwise", 20.0), Arc(190.0, 170.0, 6, "clockwise", 340.0))


@pytest.fixture(scope="module")
def patient() -> Case:
    """Without symmetry, and with a wish for one side."""
    case = make_phantom(1, "tiny")
    structures = {name: mask.clone() for name, mask in case.structures.items()}
    structures["Rectum"] = structures["Rectum"].roll(3, -1)
    return replace(case, structures=structures).with_settings(wishes={"FemoralHeadLeft": 3.0})


def image_of(case: Case) -> Case:
    """The mirror image of the patient, in the same beams."""
    x0, _, _ = case.grid.origin_mm
    middle = x0 + case.grid.spacing_mm[0] * (case.grid.shape[2] - 1) / 2
    structures = {name: mask.flip(-1) for name, mask in case.structures.items()}
    left, right = structures["FemoralHeadLeft"], structures["FemoralHeadRight"]
    structures |= {"FemoralHeadLeft": right, "FemoralHeadRight": left}
    x, y, z = case.isocentre_mm
    mirrored = replace(case, hu=case.hu.flip(-1), structures=structures, isocentre_mm=(2 * middle - x, y, z))
    return mirrored.with_settings(wishes={"FemoralHeadRight": 3.0})


def condition(case: Case) -> torch.Tensor:
    wishes = wish_channels(case, SETTINGS.wish_names)
    return torch.cat((bev_channels(case, STRUCTURES), wishes, arc_channels(case)))


def test_mirror_of_two_opposite_arcs_is_the_condition_of_the_mirrored_patient(patient: Case) -> None:
    case = patient.with_settings(arcs=PAIR)
    mirror = Mirror.of(case, SETTINGS)
    assert mirror is not None
    found = mirror.condition(condition(case))
    torch.testing.assert_close(found, condition(image_of(case)), rtol=0.0, atol=2e-3)
    assert (found - condition(case)).abs().max() > 0.5
    torch.testing.assert_close(mirror.condition(found), condition(case))


def test_mirror_of_one_arc_has_the_opposite_collimator_angle(patient: Case) -> None:
    case = patient.with_settings(arcs=(Arc(150.0, 210.0, 7, "counterclockwise", 30.0),))
    other = image_of(case).with_settings(arcs=(Arc(150.0, 210.0, 7, "counterclockwise", 330.0),))
    mirror = Mirror.of(case, SETTINGS)
    assert mirror is not None
    torch.testing.assert_close(mirror.condition(condition(case)), condition(other), rtol=0.0, atol=2e-3)


@pytest.mark.parametrize(
    "arcs",
    [
        (Arc(180.0, 20.0, 6),),  # not symmetric about the vertical
        (Arc(180.0, 180.0, 6), Arc(180.0, 180.0, 6, "counterclockwise", 30.0)),  # collimators not opposite
        (PAIR[0], PAIR[1], PAIR[0]),
    ],
)
def test_arcs_without_a_mirror_image(patient: Case, arcs: tuple[Arc, ...]) -> None:
    assert Mirror.of(patient.with_settings(arcs=arcs), SETTINGS) is None
