"""Random numbers that are the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NOISE_FIELDS = 4  # 16-bit fields of a word, whose sum is nearly normal
NOISE_MEAN, NOISE_SD = NOISE_FIELDS * (2**16 - 1) / 2, 2**16 * math.sqrt(NOISE_FIELDS / 12)


class Draws:
    """Random draws from the raw words of PCG64, a stream that does not change between versions of numpy.

    numpy's distributions use logarithms and powers, whose last bit differs between machines. These draws use only
    whole numbers and correctly rounded operations of IEEE 754.

    Args:
        seed: seed, at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A uniform number between two bounds."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def normal(self, sd: float = 1.0) -> float:
        """A nearly normal number of mean 0, within six standard deviations."""
        return sd * (sum(self.uniform() for _ in range(12)) - 6.0)

    def quantiles(self, levels: Sequence[float]) -> float:
        """A number from the distribution with these evenly spaced quantiles, from the least to the largest value."""
        place = self.uniform(0.0, len(levels) - 1)
        lower = min(int(place), len(levels) - 2)
        return levels[lower] + (levels[lower + 1] - levels[lower]) * (place - lower)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def noise(self, shape: tuple[int, ...], widths: tuple[int, ...]) -> NDArray[np.float64]:
        """Smooth noise of mean 0 and standard deviation 1.

        Args:
            shape: shape of the volume.
            widths: odd width, in voxels, of the box that is averaged over along each axis, three times.
        """
        padded = tuple(n + 3 * (w - 1) for n, w in zip(shape, widths, strict=True))
        words = np.asarray(self._bits.random_raw(int(np.prod(padded))), dtype=np.uint64)
        fields = [(words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(NOISE_FIELDS)]
        total = sum(field.astype(np.int64) for field in fields).reshape(padded)  # type: ignore[union-attr]
        volume, gain, energy = total, 1, 1
        for axis, width in enumerate(widths):
            kernel = np.ones(1, np.int64)
            for _ in range(3):
                volume = _box_sum(volume, width, axis)
                kernel = np.convolve(kernel, np.ones(width, np.int64))
            gain *= int(kernel.sum())
            energy *= int((kernel**2).sum())
        return np.asarray((volume - gain * NOISE_MEAN) / (NOISE_SD * math.sqrt(energy)), np.float64)


def _box_sum(volume: NDArray[np.int64], width: int, axis: int) -> NDArray[np.int64]:
    """Sum of `width` neighbours along an axis, which gets shorter by `width - 1`; exact for whole numbers."""
    running = np.cumsum(volume, axis=axis)
    running = np.concatenate((np.zeros_like(running.take([0], axis=axis)), running), axis=axis)
    length = running.shape[axis]
    return np.asarray(running.take(range(width, length), axis=axis) - running.take(range(length - width), axis=axis))
