"""The interface of all sources of cases."""

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
    """A case with the data that its source has beside it.

    Args:
        case: the case.
        doses: doses to store with the case, Gy, by file name without suffix.
        plan: clinical plan; stored with the case unless a reference plan is made.
        plan_metadata: how that plan was made.
        influence: dose influence on the voxels of the case's grid, used instead of the pencil beam.
        texts: small text files to store with the case, by name.
    """

    case: Case
    doses: dict[str, Float[Tensor, "z y x"]] = field(default_factory=dict)
    plan: Plan | None = None
    plan_metadata: dict[str, Any] = field(default_factory=lambda: {"planner": "clinical"})
    influence: StoredInfluence | None = None
    texts: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Makes one case of a cohort, such as a phantom or a patient's folder."""

    @property
    def name(self) -> str:
        """Name of the case; unique in a cohort."""
        ...

    @property
    def size(self) -> str:
        """Name of the case's size, such as `base`."""
        ...

    def load(self) -> SourceCase:
        """Make or read the case."""
        ...
