"""The matrix-free pencil-beam dose operator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel, load_beam_model
from lightning_vmat.dose.blur import NODE_STEP_MM, Blur, Nodes
from lightning_vmat.dose.operator import check_last, result_type
from lightning_vmat.dose.ray_tracing import DepthFunction, radiological_depth
from lightning_vmat.dose.sampling import BevLookup, Sampling
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import bev_extent
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMaps

SHARPEST = 0.6  # largest node step over the penumbra's sigma, about that of the built-in beam (1.25 mm / 2.1 mm)


@dataclass(frozen=True)
class PencilBeamOperator:
    """Dose by blurring each fluence map with the beam's kernels and sampling the result at each voxel.

    Args:
        blur: map from fluence maps to blurred maps.
        sampling: map from blurred maps to voxels.

    >>> import torch
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.dose.pencil_beam import PencilBeamOperator
    >>> case = vmat.phantom(0, size="tiny")
    >>> operator = PencilBeamOperator.build(case, case.body_index[::10])  # every tenth voxel of the body
    >>> dose_gy = operator.forward(torch.ones(operator.fluence_shape))  # 1 MU in each beamlet
    >>> len(dose_gy) == operator.voxel_count, bool((dose_gy > 0).all())
    (True, True)
    """

    blur: Blur
    sampling: Sampling

    @classmethod
    def build(
        cls,
        case: Case,
        voxel_index: Int[Tensor, " voxel"],
        beam_model: BeamModel | None = None,
        *,
        node_step_mm: float | None = None,
        depth: DepthFunction = radiological_depth,
    ) -> PencilBeamOperator:
        """Builds the operator of a case at some of its voxels.

        Args:
            case: CT, arcs, beamlets and machine.
            voxel_index: flat indices of voxels; those far outside the field still receive scatter.
            beam_model: beam model; the machine's own if None.
            node_step_mm: distance of the nodes of blurred maps; the error of the dose grows with its square (see
                `blur.py`). If None, `NODE_STEP_MM`, or less for a sharp penumbra.
            depth: computes the radiological depth of the voxels.

        Raises:
            ValueError: no voxels, voxels outside the grid, a beam model of another source-axis distance, or nodes too
                far apart for its penumbra.
        """
        if len(voxel_index) == 0 or int(voxel_index.min()) < 0 or int(voxel_index.max()) >= case.grid.voxel_count:
            raise ValueError(
                f"case {case.case_id}: {len(voxel_index)} dose voxels, expected one or more, all within the grid"
            )
        model = beam_model or load_beam_model(case.machine.beam_model)
        if model.sad_mm != case.machine.sad_mm:
            raise ValueError(
                f"beam model {model.name}: SAD {model.sad_mm} mm, expected the machine's {case.machine.sad_mm}"
            )
        penumbra_mm = float(model.sigma_mm.min())
        step_mm = min(NODE_STEP_MM, SHARPEST * penumbra_mm) if node_step_mm is None else node_step_mm
        if not 0 < step_mm <= penumbra_mm:
            raise ValueError(
                f"case {case.case_id}: nodes every {step_mm:g} mm, expected more than 0 and at most the width of "
                f"the penumbra, {penumbra_mm:.2g} mm"
            )
        voxels_mm = case.grid.centres_mm(voxel_index)
        low, high = _reach(voxels_mm, case.control_points, case.isocentre_mm, model.sad_mm)
        x1, x2, y1, y2 = case.beamlets.field_mm
        x_nodes = Nodes.over((x1, x2), (low[0], high[0]), step_mm)
        y_nodes = Nodes.over((y1, y2), (low[1], high[1]), step_mm)
        centre = torch.tensor(case.isocentre_mm, device=voxels_mm.device)
        sampling = Sampling(
            offset_mm=(voxels_mm - centre).contiguous(),
            # half precision halves the largest table; its step, 0.1 mm at 200 mm, is far below the accuracy of depths
            depth_mm=depth(case, voxel_index).half().contiguous(),
            axes=case.control_points.beam_axes().to(voxels_mm.device),
            depth_weights=(model.depth_weights * case.fractions).float().contiguous().to(voxels_mm.device),
            sad_mm=model.sad_mm,
            y_nodes=y_nodes,
            x_nodes=x_nodes,
        )
        blur = Blur.build(model, case.beamlets, y_nodes, x_nodes).to(voxels_mm.device)
        return cls(blur, sampling.keep())

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""
        return len(self.sampling.offset_mm)

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """Shape of fluence maps (control_point, leaf_pair, beamlet)."""
        return len(self.sampling.axes), self.blur.across.shape[-1], self.blur.along.shape[-1]

    @torch.no_grad()
    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose of the whole course, Gy; records no gradient."""
        check_last(fluence_mu, self.fluence_shape, "fluence")
        fluences = fluence_mu.float().reshape(-1, *self.fluence_shape)
        doses = fluences.new_zeros(len(fluences), self.voxel_count)
        for view in self.sampling.views():
            for dose, fluence in zip(doses, fluences, strict=True):
                dose += view.forward(self.blur.forward(fluence[view.part]))
        return doses.view(*fluence_mu.shape[:-3], self.voxel_count).to(result_type(fluence_mu))

    @torch.no_grad()
    def adjoint(self, dose_weight: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """Returns the transpose applied to weights of the voxels' dose; records no gradient."""
        check_last(dose_weight, (self.voxel_count,), "dose")
        weights = dose_weight.float().reshape(-1, self.voxel_count)
        fluences = weights.new_empty(len(weights), *self.fluence_shape)
        for view in self.sampling.views():
            for fluence, weight in zip(fluences, weights, strict=True):
                fluence[view.part] = self.blur.adjoint(view.adjoint(weight))
        return fluences.view(*dose_weight.shape[:-1], *self.fluence_shape).to(result_type(dose_weight))

    def to(self, device: torch.device | str) -> PencilBeamOperator:
        """Returns the operator on a device."""
        return PencilBeamOperator(self.blur.to(device), self.sampling.to(device))

    def tensors(self) -> list[Tensor]:
        """Returns the tensors for `restore`: blur, sampling, and the cached look-up tables if there are any."""
        blur, sampling = self.blur, self.sampling
        kept = () if sampling.kept is None else (sampling.kept.place, sampling.kept.weight)
        return [
            *vars(blur).values(),
            *(sampling.offset_mm, sampling.depth_mm, sampling.axes, sampling.depth_weights),
            *kept,
        ]

    def settings(self) -> str:
        """Returns as text what `restore` needs besides the tensors: source-axis distance and nodes."""
        sampling = self.sampling
        return json.dumps([sampling.sad_mm, *(list(vars(n).values()) for n in (sampling.y_nodes, sampling.x_nodes))])

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> PencilBeamOperator:
        """Rebuilds an operator from `tensors()` and `settings()`."""
        sad_mm, y_nodes, x_nodes = json.loads(settings)
        count = len(fields(Blur))
        offset_mm, depth_mm, axes, depth_weights, *kept = tensors[count:]
        look = BevLookup(*kept) if kept else None
        nodes = Nodes(*y_nodes), Nodes(*x_nodes)
        sampling = Sampling(offset_mm, depth_mm, axes, depth_weights, sad_mm, *nodes, look)
        return cls(Blur(*tensors[:count]), sampling)

    def at(self, voxels: Int[Tensor, " some"]) -> PencilBeamOperator:
        """The operator of some of its voxels, by number."""
        sampling = self.sampling
        offset_mm, depth_mm = sampling.offset_mm[voxels], sampling.depth_mm[:, voxels].contiguous()
        return replace(self, sampling=replace(sampling, offset_mm=offset_mm, depth_mm=depth_mm, kept=None))

    @torch.no_grad()
    def block(self, control_point: int) -> Float[Tensor, "voxel leaf_pair beamlet"]:
        """Returns the matrix of `forward` for one control point, Gy per MU per fraction.

        The bilinear interpolation of a product of profiles is the product of their linear interpolations.
        """
        look = self.sampling.look_from(slice(control_point, control_point + 1))
        profiles = []
        for axis, profile in ((1, self.blur.across), (0, self.blur.along)):
            place = (look.place[0, 0, :, axis] + 1) * ((profile.shape[1] - 1) / 2)
            node = place.long().clamp(max=profile.shape[1] - 2)
            profiles.append(torch.lerp(profile[:, node], profile[:, node + 1], (place - node)[:, None]))
        weight = self.blur.mixture.T @ look.weight[0]
        return torch.einsum("gv,gvl,gvb->vlb", weight, *profiles) * self.blur.open_fluence


def _reach(
    voxels_mm: Float[Tensor, "voxel 3"],
    control_points: ControlPoints,
    isocentre_mm: tuple[float, float, float],
    sad_mm: float,
) -> tuple[list[float], list[float]]:
    """Returns the bounds (x, y) of the voxels' beam's-eye view over all control points."""
    # the corners of the bounding box suffice: a perspective projection maps a convex hull to the hull of its corners
    corners = torch.cartesian_prod(*torch.stack((voxels_mm.amin(dim=0), voxels_mm.amax(dim=0)), dim=1))
    low, high = bev_extent(corners, control_points, isocentre_mm, sad_mm)
    return low.tolist(), high.tolist()
