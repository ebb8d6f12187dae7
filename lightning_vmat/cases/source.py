"""What every reader gives: a case, and what to keep with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case


@dataclass(frozen=True)
class SourceCase:
    """A case as it comes from its source.

    Args:
        case: the case.
        doses: to keep with it, by file name without suffix.
        plan: that it was treated with; kept as its plan unless a reference plan is asked for.
        plan_metadata: how that plan was made.
        influence: dose influence on the voxels of the case's grid, to be used instead of our own.
        texts: small files to keep with it, by name.
    """

    case: Case
    doses: dict[str, Float[Tensor, "z y x"]] = field(default_factory=dict)
    plan: Plan | None = None
    plan_metadata: dict[str, Any] = field(default_factory=lambda: {"planner": "clinical"})
    influence: StoredInfluence | None = None
    texts: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where one case comes from."""

    @property
    def name(self) -> str:
        """Name of the case; unique in a cohort."""
        ...

    @property
    def size(self) -> str:
        """Name of the case's size, such as `base`."""
        ...

    def load(self) -> SourceCase:
        """The case, and what to keep with it."""
        ...
