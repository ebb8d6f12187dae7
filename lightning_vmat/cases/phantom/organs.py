"""Prostate, seminal vesicles, rectum, bladder, bowel and penile bulb of a phantom.

Volumes are drawn from the quartiles given here (least, 25 %, 50 %, 75 %, largest):

- Prostate: median of 36 ml by segmentation on MRI before prostatectomy (Bezinque, Acad Radiol 25:1582, 2018); on CT it
  looks a third larger (Roach, IJROBP 35:1011, 1996: 32 %).
- Seminal vesicles: 35 mm long, of which the target takes up to 25 mm (Kestin, IJROBP 54:686, 2002).
- Bladder: 282 ml at planning, standard deviation 145, 89 to 608 (Hynds, BJR 84:813, 2011); here 560 at most.
- Rectum: distended if its volume over its length is more than 11.2 cm2 (de Crevoisier, IJROBP 62:965, 2005); about a
  fifth are, and few hold more than 120 ml (above which Pinkawa, Radiother Oncol 81:284, 2006, saw the prostate move).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_vmat.cases.phantom.coordinates import Place, Points, Volume, mirrored, waved
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.phantom.solids import chain, cube_root, ellipsoid, intersection, tube, union

PROSTATE_CC = (20.0, 35.0, 47.0, 62.0, 96.0)
BLADDER_CC = (89.0, 175.0, 260.0, 370.0, 560.0)
RECTUM_RADIUS_MM = (12.5, 16.0, 18.2, 20.6, 26.0)
CANAL_MM = 24.0  # the rectum begins so far below the apex
GAS_SHARE = 0.45  # of the patients
NO_VESICLES_SHARE = 0.25  # of the targets: low risk, prostate only
SPHERE_CC_PER_MM3 = 4 * 3.141592653589793 / 3 / 1000


@dataclass(frozen=True)
class Rectum:
    """The rectum and its content, signed distances in mm.

    Args:
        wall: outer surface, including the anal canal.
        inner: contoured part, from the sphincter upwards.
        gas: gas in the rectum.
        back_mm: posterior end, patient y.
    """

    wall: Volume
    inner: Volume
    gas: Volume
    back_mm: float


def radii_of(volume_cc: float, shape: Place) -> Place:
    """Radii, mm, of an ellipsoid with this volume and these proportions."""
    scale = cube_root(volume_cc / SPHERE_CC_PER_MM3 / (shape[0] * shape[1] * shape[2]))
    return [scale * part for part in shape]


def prostate_radii(draws: Draws) -> Place:
    """Half axes of a prostate along x, y and z, mm; its volume follows `PROSTATE_CC`."""
    volume_cc = draws.quantiles(PROSTATE_CC)
    return radii_of(volume_cc, (draws.uniform(1.08, 1.22), draws.uniform(0.84, 0.98), draws.uniform(0.92, 1.08)))


def draw_prostate(points: Points, radii: Place, draws: Draws) -> Volume:
    """Draw the prostate: narrower towards the apex, flat or hollow at the back, uneven."""
    points = waved(points, draws, 1.0, 25.0)
    x, y, z = points.axes
    narrowing = 1.0 + draws.uniform(0.08, 0.22) * (z / radii[2]).clip(-1.0, 1.0)
    groove = (
        draws.uniform(0.0, 3.0) * (1.0 - x * x / (radii[0] * radii[0])).clip(0.0, 1.0) * (y / radii[1]).clip(0.0, 1.0)
    )
    return ellipsoid(Points(x / narrowing, y / narrowing + groove, z), (0.0, 0.0, 0.0), radii)


def draw_vesicles(points: Points, radii: Place, draws: Draws) -> tuple[Volume, Volume]:
    """Draw both seminal vesicles, and the part of them that belongs to the target (none at low risk)."""
    length, thickness = draws.uniform(28.0, 42.0), draws.uniform(5.2, 7.4)
    included = 0.0 if draws.chance(NO_VESICLES_SHARE) else draws.uniform(10.0, 25.0)
    droop, tilt = draws.uniform(-0.1, 0.25), draws.uniform(0.3, 0.7)
    points = waved(points, draws, 1.5, 30.0)
    root = (5.0, radii[1] * 0.55, radii[2] * 0.78)
    middle = (root[0] + 0.45 * length, root[1] + 0.25 * length, root[2] + 0.5 * tilt * length)
    tip = (middle[0] + 0.42 * length, middle[1] + droop * length, middle[2] + 0.35 * tilt * length)
    sides = [points, mirrored(points)]
    both = union(*(chain(side, (root, middle, tip), (thickness * 0.75, thickness, thickness * 0.7)) for side in sides))
    reach = union(*(chain(side, ((0.0, *root[1:]), root), (included, included)) for side in sides))
    return both, intersection(both, reach)


def draw_rectum(points: Points, radii: Place, draws: Draws) -> Rectum:
    """Draw the rectum from the anal canal along the prostate into the hollow of the sacrum, with folds and gas."""
    _, ry, rz = radii
    calibre, flatness = draws.quantiles(RECTUM_RADIUS_MM), draws.uniform(1.0, 1.35)
    behind = ry + calibre / math.sqrt(flatness) + draws.uniform(0.5, 2.5)
    sway = [draws.normal(5.0) for _ in range(3)]
    swell = [draws.uniform(0.82, 1.15) for _ in range(5)]
    knots = [
        (-rz - 40.0, 0.0, behind - 4, 9.0),
        (-rz - 18.0, 0.0, behind - 3, 10.5 * swell[0]),
        (-rz * 0.6, sway[0] * 0.4, behind, calibre * 0.9 * swell[1]),
        (rz * 0.5, sway[0], behind + 2, calibre * swell[2]),
        (rz + 20.0, sway[1], behind + 13, calibre * swell[3]),
        (rz + 44.0, sway[2] + sway[1], behind + 14, calibre * 0.85 * swell[4]),
        (rz + 56.0, 2 * sway[2] + sway[1], behind + 8, calibre * 0.75),
    ]
    folded = waved(points, draws, 1.8, 28.0)
    wall = tube(folded, knots, flatness)
    gas = intersection(_bubbles(points, knots, calibre, draws), wall + 3.0)
    inner = intersection(wall, -rz - CANAL_MM - folded.z)
    return Rectum(wall, inner, gas, behind + calibre / math.sqrt(flatness))


def _bubbles(points: Points, knots: list[tuple[float, float, float, float]], calibre: float, draws: Draws) -> Volume:
    """Up to three bubbles of gas at the front of the lumen, as in a supine patient."""
    present = draws.chance(GAS_SHARE)
    bubbles = []
    for number in range(3):
        _, x, y, _ = knots[2 + int(draws.uniform(0, 4))]
        z = draws.uniform(knots[2][0], knots[5][0])
        size, length = draws.uniform(0.4, 0.9) * calibre, draws.uniform(0.7, 2.2) * calibre
        there = present and draws.chance((1.0, 0.5, 0.3)[number])
        radii = (size, size * 0.75, length) if there else (1e-3, 1e-3, 1e-3)
        bubbles.append(ellipsoid(points, (x, y - calibre * 0.3, z), radii))
    return union(*bubbles)


def draw_bladder(points: Points, radii: Place, draws: Draws) -> tuple[Volume, float]:
    """Draw the bladder, flat when empty and round when full, dented from above.

    Returns:
        Signed distance, and the height of the dome, patient z in mm.
    """
    volume_cc = draws.quantiles(BLADDER_CC)
    fullness = cube_root(volume_cc / BLADDER_CC[-1])
    shape = (draws.uniform(1.12, 1.3), draws.uniform(0.9, 1.05), 0.55 + 0.4 * fullness)
    rx, ry, rz = radii_of(volume_cc * 1.03, shape)  # what neighbours take
    place = (draws.uniform(-4.0, 4.0), -draws.uniform(0.3, 0.5) * ry, radii[2] * 0.8 + rz * draws.uniform(0.86, 0.94))
    bulk = ellipsoid(waved(points, draws, 2.6, 45.0), place, (rx, ry, rz))
    dent = (draws.uniform(-0.6, 0.6) * rx, place[1] + draws.uniform(-0.5, 0.5) * ry)
    depth = draws.uniform(-0.1, 0.3) * rz  # of a loop of bowel; none if negative
    loop = draws.uniform(0.5, 0.8) * rx
    dented = intersection(bulk, -ellipsoid(points, (*dent, place[2] + rz + loop - depth), (loop, loop, loop)))
    return dented, place[2] + rz


def draw_bowel(points: Points, bladder_top_mm: float, draws: Draws) -> tuple[Volume, Volume]:
    """Draw loops of bowel above the bladder, fewer when it is full, and the gas in some of them."""
    floor = bladder_top_mm + draws.uniform(-18.0, 10.0)
    points = waved(points, draws, 4.0, 45.0)
    loops, gas = [], []
    for _ in range(14):
        start = [draws.uniform(-62.0, 62.0), draws.uniform(-58.0, 25.0), floor + draws.uniform(12.0, 80.0)]
        stop = [s + draws.normal(spread) for s, spread in zip(start, (30.0, 16.0, 8.0), strict=True)]
        calibre = draws.uniform(10.0, 15.0)
        loops.append(chain(points, (start, stop), (calibre, calibre)))
        size = calibre * draws.uniform(0.3, 0.7) if draws.chance(0.3) else 1e-3
        gas.append(ellipsoid(points, (start[0], start[1] - 0.3 * calibre, start[2]), (size, size, size)))
    return union(*loops), union(*gas)


def draw_penile_bulb(points: Points, radii: Place, draws: Draws) -> Volume:
    """Draw the penile bulb, below the apex and between the crura."""
    size = [draws.uniform(9.5, 13.0), draws.uniform(8.0, 11.0), draws.uniform(8.0, 11.0)]
    place = (0.0, -draws.uniform(0.1, 0.5) * radii[1], -radii[2] - draws.uniform(14.0, 20.0))
    return ellipsoid(waved(points, draws, 1.0, 25.0), place, size)
