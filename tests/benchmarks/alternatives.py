"""Other networks and inputs than the shipped ones, by the regression that each learns.

`python tests/benchmarks/alternatives.py --json F`. All see the same cases in the same order, with the settings of
`configs/regression.yaml` but for fewer epochs; judged on validation phantoms. Takes six minutes an alternative on one
core, after five minutes for loading.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.data.batch import PlanBatch, PlanItem
from lightning_vmat.data.batching import SameShapeBatches
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.data.transforms import item_transform
from lightning_vmat.networks.arc_blocks import ResidualBlock
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.networks.denoiser import FluenceDenoiser
from lightning_vmat.plan.aperture import delivered_fluence
from lightning_vmat.plan.case import Case
from lightning_vmat.recipes.base import fluence_error, warmup_cosine
from lightning_vmat.recipes.regression import Regression

STRUCTURES = ["Rectum", "Bladder", "FemoralHeadLeft", "FemoralHeadRight", "Bowel", "PenileBulb"]
CHANNELS = 2 + len(STRUCTURES)
WARMUP_STEPS = 200


def network(condition_channels: int = CHANNELS) -> FluenceDenoiser:
    """That of `configs/regression.yaml`."""
    return FluenceDenoiser(condition_channels, channels=[48, 96], patch=2)


class FullConvolution(nn.Module):
    """A 3 x 3 x 3 convolution, circular along the arc, in place of one in the map and one along the arc."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.along_arc = nn.Conv3d(in_channels, out_channels, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.along_arc(nn.functional.pad(x, (0, 0, 0, 0, 1, 1), mode="circular"))
        return maps


class Apertures(FluenceDenoiser):
    """Leaf tips and monitor units for each control point, as the maps that these deliver.

    A tip is the mean place under a softmax over the beamlets of its row, which begins with the leaves open; monitor
    units are a softplus of a mean.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(CHANNELS, channels=[48, 96], patch=2)
        self.case = case
        head = nn.Conv3d(48, 3 * self.patch**2, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(head.weight)
        self.head[-1] = head

    def _from_patches(self, h: Tensor) -> Tensor:
        grid = self.case.beamlets
        logits = rearrange(h, "n (c p q) cp lp b -> c n cp (lp p) (b q)", p=self.patch, q=self.patch)
        ramp = torch.linspace(-2.0, 2.0, grid.beamlets)
        tips = torch.stack((logits[0] - ramp, logits[1] + ramp))
        left_mm, right_mm = (tips.softmax(dim=-1) * grid.beamlet_centres_mm).sum(dim=-1)
        mu = nn.functional.softplus(logits[2].mean(dim=(-2, -1)))
        maps = [delivered_fluence(*one, self.case.beam_setup) for one in zip(left_mm, right_mm, mu, strict=True)]
        return torch.stack(maps)[:, None]


def without_attention() -> FluenceDenoiser:
    plain = network()
    plain.middle = nn.Identity()  # type: ignore[assignment]
    return plain


def with_full_convolutions() -> FluenceDenoiser:
    full = network()
    for block in [module for module in full.modules() if isinstance(module, ResidualBlock)]:
        for name in ("first", "second"):
            in_map = getattr(block, name).in_map
            setattr(block, name, FullConvolution(in_map.in_channels, in_map.out_channels))
        nn.init.zeros_(block.second.along_arc.weight)
    return full


def with_gradient(item: PlanItem) -> PlanItem:
    """One more channel: the step downhill from the open field, each beamlet's scaled by the majoriser."""
    problem = item.problem
    assert problem is not None
    _, gradient, dose_gy = problem.evaluate(problem.open_field)
    step = (-gradient / problem.majoriser(dose_gy)).clamp(-3.0, 3.0)
    return replace(item, condition=torch.cat((item.condition, step[None])))


def train(net: nn.Module, items: list[PlanItem], epochs: int) -> nn.Module:
    """The running average of a regression's weights."""
    recipe = Regression(net, lambda parameters: torch.optim.AdamW(parameters, lr=1.5e-3, weight_decay=0.01))
    optimizer = recipe.make_optimizer(net.parameters())
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    epoch = 0
    batches = SameShapeBatches([(1,)] * len(items), 2, True, progress=lambda: (epoch, 0))
    schedule = warmup_cosine(optimizer, WARMUP_STEPS, epochs * len(batches))["lr_scheduler"]["scheduler"]  # type: ignore[index]
    for epoch in range(epochs):  # noqa: B007 - `batches` reads it
        for batch in DataLoader(items, batch_sampler=batches, collate_fn=PlanBatch.collate):  # type: ignore[arg-type]
            error = recipe(batch.condition) - batch.reference
            optimizer.zero_grad()
            (error.abs().mean() + error.square().mean()).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
    return average.module


@torch.no_grad()
def judge(net: nn.Module, items: list[PlanItem]) -> dict[str, float]:
    """Mean error of the maps, and median over cases of their objective and of that over the reference plan's."""
    recipe, rows = Regression(net, torch.optim.AdamW), []
    for item in items:
        batch = PlanBatch.collate([item])
        maps, reference = recipe.generate(batch), batch.reference
        values = [float(batch.objective(x)) for x in (maps, reference)]
        rows.append([float(fluence_error(maps, reference)), values[0], values[0] / values[1]])
    table = torch.tensor(rows)
    medians = table.median(dim=0).values.tolist()
    return {"fluence_error": float(table[:, 0].mean()), "objective": medians[1], "over_reference": medians[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of alternatives; all if not given")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cases", type=int, help="of each split; all if not given")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    cohort = read_cohort(unpacked(Path("prostate_wished")))
    transform = item_transform(ChannelSettings(STRUCTURES), 15000, True)
    folders = {part: cohort.folders(part)[: options.cases] for part in ("train", "validation")}
    items = {part: [transform({"case_dir": folder}) for folder in those] for part, those in folders.items()}
    alternatives: dict[str, Callable[[], nn.Module]] = {
        "as shipped": network,
        "gradient": lambda: network(CHANNELS + 1),
        "apertures": lambda: Apertures(read_case(folders["train"][0])),
        "no attention": without_attention,
        "full convolutions": with_full_convolutions,
    }
    results = {}
    for name in options.only or alternatives:
        seen = {part: [with_gradient(i) if name == "gradient" else i for i in those] for part, those in items.items()}
        torch.manual_seed(0)
        net, begin = alternatives[name](), time.perf_counter()
        parameters = sum(p.numel() for p in net.parameters())
        trained = train(net, seen["train"], options.epochs)
        seconds = time.perf_counter() - begin
        results[name] = {"parameters": parameters, "seconds": seconds, **judge(trained, seen["validation"])}
        print(name, results[name], flush=True)
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
