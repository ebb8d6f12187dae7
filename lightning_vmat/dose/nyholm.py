"""Photon pencil kernel as a function of the beam quality index TPR20,10."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# c_0 .. c_5 of each parameter's polynomial in TPR20,10 (Nyholm 2006, Table 1, with the corrigendum of 2011)
COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "A1": (0.0128018, -0.0577391, 0.1790839, -0.2467955, 0.1328192, -0.0194684),
    "A2": (16.7815028, -279.4672663, 839.0016549, -978.4915013, 470.5317337, -69.2485573),
    "A3": (-0.0889669, -0.2587584, 0.7069203, -0.3654033, 0.0029760, -0.0003786),
    "A4": (0.0017089, -0.0169150, 0.0514650, -0.0639530, 0.0324490, -0.0049121),
    "A5": (0.1431447, -0.2134626, 0.5825546, -0.2969273, -0.0011436, 0.0002219),
    "B1": (-42.7607523, 264.3424720, -633.4540368, 731.5311577, -402.5280374, 82.4936551),
    "B2": (0.2428359, -2.5029336, 7.6128101, -9.5273454, 4.8249840, -0.7097852),
    "B3": (-0.0910420, -0.2621605, 0.7157244, -0.3664126, 0.0000930, -0.0000232),
    "B4": (0.0017284, -0.0172146, 0.0522109, -0.0643946, 0.0322177, -0.0047015),
    "B5": (-30.4609625, 354.2866078, -1073.2952368, 1315.2670101, -656.3702845, 96.5983711),
    "a1": (-0.0065985, 0.0242136, -0.0647001, 0.0265272, 0.0072169, -0.0020479),
    "a2": (-26.3337419, 435.6865552, -1359.8342546, 1724.6602381, -972.7565415, 200.3468023),
    "b1": (-80.7027159, 668.1710175, -2173.2445309, 3494.2393490, -2784.4670834, 881.2276510),
    "b2": (3.4685991, -41.2468479, 124.9729952, -153.2610078, 76.5242757, -11.2624113),
    "b3": (-39.6550497, 277.7202038, -777.0749505, 1081.5724508, -747.1056558, 204.5432666),
    "b4": (0.6514859, -4.7179961, 13.6742202, -19.7521659, 14.1873606, -4.0478845),
    "b5": (0.4695047, -3.6644336, 10.0039321, -5.1195905, -0.0007387, 0.0002360),
}


def kernel_terms(tpr: float, depth_mm: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns energy and slope of the kernel's two terms `E s exp(-s r) / (2 pi r)`: primary and scatter.

    Args:
        tpr: TPR20,10 passed to the parameterisation, 0.60 to 0.81.
        depth_mm: depths in water [depth].

    Returns:
        (energy, slope per mm) of the primary and of the scatter term, each [depth]; the energy is the dose that an
        infinite parallel field would give.

    Raises:
        ValueError: a beam quality outside the fitted range.

    Reference: Nyholm, Olofsson, Ahnesjo, Karlsson, Radiother Oncol 78:347 (2006), eqs. 4-8; corrigendum 98:286 (2011).
    """
    if not 0.60 <= tpr <= 0.81:
        raise ValueError(f"beam quality TPR20,10 of {tpr}: expected 0.60 to 0.81")
    p = {name: float(np.polynomial.polynomial.polyval(tpr, c)) for name, c in COEFFICIENTS.items()}
    d = depth_mm / 10.0  # the paper works in cm

    def depth_curve(c1: float, c2: float, c3: float, c4: float, c5: float) -> Array:
        return np.asarray(c1 * (1 - np.exp(c2 * np.hypot(d, c5))) * np.exp(c3 * d + c4 * d**2))

    primary, scatter, slope_b = (depth_curve(*(p[f"{name}{i}"] for i in range(1, 6))) for name in "ABb")
    slope_a = p["a2"] + p["a1"] * d
    return (2 * np.pi * primary, slope_a / 10.0), (2 * np.pi * scatter, slope_b / 10.0)
