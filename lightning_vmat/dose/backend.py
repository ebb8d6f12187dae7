"""Choice of the code that runs a dose operator: Triton kernels on a CUDA device, plain torch elsewhere."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor


def runs_triton(tensor: Tensor) -> bool:
    """Whether Triton kernels run for a tensor: if it is on a CUDA device, or with `TRITON_INTERPRET=1` (for tests).

    Without Triton, as on Windows, a CUDA device runs plain torch.
    """
    return (tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1") and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
