"""A random male pelvis made of solids, in mm about the centre of the prostate (x left, y posterior, z superior)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_vmat.data.solids import Place, Points, Volume, capsule, ellipsoid, intersection, mirrored, tube, union

Rng = np.random.Generator
BODY_CENTRE_Y_MM = 12.0
SIDES = {"Left": 1.0, "Right": -1.0}


@dataclass(frozen=True)
class Pelvis:
    """Signed distances in mm, negative inside: structures by name, and the tissues that only the CT shows."""

    structures: dict[str, Volume]
    bone: Volume
    cavity: Volume
    gas: Volume
    fat_mm: float


def draw_pelvis(points: Points, rng: Rng) -> Pelvis:
    """Every number is drawn in a fixed order that does not depend on the points."""
    body, fat_mm = _body(points, rng)
    points = _warp(points, rng)
    radii = _prostate_radii(rng)
    ctv = _ctv(points, radii, rng)
    rectum, gas = _rectum(points, radii, rng)
    bladder, bladder_top_mm = _bladder(points, radii, rng)
    heads, bone = _bones(points, rng)
    structures = {
        "Body": body,
        "CTV": ctv,
        "Rectum": intersection(rectum, 1.0 - ctv),
        "Bladder": intersection(bladder, 0.5 - ctv, 1.5 - rectum),
        **heads,
        "PenileBulb": ellipsoid(points, (0.0, -radii[1] * 0.3, -radii[2] - 17.0), (11.0, 9.0, 8.0)),
    }
    bowel = _bowel(points, bladder_top_mm, rng)
    structures["Bowel"] = intersection(bowel, 2 - bladder, 2 - rectum, 3 - bone)
    cavity = ellipsoid(points, (0.0, 14.0, 35.0), (54.0, 58.0, 85.0))
    return Pelvis(structures, bone, cavity, intersection(gas, rectum + 2.5), fat_mm)


def _uniform(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _warp(points: Points, rng: Rng, amplitude_mm: float = 2.5) -> Points:
    """A smooth random displacement, the same for all organs, so that they stay apart as they were."""
    moved = points.copy()
    for axis in range(3):
        for _ in range(3):
            direction = rng.normal(size=3)
            wave = 2.0 * np.pi / _uniform(rng, 70.0, 200.0) * direction / np.linalg.norm(direction)
            phase = _uniform(rng, 0.0, 2.0 * np.pi) + sum(np.float32(w) * p for w, p in zip(wave, points, strict=True))
            moved[axis] += np.float32(amplitude_mm * rng.normal() * 0.6) * np.sin(phase, dtype=np.float32)
    return moved


def _body(points: Points, rng: Rng) -> tuple[Volume, float]:
    """Skin: a superellipse that narrows downwards, with the gluteal cleft; and the thickness of fat under it."""
    width, depth = _uniform(rng, 172.0, 208.0), _uniform(rng, 111.0, 138.0)
    taper, power = _uniform(rng, 0.0, 0.05), _uniform(rng, 2.2, 2.7)
    x, y, z = points[0], points[1] - BODY_CENTRE_Y_MM, points[2]
    scale = 1 + np.float32(taper) * np.clip(z, -90, 0) / 90
    level = (np.abs(x / (width * scale)) ** power + np.abs(y / (depth * scale)) ** power) ** (1 / power)
    skin = (level - 1) * depth
    cleft_y = _uniform(rng, 62.0, 72.0)
    cleft = np.abs(x) - np.clip((y - cleft_y - (z + 10) * 0.6) * 0.22, -200, 11)
    body = np.maximum(skin, -cleft).astype(np.float32)
    return body, _uniform(rng, 14.0, 30.0) * depth / 120.0


def _prostate_radii(rng: Rng) -> tuple[float, float, float]:
    volume_mm3 = 1000 * float(np.exp(rng.uniform(np.log(22), np.log(75))))
    shape = np.array([_uniform(rng, 1.1, 1.25), _uniform(rng, 0.84, 0.98), _uniform(rng, 0.92, 1.08)])
    radii = shape / shape.prod() ** (1 / 3) * (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3)
    return float(radii[0]), float(radii[1]), float(radii[2])


def _ctv(points: Points, radii: Place, rng: Rng) -> Volume:
    """Prostate, narrower towards the apex, and the first part of the seminal vesicles."""
    _, ry, rz = radii
    narrowing = 1.0 + np.float32(_uniform(rng, 0.08, 0.2)) * np.clip(points[2] / rz, -1.0, 1.0)
    shaped = np.stack((points[0] / narrowing, points[1] / narrowing, points[2]))
    prostate = ellipsoid(shaped, (0.0, 0.0, 0.0), radii)
    length, lift, thickness = _uniform(rng, 10.0, 20.0), _uniform(rng, 4.0, 10.0), _uniform(rng, 4.5, 6.5)
    start, stop = (4.0, ry * 0.6, rz * 0.7), (4.0 + length, ry * 0.6 + 6.0, rz * 0.7 + lift)
    vesicles = [capsule(p, start, stop, thickness, thickness) for p in (points, mirrored(points))]
    return union(prostate, *vesicles)


def _rectum(points: Points, radii: Place, rng: Rng) -> tuple[Volume, Volume]:
    """A tube from the anal canal along the back of the prostate into the hollow of the sacrum; and a gas bubble."""
    _, ry, rz = radii
    calibre, flatness = _uniform(rng, 12.0, 17.5), _uniform(rng, 1.0, 1.35)
    behind = ry + calibre / np.sqrt(flatness) + _uniform(rng, 0.5, 2.5)
    sway = rng.normal(0, 5, size=3)
    swell = rng.uniform(0.85, 1.15, size=5)
    knots = np.array(
        [
            [-rz - 38, 0.0, behind - 4, 8.0],
            [-rz - 18, 0.0, behind - 3, 9.5 * swell[0]],
            [-rz * 0.6, sway[0] * 0.4, behind, calibre * 0.9 * swell[1]],
            [rz * 0.5, sway[0], behind + 2, calibre * swell[2]],
            [rz + 20, sway[1], behind + 13, calibre * swell[3]],
            [rz + 48, sway[2] + sway[1], behind + 14, calibre * 0.85 * swell[4]],
            [rz + 66, 2 * sway[2] + sway[1], behind + 4, calibre * 0.7],
        ]
    )
    has_gas, height = rng.random() < 0.45, _uniform(rng, -rz, rz + 40.0)
    size = rng.uniform(0.45, 0.85, size=2) * calibre
    centre = [float(np.interp(height, knots[:, 0], knots[:, i])) for i in (1, 2)]
    bubble = (size[0], size[0] * 0.8, size[1] * 1.8) if has_gas else (1e-3, 1e-3, 1e-3)
    gas = ellipsoid(points, (centre[0], centre[1] - calibre * 0.25, height), bubble)
    return tube(points, knots, flatness), gas


def _bladder(points: Points, radii: Place, rng: Rng) -> tuple[Volume, float]:
    """An ellipsoid on top of the prostate, flatter when empty; and the height of its dome."""
    volume_mm3 = 1000 * float(np.exp(rng.uniform(np.log(75), np.log(340))))
    fullness = (volume_mm3 / 340_000) ** (1 / 3)
    shape = np.array([_uniform(rng, 1.15, 1.3), _uniform(rng, 0.9, 1.05), 0.62 + 0.3 * fullness])
    rx, ry, rz = shape / shape.prod() ** (1 / 3) * (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3)
    centre = (_uniform(rng, -4.0, 4.0), -_uniform(rng, 0.3, 0.5) * ry, radii[2] * 0.8 + rz * _uniform(rng, 0.86, 0.95))
    return ellipsoid(points, centre, (rx, ry, rz)), centre[2] + float(rz)


def _bowel(points: Points, bladder_top_mm: float, rng: Rng) -> Volume:
    """Loops that lie above the bladder; with a full one, few reach into the volume."""
    floor = bladder_top_mm + _uniform(rng, -18.0, 12.0)
    loops = []
    for _ in range(9):
        start = np.array([_uniform(rng, -55.0, 55.0), _uniform(rng, -55.0, 25.0), floor + _uniform(rng, 14.0, 45.0)])
        stop = start + rng.normal(0, 1, size=3) * np.array([30, 16, 6])
        calibre = _uniform(rng, 10.0, 14.0)
        loops.append(capsule(points, start.tolist(), stop.tolist(), calibre, calibre))
    return union(*loops)


def _bones(points: Points, rng: Rng) -> tuple[dict[str, Volume], Volume]:
    """Femoral heads by name; and all bone: femurs, hip bones, pubis, sacrum and coccyx."""
    hip = np.array([_uniform(rng, 86.0, 98.0), _uniform(rng, 2.0, 14.0), _uniform(rng, 18.0, 34.0)])
    head_mm, stretch = _uniform(rng, 22.5, 26.0), _uniform(rng, 0.94, 1.06)
    heads, bones = {}, [_sacrum(points, stretch, rng)]
    for side, sign in SIDES.items():
        here = points if sign > 0 else mirrored(points)
        head = ellipsoid(here, hip.tolist(), (head_mm, head_mm, head_mm))
        trochanter = hip + np.array([48, 14, -18]) * stretch
        neck = capsule(here, hip.tolist(), trochanter.tolist(), 15.0, 16.0)
        shaft = capsule(here, trochanter.tolist(), (trochanter + np.array([-6.0, -2.0, -90])).tolist(), 20.0, 15.0)
        heads[f"FemoralHead{side}"] = union(head, intersection(neck, here[0] - float(hip[0] + 1.1 * head_mm)))
        bones += [head, neck, shaft, _hip_bone(here, hip, head_mm, stretch)]
    return heads, union(*bones)


def _hip_bone(points: Points, hip: np.ndarray[tuple[int], np.dtype[np.float64]], head_mm: float, s: float) -> Volume:
    """One hip bone (left side): acetabulum, ilium, ischium and pubis."""
    around = ellipsoid(points, hip.tolist(), (head_mm, head_mm, head_mm))
    x, y, z = hip.tolist()
    facing = (points[0] - x) - 0.9 * (points[2] - z) - 6  # the cup opens outwards and down
    cup = intersection(around - 11, 3 - around, facing)
    pubis, ischium = (11.0 * s, -46.0 * s, 4.0), (x - 36.0, y + 34.0, z - 78.0)
    ilium = capsule(points, (x - 4.0, y + 8.0, z + 32.0), (x + 2.0, y + 32.0, z + 110.0), 13.0, 9.0)
    blade = ellipsoid(points, (x + 4.0, y + 22.0, z + 80.0), (9.0, 34.0, 48.0))
    rods = [
        capsule(points, (x - 26.0, y - 22.0, z - 2.0), pubis, 12.0, 8.0),
        capsule(points, pubis, (13.0 * s, -38.0 * s, -28.0), 9.0, 7.0),
        capsule(points, (x - 26.0, y + 16.0, z - 16.0), ischium, 14.0, 14.0),
        capsule(points, ischium, (13.0 * s, -38.0 * s, -28.0), 9.0, 6.0),
    ]
    return union(cup, ilium, blade, *rods)


def _sacrum(points: Points, s: float, rng: Rng) -> Volume:
    """Sacrum and coccyx: flat, curved, narrower downwards."""
    back = _uniform(rng, 78.0, 90.0)
    flat = points * np.array([0.45, 1, 1], dtype=np.float32)[:, None, None, None]
    upper = capsule(flat, (0.0, back + 4.0, 52.0 * s), (0.0, back - 12.0, 120.0 * s), 12.0, 20.0)
    lower = capsule(flat, (0.0, back - 14.0, 22.0 * s), (0.0, back + 4.0, 52.0 * s), 5.0, 12.0)
    return union(upper, lower)
