"""A random male pelvis made of solids, in mm about the centre of the prostate (x left, y posterior, z superior)."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_vmat.cases.phantom.bones import draw_bones
from lightning_vmat.cases.phantom.coordinates import Place, Points, Volume, turned, waved
from lightning_vmat.cases.phantom.organs import (
    draw_bladder,
    draw_bowel,
    draw_penile_bulb,
    draw_prostate,
    draw_rectum,
    draw_vesicles,
    prostate_radii,
)
from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.cases.phantom.solids import ellipsoid, intersection, union
from lightning_vmat.cases.phantom.tissues import (
    WALL_MM,
    Skin,
    abdominal_wall,
    draw_muscles,
    draw_skin,
    draw_vessels,
    pelvic_floor,
)

ASYMMETRY_SHARE = 0.15  # of the patients: pelvis turned, tilted and off the middle of the body


@dataclass(frozen=True)
class Pelvis:
    """Signed distances in mm, negative inside.

    Args:
        structures: organs, by structure name.
        prostate: prostate without seminal vesicles.
        vesicles: whole seminal vesicles.
        lesion: lesion in the prostate, the target of a boost.
        nodes: pelvic lymph nodes.
        tissues: tissues without a contour, by name: muscle, vessels, bone, metal, gas.
        skin: skin, and the fat under it.
    """

    structures: dict[str, Volume]
    prostate: Volume
    vesicles: Volume
    lesion: Volume
    nodes: Volume
    tissues: dict[str, Volume]
    skin: Skin


def draw_pelvis(points: Points, draws: Draws) -> Pelvis:
    """Draw a pelvis. All numbers are drawn in a fixed order that does not depend on the points."""
    skin = draw_skin(points, draws)
    points = waved(_off_centre(points, draws), draws, 1.6, 70.0)
    radii = prostate_radii(draws)
    prostate = draw_prostate(points, radii, draws)
    vesicles, included = draw_vesicles(points, radii, draws)
    rectum = draw_rectum(points, radii, draws)
    bladder, dome_mm = draw_bladder(points, radii, draws)
    bones = draw_bones(points, rectum.back_mm, draws)
    bowel, bowel_gas = draw_bowel(points, dome_mm, draws)
    bulb = draw_penile_bulb(points, radii, draws)
    vessels, nodes = draw_vessels(points, bones.hip, draws)
    muscle = draw_muscles(points, bones.hip, draws)
    lesion = _lesion(points, prostate, radii, draws)
    wall = intersection(rectum.inner, 1.0 - prostate, 2.0 - bones.bone)
    vesicles = intersection(vesicles, 0.5 - rectum.wall, -0.5 - prostate)
    hollow = skin.surface + skin.fat_mm + WALL_MM
    bladder = intersection(bladder, 0.5 - prostate, 1.5 - rectum.wall, 0.5 - vesicles, 2.5 - bones.bone, hollow)
    bowel = intersection(bowel, 2 - bladder, 2 - rectum.wall, 3 - bones.bone, hollow)
    organs = union(prostate, vesicles, bladder, rectum.wall, bowel)
    return Pelvis(
        structures={
            "Body": skin.surface,
            "CTV": union(prostate, intersection(included, vesicles)),
            "Rectum": wall,
            "Bladder": bladder,
            **bones.heads,
            "PenileBulb": bulb,
            "Bowel": bowel,
        },
        prostate=prostate,
        vesicles=vesicles,
        lesion=lesion,
        nodes=intersection(nodes, 1.0 - bones.bone, 3.0 - organs),
        tissues={
            "muscle": union(muscle, abdominal_wall(points, skin), pelvic_floor(points, rectum.wall, -radii[2])),
            "vessels": vessels,
            "bone": bones.bone,
            "metal": bones.metal,
            "gas": union(intersection(rectum.gas, wall + 2.5), intersection(bowel_gas, bowel + 2.5)),
        },
        skin=skin,
    )


def _off_centre(points: Points, draws: Draws) -> Points:
    """Rotate and shift the patient: most a little, some (`ASYMMETRY_SHARE`) strongly."""
    asymmetric = draws.chance(ASYMMETRY_SHARE)
    roll, tilt = (draws.normal(0.022 if asymmetric else 0.006) for _ in range(2))
    shift, wider = draws.normal(4.0 if asymmetric else 1.5), draws.normal(0.03)
    moved = turned(points, max(-0.05, min(0.05, roll)), max(-0.05, min(0.05, tilt)))
    x = moved.x + max(-9.0, min(9.0, shift))
    return Points(x * (1 + wider * (x > 0)) if asymmetric else x, moved.y, moved.z)


def _lesion(points: Points, prostate: Volume, radii: Place, draws: Draws) -> Volume:
    """A lesion in the peripheral zone of one side, 2 to 8 cc."""
    side = 1.0 if draws.chance(0.5) else -1.0
    place = (
        side * draws.uniform(0.3, 0.5) * radii[0],
        draws.uniform(0.3, 0.5) * radii[1],
        draws.uniform(-0.4, 0.4) * radii[2],
    )
    size = [draws.uniform(8.0, 12.5) for _ in range(3)]
    return intersection(ellipsoid(points, place, size), prostate + 0.5)
