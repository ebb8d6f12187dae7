"""Femurs, hip bones, sacrum and coccyx of a phantom; a hip prosthesis in a few.

Femoral heads have diameters about 48 mm (men; Milner, J Forensic Sci 57:35, 2012). One patient in 25 to 100 comes with
metal that matters (TG-63: Reft, Med Phys 30:1162, 2003); here three in a hundred have one artificial hip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_vmat.cases.phantom.coordinates import Place, Points, Volume, mirrored
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.phantom.solids import FAR_MM, chain, ellipsoid, intersection, union

SIDES = {"Left": 1.0, "Right": -1.0}
HEAD_DIAMETER_MM = (43.5, 46.6, 48.4, 50.2, 53.5)
PROSTHESIS_SHARE = 0.03


@dataclass(frozen=True)
class Bones:
    """Signed distances.

    Args:
        heads: femoral heads by structure name.
        bone: all bone.
        metal: the prosthesis; outside the volume in most phantoms.
        hip: centre of the left femoral head; the right one is its mirror image.
    """

    heads: dict[str, Volume]
    bone: Volume
    metal: Volume
    hip: Place


def draw_bones(points: Points, rectum_back_mm: float, draws: Draws) -> Bones:
    """Draw all bones. The coccyx stays behind the rectum."""
    hip = (draws.uniform(86.0, 97.0), draws.uniform(2.0, 13.0), draws.uniform(18.0, 33.0))
    radius, scale = draws.quantiles(HEAD_DIAMETER_MM) / 2, draws.uniform(0.95, 1.05)
    artificial = draws.chance(PROSTHESIS_SHARE)
    operated = "Left" if draws.chance(0.5) else "Right"
    heads, bones, metal = {}, [_sacrum(points, rectum_back_mm, scale, draws)], np.full(points.shape, FAR_MM)
    for side, sign in SIDES.items():
        here = points if sign > 0 else mirrored(points)
        head, femur = _femur(here, hip, radius, scale)
        heads[f"FemoralHead{side}"] = head
        bones += [femur, _hip_bone(here, hip, radius, scale)]
        if artificial and side == operated:
            metal = _prosthesis(here, hip, radius, scale)
    return Bones(heads, union(*bones), metal, hip)


def _trochanter(hip: Place, scale: float) -> Place:
    return hip[0] + 47 * scale, hip[1] + 12 * scale, hip[2] - 20 * scale


def _femur(points: Points, hip: Place, radius: float, scale: float) -> tuple[Volume, Volume]:
    """The head with the beginning of the neck, and the whole bone."""
    x, y, z = _trochanter(hip, scale)
    head = ellipsoid(points, hip, (radius, radius, radius))
    neck = chain(points, (hip, (x, y, z)), (15.0, 16.0))
    great = ellipsoid(points, (x + 3, y + 6, z + 8), (15.0, 19.0, 22.0))
    shaft = chain(points, ((x, y, z), (x - 5, y - 2, z - 40), (x - 9, y - 6, z - 110)), (20.0, 17.0, 14.0))
    lesser = ellipsoid(points, (x - 20, y + 12, z - 36), (10.0, 10.0, 14.0))
    return union(head, intersection(neck, head - 5.0)), union(head, neck, great, shaft, lesser)


def _prosthesis(points: Points, hip: Place, radius: float, scale: float) -> Volume:
    """A hip prosthesis: ball, cup, neck and stem."""
    x, y, z = _trochanter(hip, scale)
    ball = ellipsoid(points, hip, (radius, radius, radius))
    elbow = (hip[0] + 33 * scale, hip[1] + 8, hip[2] - 14 * scale)
    return union(
        ball, chain(points, (hip, elbow, (x - 5, y - 2, z - 40), (x - 9, y - 6, z - 105)), (9.0, 9.0, 7.0, 5.0))
    )


def _hip_bone(points: Points, hip: Place, radius: float, scale: float) -> Volume:
    """One hip bone (left side): acetabulum, ilium, ischium and pubis."""
    x, y, z = hip
    around = ellipsoid(points, hip, (radius, radius, radius))
    facing = (points.x - x) * 0.8 - 0.9 * (points.z - z) - 0.35 * (points.y - y) - 7  # opens outwards and down
    cup = intersection(around - 11, 3.5 - around, facing)
    body, symphysis, arch = (
        (11.0 * scale, -47.0 * scale, 4.0),
        (10.0 * scale, -43.0 * scale, -14.0),
        (17.0, -32.0, -32.0),
    )
    ischium = (x - 38.0, y + 34.0, z - 76.0)
    back = (46.0 * scale, 84.0, z + 84.0)
    rods = [
        chain(points, ((x - 24.0, y - 20.0, z - 2.0), (x - 50.0, y - 38.0, z - 10.0), body), (12.0, 8.0, 9.0)),
        chain(points, (body, symphysis, arch), (9.5, 9.0, 7.0)),
        chain(points, ((x - 24.0, y + 14.0, z - 14.0), (x - 34.0, y + 32.0, z - 46.0), ischium), (14.0, 13.0, 14.0)),
        chain(points, (ischium, (x - 52.0, y + 4.0, z - 74.0), arch), (11.0, 7.0, 6.0)),
        chain(points, ((x - 6.0, y + 8.0, z + 30.0), (x - 2.0, y + 26.0, z + 64.0), back), (15.0, 9.0, 11.0)),
        chain(points, ((x - 4.0, y + 4.0, z + 30.0), (x + 16.0, y + 2.0, z + 74.0)), (13.0, 7.0)),
    ]
    blade = ellipsoid(points, (x + 4.0, y + 24.0, z + 92.0), (7.0, 42.0, 52.0))
    return union(cup, blade, *rods)


def _sacrum(points: Points, rectum_back_mm: float, scale: float, draws: Draws) -> Volume:
    """Coccyx, sacrum and the last lumbar vertebra: flat, curved, narrower downwards."""
    hollow = draws.uniform(84.0, 92.0)
    tip = max(hollow - 26.0, rectum_back_mm + 5.0)
    axis = [
        (0.0, tip, 14.0 * scale),
        (0.0, max(hollow - 8.0, tip + 6.0), 34.0 * scale),
        (0.0, max(hollow + 4.0, tip + 10.0), 66.0 * scale),
        (0.0, hollow - 20.0, 112.0 * scale),
    ]
    lumbar = chain(points, ((0.0, hollow - 36.0, 136.0 * scale), (0.0, hollow - 44.0, 172.0 * scale)), (25.0, 24.0))
    return union(chain(Points(points.x * 0.42, points.y, points.z), axis, (4.0, 8.0, 13.0, 21.0)), lumbar)
