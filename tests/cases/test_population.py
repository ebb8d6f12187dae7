"""Two hundred phantoms against the literature that `pelvic_organs`, `pelvic_bones` and `pelvic_tissues` cite.

`python tests/cases/test_population.py` prints the table of `lightning_vmat/cases/README.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_vmat.cases.phantom.anatomy import draw_pelvis
from lightning_vmat.cases.phantom.coordinates import grid_points
from lightning_vmat.cases.phantom.phantom import MACHINE, _centroid_mm, _grid, _masks, draw_protocol
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.machine import load_machine

SEEDS = 200
Figures = Mapping[str, NDArray[np.float64]]


def measured(seed: int) -> dict[str, float]:
    """Figures of one phantom at demo size, without its CT."""
    draws, size, machine = Draws(seed), get_size("demo"), load_machine(MACHINE)
    draw_protocol(draws)
    grid = _grid(size, False)
    pelvis = draw_pelvis(grid_points(grid.origin_mm, grid.spacing_mm, grid.shape), draws)
    masks = _masks(pelvis, grid, draws, ("PTV",))
    cc = {name: float(mask.sum()) * grid.voxel_volume_cc for name, mask in masks.items()}
    points = grid.centres_mm(torch.from_numpy(masks["PTV"]).flatten().nonzero()[:, 0])
    arc = ControlPoints.from_arcs((Arc(control_points=36, collimator_deg=10.0),))
    bev, _ = project_to_bev(points, arc, _centroid_mm(masks["PTV"], grid), machine.sad_mm)
    bone = pelvis.tissues["bone"] < 0
    return {
        "prostate": float((pelvis.prostate < 0).sum()) * grid.voxel_volume_cc,
        "vesicles": float((pelvis.vesicles < 0).sum()) * grid.voxel_volume_cc,
        "ptv": cc["PTV"],
        "bladder": cc["Bladder"],
        "rectum": cc["Rectum"],
        "rectum_area_cm2": cc["Rectum"] / (masks["Rectum"].any(axis=(1, 2)).sum() * grid.spacing_mm[2] / 10),
        "gas": float((pelvis.tissues["gas"] < 0)[masks["Rectum"]].any()),
        "metal": float((pelvis.tissues["metal"] < 0).any()),
        "width": float(masks["Body"].any(axis=(0, 1)).sum()) * grid.spacing_mm[0],
        "depth": float(masks["Body"].any(axis=(0, 2)).sum()) * grid.spacing_mm[1],
        "room_mm": 60.0 - float(bev.abs().max()),
        "in_bone": sum(float((masks[name] & bone).sum()) for name in ("Bladder", "Rectum", "CTV")),
        "cut": float(
            masks["Body"][:, [0, -1]].any() or masks["Body"][..., [0, -1]].any() or masks["Bladder"][-1].any()
        ),
    }


@pytest.fixture(scope="module")
def figures() -> Figures:
    rows = [measured(seed) for seed in range(SEEDS)]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "median", "least", "most"),
    [
        ("prostate", (40, 52), 15, 110),  # 36 ml on MRI (Bezinque 2018), a third more on CT (Roach 1996)
        ("vesicles", (5, 10), 3, 16),
        ("bladder", (240, 320), 60, 608),  # mean 282, 89 to 608 (Hynds 2011)
        ("rectum", (75, 110), 30, 210),
        ("rectum_area_cm2", (6, 9), 3, 17),
        ("width", (360, 400), 320, 430),
        ("depth", (235, 265), 200, 295),
    ],
)
def test_medians_and_ranges(figures: Figures, key: str, median: tuple[float, float], least: float, most: float) -> None:
    values = figures[key]
    assert median[0] < float(np.median(values)) < median[1]
    assert least < float(values.min()) and float(values.max()) < most
    assert float(values.std()) > 0.04 * float(values.mean())


@pytest.mark.slow
def test_bladders_vary_as_in_patients(figures: Figures) -> None:
    """Hynds, BJR 84:813, 2011: 282 ml, standard deviation 145."""
    assert float(figures["bladder"].mean()) == pytest.approx(282, rel=0.1)
    assert float(figures["bladder"].std()) == pytest.approx(145, rel=0.2)


@pytest.mark.slow
def test_shares(figures: Figures) -> None:
    assert 0.08 < float((figures["rectum_area_cm2"] > 11.2).mean()) < 0.25  # distended: de Crevoisier 2005
    assert 0.25 < float(figures["gas"].mean()) < 0.55
    assert 0.005 < float(figures["metal"].mean()) < 0.06


@pytest.mark.slow
def test_nothing_is_cut_off_and_every_target_lies_in_the_field(figures: Figures) -> None:
    """12 cm x 12 cm, with room for penumbra; organs keep out of bone; skin and bladder stay within the CT."""
    assert float(figures["room_mm"].min()) > 10
    assert not figures["in_bone"].any() and not figures["cut"].any()


if __name__ == "__main__":
    all_rows = [measured(seed) for seed in range(SEEDS)]
    for name in all_rows[0]:
        found = np.array([row[name] for row in all_rows])
        middle = f"mean {found.mean():.2f}, median {np.median(found):.1f}, standard deviation {found.std():.2f}"
        print(f"{name:16s} {middle}, {found.min():.1f} to {found.max():.1f}")
