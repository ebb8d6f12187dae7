"""The denoiser treats the arc as a ring, and any number of control points fits."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks import SABlock
from torch import nn

from lightning_vmat.networks.arc_blocks import SelfAttention
from lightning_vmat.networks.denoiser import FluenceDenoiser


def network(seed: int = 0, patch: int = 1) -> FluenceDenoiser:
    """A small denoiser with every weight random, so that no path is silent."""
    torch.manual_seed(seed)
    denoiser = FluenceDenoiser(3, channels=(8, 16), heads=2, embedding=16, patch=patch)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.1)
    return denoiser.double().eval()


@pytest.mark.parametrize("control_points", [5, 12])
@pytest.mark.parametrize("turn", [1, 4])
@pytest.mark.parametrize("patch", [1, 2])
def test_turning_the_arc_turns_the_output(control_points: int, turn: int, patch: int) -> None:
    denoiser = network(patch=patch)
    x = torch.randn(2, control_points, 4, 8).double()
    condition = torch.randn(2, 3, control_points, 4, 8).double()
    c_noise = torch.tensor([-0.7, 0.4]).double()
    out = denoiser(x, c_noise, condition)
    turned = denoiser(x.roll(turn, dims=1), c_noise, condition.roll(turn, dims=2))
    assert out.std().item() > 1e-2
    torch.testing.assert_close(turned, out.roll(turn, dims=1))


def test_every_control_point_sees_the_opposed_one() -> None:
    denoiser = network()
    x = torch.randn(1, 24, 4, 4).double().requires_grad_()
    denoiser(x, torch.zeros(1).double(), torch.randn(1, 3, 24, 4, 4).double())[0, 0].sum().backward()
    assert x.grad is not None and x.grad[0, 12].abs().max().item() > 0


def test_samples_of_a_batch_do_not_mix() -> None:
    denoiser = network()
    x, condition = torch.randn(2, 6, 4, 4).double(), torch.randn(2, 3, 6, 4, 4).double()
    c_noise = torch.tensor([-0.7, 0.4]).double()
    together = denoiser(x, c_noise, condition)
    alone = denoiser(x[1:], c_noise[1:], condition[1:])
    torch.testing.assert_close(together[1:], alone)


def test_noise_level_and_condition_matter() -> None:
    denoiser = network()
    x, condition, zero = torch.randn(1, 6, 4, 4).double(), torch.randn(1, 3, 6, 4, 4).double(), torch.zeros(1).double()
    out = denoiser(x, zero, condition)
    assert (denoiser(x, zero + 0.5, condition) - out).abs().max().item() > 1e-3
    assert (denoiser(x, zero, condition + 1) - out).abs().max().item() > 1e-3


def test_untrained_network_returns_its_bias() -> None:
    denoiser = FluenceDenoiser(2)
    out = denoiser(torch.randn(1, 4, 4, 4), torch.zeros(1), torch.randn(1, 2, 4, 4, 4))
    assert out.unique().numel() == 1


@pytest.mark.parametrize(
    ("shape", "channels", "message"), [((4, 4, 4), 2, "condition of shape"), ((4, 6, 4), 3, "multiples of 4")]
)
def test_inputs_that_do_not_fit_are_named(shape: tuple[int, int, int], channels: int, message: str) -> None:
    denoiser = FluenceDenoiser(3)
    with pytest.raises(ValueError, match=message):
        denoiser(torch.zeros(1, *shape), torch.zeros(1), torch.zeros(1, channels, *shape))


def test_a_beamlet_of_a_patch_keeps_its_place() -> None:
    """Moving everything by a patch on the lower level moves the output, away from the maps' edges."""
    denoiser, zero = network(patch=2), torch.zeros(1).double()
    for norm in (module for module in denoiser.modules() if isinstance(module, nn.GroupNorm)):
        norm.forward = lambda input: input  # type: ignore[method-assign]  # its statistics are of whole maps
    x, condition = torch.randn(1, 3, 64, 64).double(), torch.randn(1, 3, 3, 64, 64).double()
    out = denoiser(x, zero, condition)[0]
    moved = denoiser(x.roll((4, 4), (2, 3)), zero, condition.roll((4, 4), (3, 4)))[0]
    assert out[0, 30, 30] != out[0, 30, 31] and out[0, 30, 30] != out[0, 31, 30]
    torch.testing.assert_close(moved[:, 34:38, 34:38], out[:, 30:34, 30:34])


def test_patches_come_back_as_they_were() -> None:
    maps = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(1, 2, 3, 4, 6)
    denoiser = FluenceDenoiser(1, patch=2)
    patches = denoiser._to_patches(maps)
    assert patches.shape == (1, 8, 3, 2, 3)
    assert torch.equal(denoiser._from_patches(patches), maps)


@pytest.mark.parametrize("patch", [0, -1])
def test_a_patch_without_beamlets_is_refused(patch: int) -> None:
    with pytest.raises(ValueError, match="patch"):
        FluenceDenoiser(3, patch=patch)


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        FluenceDenoiser(3, channels=(12,))


def test_recomputing_activations_changes_no_gradient_and_keeps_less() -> None:
    x, condition = torch.randn(2, 8, 8, 8).double(), torch.randn(2, 3, 8, 8, 8).double()
    gradients, kept = [], []
    for recompute in (False, True):
        denoiser = network()
        denoiser.recompute = recompute
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, found: dict[int, int] = storages) -> torch.Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = denoiser(x, torch.zeros(2).double(), condition).square().mean()
        kept.append(sum(storages.values()))
        loss.backward()
        gradients.append([parameter.grad for parameter in denoiser.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert kept[1] < 0.5 * kept[0]


def test_attention_is_that_of_monai() -> None:
    """The same weights from a seed, by the same names, and the same values to the bit."""
    torch.manual_seed(3)
    ours = SelfAttention(24, 4)
    torch.manual_seed(3)
    theirs = SABlock(24, 4, use_flash_attention=True)
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name
    x = torch.randn(5, 12, 24)
    assert torch.equal(ours(x), theirs(x))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="attention of 24 channels and 5 heads"):
        SelfAttention(24, 5)
