"""The dose operator of a case: its own stored influence if it has one, else the pencil beam."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.ray_tracing import DepthFunction, radiological_depth
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.plan.case import Case


def dose_operator(
    case: Case,
    index: Int[Tensor, " voxel"],
    node_step_mm: float | None = None,
    depth: DepthFunction = radiological_depth,
) -> DoseOperator:
    """Returns the dose operator of a case.

    Args:
        case: the case.
        index: voxels that receive dose, as flat indices into the case's grid.
        node_step_mm: distance of the nodes of the pencil beam's maps; see `PencilBeamOperator.build`.
        depth: computes the radiological depth of the voxels; a stored influence needs none.

    Raises:
        ValueError: a stored influence that belongs to other voxels or beamlets.
    """
    if case.influence_path is None:
        return PencilBeamOperator.build(case, index, node_step_mm=node_step_mm, depth=depth)
    stored = StoredInfluence.load(case.influence_path, rows=index.cpu(), row_count=case.grid.voxel_count)
    if stored.fluence_shape != case.fluence_shape:
        raise ValueError(
            f"influence file {case.influence_path}: fluence of shape {stored.fluence_shape}, expected "
            f"{case.fluence_shape} as in the case"
        )
    return stored.to(index.device)
