"""Networks that know their arcs: a convolution stays within an arc, and a single full turn remains a ring."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.networks.arc_blocks import ArcConvolution
from lightning_vmat.networks.arc_channels import ARC_CHANNELS, arc_channels, joined_points
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.networks.critic import FluenceCritic
from lightning_vmat.networks.denoiser import FluenceDenoiser
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems

PARTIAL = Arc(230.0, 130.0, 5)
ARCS = {
    "ring": (Arc(control_points=6),),
    "partial": (Arc(210.0, 150.0, 6),),
    "two full turns": (Arc(control_points=4), Arc(control_points=4, direction="counterclockwise")),
    "three": (Arc(control_points=3), Arc(230.0, 130.0, 3), Arc(control_points=2)),
    "of two lengths": (PARTIAL, Arc(control_points=3)),
}


def case_of(name: str) -> Case:
    return make_phantom(0, "tiny").with_settings(arcs=ARCS[name])


Network = TypeVar("Network", bound=nn.Module)


def scattered(module: Network, seed: int = 0) -> Network:
    """The module in double precision with every weight random, so that no path is silent."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module.double().eval()


def denoiser(arcs: bool = True) -> FluenceDenoiser:
    return scattered(FluenceDenoiser(2 + len(ARC_CHANNELS), channels=(8, 16), heads=2, embedding=16, arcs=arcs))


def condition_of(name: str, seed: int = 0) -> Tensor:
    """Random channels with the arc channels of a case after them; a batch of one."""
    channels = arc_channels(case_of(name)).double()
    generator = torch.Generator().manual_seed(seed)
    free = torch.randn(2, *channels.shape[1:], generator=generator, dtype=torch.double)
    return torch.cat((free, channels))[None]


def order_of(name: str) -> Tensor:
    """Control points of the arcs in reverse order of the arcs."""
    index = case_of(name).control_points.arc_index
    return torch.cat([(index == arc).nonzero()[:, 0] for arc in reversed(range(int(index.max()) + 1))])


def test_channels_of_a_ring_know_no_place() -> None:
    channels = arc_channels(case_of("ring"))
    assert channels.shape == (len(ARC_CHANNELS), 6, 8, 8)
    assert torch.equal(channels, channels.roll(1, dims=1))
    assert channels[:, 0, 0, 0].tolist() == pytest.approx([1, 0, 1.8, 1.8])


def test_channels_of_arcs_by_hand() -> None:
    joined, arc, start, end = arc_channels(case_of("of two lengths"))[:, :, 3, 4].tolist()
    assert joined == [1, 1, 1, 1, 0, 1, 1, 0]
    assert arc == [0] * 5 + [1] * 3
    step = 260.0 / 5 / 100  # degrees of the first arc through 0
    expected = [step * (n + 0.5) for n in range(5)] + [0.6, 1.8, 3.0]
    assert start == pytest.approx(expected)
    assert end == pytest.approx(expected[4::-1] + expected[:4:-1])
    (joined,) = joined_points(condition_of("partial")).tolist()
    assert joined == [1, 1, 1, 1, 1, 0]


def test_condition_ends_with_the_arcs() -> None:
    case = case_of("two full turns").with_settings(wishes={"Rectum": 2.0})
    settings = ChannelSettings(["Rectum"], ["Rectum", "Body"], arcs=True)
    names, channels = settings.names, condition_channels(CaseProblems(case), settings)
    assert names[-6:] == ("wish Rectum", "wish Body", *ARC_CHANNELS) and len(channels) == len(names)
    assert torch.equal(channels[-4:], arc_channels(case))
    assert channels[3:5, 2, 1, 1].tolist() == pytest.approx([0.6931472, 0.0])
    assert torch.equal(
        channels[:-4], condition_channels(CaseProblems(case), ChannelSettings(["Rectum"], ["Rectum", "Body"]))
    )
    with pytest.raises(ValueError, match="expected each name once"):
        ChannelSettings(["Rectum"], ["Body", "Body"])


def test_a_convolution_with_all_joined_is_the_ring() -> None:
    convolution = scattered(ArcConvolution(3, 4))
    x = torch.randn(2, 3, 7, 4, 5).double()
    torch.testing.assert_close(convolution(x, torch.ones(2, 7).double()), convolution(x))


@pytest.mark.parametrize("name", ["two full turns", "of two lengths", "partial"])
def test_a_convolution_sees_each_arc_as_if_it_were_alone(name: str) -> None:
    convolution, case = scattered(ArcConvolution(3, 4)), case_of(name)
    x, joined = torch.randn(1, 3, len(case.control_points), 4, 5).double(), joined_points(condition_of(name))
    together = convolution(x, joined)
    index = case.control_points.arc_index
    for arc in range(len(case.arcs)):
        mine = index == arc
        ends = torch.nn.functional.pad(convolution.in_map(x[:, :, mine]).flatten(3), (0, 0, 1, 1))
        alone = convolution.along_arc(ends).view(1, 4, int(mine.sum()), 4, 5)
        torch.testing.assert_close(together[:, :, mine], alone)
        changed = torch.where(mine[:, None, None], x, x + 1)
        assert torch.equal(convolution(changed, joined)[:, :, mine], together[:, :, mine])


