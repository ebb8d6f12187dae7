"""The critic treats the arc as a ring."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.networks.critic import FluenceCritic


@pytest.mark.parametrize("patch", [1, 2])
def test_turning_the_arc_turns_the_logits(patch: int) -> None:
    critic = FluenceCritic(3, channels=8, embedding=16, patch=patch).double()
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, condition = torch.randn(2, 7, 4, 8).double(), torch.randn(2, 3, 7, 4, 8).double()
    c_noise = torch.tensor([-0.7, 0.4]).double()
    logits = critic(x, c_noise, condition)
    assert logits.shape == (2, 7, 4 // patch, 8 // patch)
    assert logits.std().item() > 1e-2
    turned = critic(x.roll(2, dims=1), c_noise, condition.roll(2, dims=2))
    torch.testing.assert_close(turned, logits.roll(2, dims=1))


def test_another_condition_is_named() -> None:
    critic = FluenceCritic(3, channels=8, embedding=16)
    with pytest.raises(ValueError, match="condition of 2 channels, expected the critic's 3"):
        critic(torch.zeros(1, 7, 4, 8), torch.zeros(1), torch.zeros(1, 2, 7, 4, 8))
