"""Traced rays of cases, kept on disk.

Tracing the rays of a case takes over nine tenths of the time in which the case is loaded for training. Its results are
tensors, so they are kept as safetensors; the rest of an item is made from the case each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import CASE_FILE, CT_FILE, STRUCTURES
from lightning_vmat.files.atomic import atomic_file

RAYS = "rays"  # name of the tensor in a file


@dataclass(frozen=True)
class RayCache:
    """A folder of traced rays. Processes and runs may share it; files that nothing uses any more are not removed.

    Args:
        folder: the folder; made when the first rays are kept.
    """

    folder: Path

    def get(self, content: str, settings: object, trace: Callable[[], Tensor]) -> Tensor:
        """Returns what `trace` returns, to the bit; calls it if the folder lacks the result, or holds a broken file.

        Args:
            content: checksum of the case, see `content_checksum`.
            settings: all that the result depends on besides the case and the package's version; its `repr` counts.
            trace: traces the rays.
        """
        key = hashlib.sha256(repr((__version__, content, settings)).encode()).hexdigest()[:32]
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            try:
                return load(path.read_bytes())[RAYS]
            except (SafetensorError, KeyError):
                pass  # cut off, for example by a machine that lost power: traced and written again
        rays = trace().contiguous()
        with atomic_file(path) as draft:
            draft.write_bytes(save({RAYS: rays}))
        return rays


def content_checksum(case_dir: Path) -> str:
    """Returns a checksum of the files from which rays are traced: `case.yaml`, CT and structures."""
    digest = hashlib.sha256()
    for path in (case_dir / CASE_FILE, case_dir / CT_FILE, *sorted((case_dir / STRUCTURES).iterdir())):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
