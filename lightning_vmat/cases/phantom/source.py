"""A phantom as a source of a cohort."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_vmat.cases.drawn_wishes import draw_wishes
from lightning_vmat.cases.phantom.phantom import make_phantom, phantom_name
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.plan.jaws import with_jaws


@dataclass(frozen=True)
class PhantomSource:
    """The phantom of a seed.

    Args:
        seed: seed of the phantom and its wishes.
        size: name of a size.
        protocol: see `make_phantom`.
        wishes_share: probability that the phantom has wishes.
        jaw_margin_mm: margin of jaws around the targets; None for jaws at the edges of the field.
    """

    seed: int
    size: str
    protocol: str = "prostate_60gy_20fx"
    wishes_share: float = 0.0
    jaw_margin_mm: float | None = None

    @property
    def name(self) -> str:
        """Name of the phantom, such as `phantom_0007`."""
        return phantom_name(self.seed)

    def load(self) -> SourceCase:
        """Make the phantom with its wishes and jaws."""
        case = make_phantom(self.seed, self.size, self.protocol)
        case = case.with_settings(wishes=draw_wishes(self.seed, self.wishes_share))
        return SourceCase(with_jaws(case, self.jaw_margin_mm))