def test_arcs_of_a_batch_may_differ() -> None:
    network = denoiser()
    names = ("of two lengths", "two full turns")
    condition = torch.cat([condition_of(name, seed) for seed, name in enumerate(names)])
    x, noise = torch.randn(2, 8, 8, 8).double(), torch.tensor([-0.7, 0.4]).double()
    together = network(x, noise, condition)
    for number in range(2):
        one = slice(number, number + 1)
        torch.testing.assert_close(together[one], network(x[one], noise[one], condition[one]))


@pytest.mark.parametrize("turn", [1, 4])
def test_turning_a_ring_turns_the_output(turn: int) -> None:
    network, condition = denoiser(), condition_of("ring")
    x, noise = torch.randn(1, 6, 8, 8).double(), torch.zeros(1).double()
    turned = network(x.roll(turn, dims=1), noise, condition.roll(turn, dims=2))
    torch.testing.assert_close(turned, network(x, noise, condition).roll(turn, dims=1))
    torch.testing.assert_close(network(x, noise, condition), denoiser(arcs=False)(x, noise, condition))


@pytest.mark.parametrize("name", ["two full turns", "of two lengths", "three"])
def test_the_order_of_arcs_does_not_matter(name: str) -> None:
    """Arcs that change places, with their channels, change places in the output."""
    network, condition, order = denoiser(), condition_of(name), order_of(name)
    x, noise = torch.randn(1, 8, 8, 8).double(), torch.zeros(1).double()
    out = network(x, noise, condition)
    torch.testing.assert_close(network(x[:, order], noise, condition[:, :, order]), out[:, order])
    if name == "three":  # two arcs that change places turn a ring, three do not
        ring = denoiser(arcs=False)
        apart = ring(x[:, order], noise, condition[:, :, order]) - ring(x, noise, condition)[:, order]
        assert float(apart.detach().abs().max()) > 1e-4


@pytest.mark.parametrize("channel", range(len(ARC_CHANNELS)))
def test_every_arc_channel_matters(channel: int) -> None:
    network, condition = denoiser(), condition_of("of two lengths")
    x, noise = torch.randn(1, 8, 8, 8).double(), torch.zeros(1).double()
    changed = condition.clone()
    changed[:, 2 + channel, 2] = 0.5
    moved = network(x, noise, changed) - network(x, noise, condition)
    assert float(moved.detach().abs().max()) > 1e-4


def test_every_arc_sees_the_others() -> None:
    """Their doses add up, so attention reaches across."""
    network, condition = denoiser(), condition_of("two full turns")
    x = torch.randn(1, 8, 8, 8).double().requires_grad_()
    network(x, torch.zeros(1).double(), condition)[0, 1].sum().backward()
    assert x.grad is not None and float(x.grad[0, 6].abs().max()) > 0


def test_the_critic_keeps_arcs_apart() -> None:
    critic = scattered(FluenceCritic(2 + len(ARC_CHANNELS), channels=8, blocks=1, embedding=16, arcs=True))
    for norm in (module for module in critic.modules() if isinstance(module, nn.GroupNorm)):
        norm.forward = lambda input: input  # type: ignore[method-assign]  # its statistics are of all arcs
    condition, x = condition_of("two full turns"), torch.randn(1, 8, 8, 8).double()
    logits = critic(x, torch.zeros(1).double(), condition)
    changed = x.clone()
    changed[:, 4:] += 1
    moved = critic(changed, torch.zeros(1).double(), condition)
    assert torch.equal(moved[:, :4], logits[:, :4]) and not torch.equal(moved[:, 4:], logits[:, 4:])


def test_gradients_are_the_same_when_activations_are_recomputed() -> None:
    condition, x = condition_of("of two lengths"), torch.randn(1, 8, 8, 8).double()
    gradients = []
    for recompute in (False, True):
        network = denoiser()
        network.recompute = recompute
        network(x, torch.zeros(1).double(), condition).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_condition_without_room_for_arcs_is_refused() -> None:
    with pytest.raises(ValueError, match="expected those of the arcs"):
        FluenceDenoiser(3, arcs=True)


def test_without_arcs_a_convolution_is_padded_around_the_ring() -> None:
    """To the bit, as shipped weights were trained."""
    convolution = scattered(ArcConvolution(3, 4))
    x = torch.randn(2, 3, 7, 4, 5).double()
    ring = torch.nn.functional.pad(convolution.in_map(x).flatten(3), (0, 0, 1, 1), mode="circular")
    assert torch.equal(convolution(x), convolution.along_arc(ring).view(2, 4, 7, 4, 5))
