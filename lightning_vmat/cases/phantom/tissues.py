"""Skin, fat, muscles, vessels and pelvic lymph nodes of a phantom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_vmat.cases.phantom.coordinates import Place, Points, Volume, mirrored, waved
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.phantom.solids import chain, ellipsoid, intersection, union

BODY_CENTRE_Y_MM = 12.0
WALL_MM = 9.0  # thickness of the abdominal muscles, under the fat
VESSEL_RADIUS_MM, NODES_RADIUS_MM = 6.0, 12.5  # nodes: the vessels with 7 mm (Hall, IJROBP 109:174, 2021)


@dataclass(frozen=True)
class Skin:
    """Signed distance of the skin, and thickness of the fat under it, mm."""

    surface: Volume
    fat_mm: float


def draw_skin(points: Points, draws: Draws) -> Skin:
    """Draw a rounded outline, thinner downwards, with the gluteal cleft. Width, depth and fat are correlated."""
    stout = draws.quantiles((0.0, 0.3, 0.5, 0.68, 1.0))
    width, depth = 171.0 + 34.0 * stout + draws.normal(2.5), 108.0 + 30.0 * stout + draws.normal(2.5)
    fat_mm = 11.0 + 20.0 * stout + draws.normal(2.0)
    roundness, taper = draws.uniform(0.25, 0.6), draws.uniform(0.0, 0.06)
    belly = draws.uniform(0.0, 10.0) * stout
    points = waved(points, draws, 1.5, 120.0)
    x, y, z = points.x, points.y - BODY_CENTRE_Y_MM, points.z
    scale = 1 + taper * np.clip(z, -90, 0) / 90
    front = depth + belly * np.clip((z - 20) / 80, 0, 1) * (y < 0)
    across, along = x / (width * scale), y / (front * scale)
    squares = (across * across, along * along)
    circle = np.sqrt(squares[0] + squares[1])
    box = np.sqrt(np.sqrt(squares[0] * squares[0] + squares[1] * squares[1]))
    skin = (circle * roundness + box * (1 - roundness) - 1) * depth
    behind = y - draws.uniform(66.0, 76.0) - (z + 10) * 0.55
    deep = np.minimum(np.where(behind > 0, 0.14 * behind, behind), draws.uniform(5.0, 9.0))
    return Skin(np.maximum(skin, deep - np.abs(x)), fat_mm)


def draw_muscles(points: Points, hip: Place, draws: Draws) -> Volume:
    """Draw the muscles of hip, thigh, pelvis and back, on both sides."""
    bulk, points = draws.uniform(1.15, 1.4), waved(points, draws, 3.0, 45.0)
    return union(*(_muscles_of_a_side(side, hip, bulk) for side in (points, mirrored(points))))


def _muscles_of_a_side(points: Points, hip: Place, bulk: float) -> Volume:
    """Muscles of the left side. Each line is a muscle or group: places along it, and its radius at each."""
    x, y, z = hip
    lines: list[tuple[list[Place], list[float]]] = [
        ([(34.0, 102.0, 100.0), (58.0, 98.0, 40.0), (x + 24, 62.0, -40.0)], [16, 32, 22]),  # gluteus maximus
        ([(34.0, 96.0, 30.0), (52.0, 82.0, -20.0), (62.0, 70.0, -70.0)], [18, 30, 28]),
        ([(x + 2, 88.0, 30.0), (x + 34, 62.0, 10.0)], [28, 18]),
        ([(x + 14, y + 36, z + 104), (x + 34, y + 22, z + 44), (x + 46, y + 8, z - 4)], [20, 28, 12]),  # medius
        ([(x + 20, y - 4, z + 60), (x + 34, y - 4, z + 14)], [20, 14]),  # minimus
        (
            [(x - 26, y + 8, z + 130), (x - 18, y - 14, z + 70), (x - 8, y - 36, z + 6), (x, y - 10, z - 60)],
            [32, 25, 20, 12],
        ),
        ([(x + 26, y - 42, z + 20), (x + 24, y - 44, z - 30), (x + 10, y - 44, z - 110)], [13, 21, 32]),  # thigh, front
        (
            [(x + 50, y - 26, z + 40), (x + 44, y - 36, z - 20), (x + 28, y - 14, z - 110)],
            [12, 17, 30],
        ),  # tensor, vastus
        ([(16.0, -44.0, -8.0), (x - 44, y - 24, z - 76), (x - 30, y - 10, z - 120)], [14, 29, 36]),  # adductors
        (
            [(x - 34, y - 10, z - 30), (x - 20, y + 6, z - 40), (x + 20, y + 22, z - 24)],
            [17, 15, 9],
        ),  # external obturator
        (
            [(x - 40, y - 24, z - 8), (x - 44, y + 6, z - 18), (x - 40, y + 36, z - 40)],
            [9, 12, 10],
        ),  # internal obturator
        ([(x - 38, y - 14, z + 22), (x - 40, y + 18, z + 14)], [9, 11]),
        ([(x - 38, y + 36, z - 86), (x - 30, y + 34, z - 120)], [15, 22]),  # hamstrings
        ([(30.0, 88.0, 82.0), (62.0, 74.0, 54.0), (x + 20, y + 26, z + 8)], [11, 15, 8]),  # piriformis
        ([(34.0, 110.0, 172.0), (28.0, 110.0, 96.0)], [22, 10]),  # erector of the spine
    ]
    return union(*(chain(points, places, [bulk * r for r in radii]) for places, radii in lines))


def abdominal_wall(points: Points, skin: Skin) -> Volume:
    """The layer of muscle under the fat of the abdomen, down to the pubic bone."""
    depth = skin.surface + skin.fat_mm
    return intersection(depth, -depth - WALL_MM, points.y + 30.0, 14.0 - points.z)


def pelvic_floor(points: Points, rectum: Volume, apex_mm: float) -> Volume:
    """The levator muscle, a sling around the anal canal and the apex."""
    funnel = ellipsoid(points, (0.0, 20.0, apex_mm + 6.0), (44.0, 40.0, 26.0))
    shell = intersection(np.abs(funnel) - 2.5, points.z - apex_mm - 8.0)
    return union(shell, intersection(rectum - 5.0, points.z - apex_mm))


def draw_vessels(points: Points, hip: Place, draws: Draws) -> tuple[Volume, Volume]:
    """Draw the iliac vessels and the pelvic nodes along them, with obturator and presacral nodes (Hall 2021)."""
    points = waved(points, draws, 2.0, 60.0)
    x, y, z = hip
    fork = (40.0 + draws.normal(3.0), 44.0 + draws.normal(3.0), 92.0 + draws.normal(5.0))
    outer = [(15.0, 22.0, 138.0), fork, (54.0, 4.0, 64.0), (x - 26, y - 40, z + 8)]
    inner = [fork, (50.0, 58.0, 64.0), (54.0, 34.0, 32.0)]
    groin = [outer[-1], (x - 20, y - 52, z - 40), (x - 14, y - 48, z - 110)]
    obturator = [outer[-2], (56.0, 6.0, 36.0), (54.0, 2.0, 16.0)]
    vessels, nodes = [], []
    for side in (points, mirrored(points)):
        vessels += [chain(side, line, [VESSEL_RADIUS_MM] * len(line)) for line in (outer, inner, groin)]
        nodes += [chain(side, line, [NODES_RADIUS_MM] * len(line)) for line in (outer, inner, obturator)]
    nodes.append(chain(points, ((-16.0, 58.0, 96.0), (16.0, 58.0, 96.0)), (9.0, 9.0)))
    top_mm = draws.uniform(104.0, 116.0)
    return union(*vessels), intersection(union(*nodes), points.z - top_mm)
