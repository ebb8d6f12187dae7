"""Reads the files of a PortPy patient folder through the pointers in its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PortPyFolder:
    """A patient folder.

    Args:
        folder: path of the folder.
    """

    folder: Path

    def json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            ValueError: a file that is missing or broken.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}, expected PortPy's layout") from error

    @contextmanager
    def dataset(self, about: dict[str, Any], key: str, where: Path) -> Iterator[h5py.Dataset | h5py.Group]:
        """Open the HDF5 object that a `..._File` key points to.

        Raises:
            ValueError: no such key, file or dataset, or a broken file.
        """
        pointer = about.get(key)
        if not isinstance(pointer, str) or ".h5/" not in pointer:
            raise ValueError(f"{where}: {key} is {pointer!r}, expected FILE.h5/DATASET")
        name, _, inside = pointer.partition(".h5/")
        path = self.folder / ("Beams" if name.startswith("Beam_") else "") / Path(f"{name}.h5").name
        try:
            with h5py.File(path, "r") as file:
                if inside not in file:
                    raise ValueError(f"no dataset {inside}")
                yield file[inside]
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error

    def array(self, about: dict[str, Any], key: str, where: Path) -> NDArray[Any]:
        """Read the array that a key points to."""
        with self.dataset(about, key, where) as dataset:
            return np.asarray(dataset[()])

    def triple(self, about: dict[str, Any], key: str, where: Path) -> tuple[float, float, float]:
        """Read three numbers."""
        try:
            x, y, z = (float(value) for value in about[key])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {key} is {about.get(key)!r}, expected three numbers") from error
        return x, y, z

    def row_count(self) -> int:
        """Number of rows in the list of their coordinates; 0 without such a list."""
        name = "OptimizationVoxels_MetaData.json"
        voxels = self.json(name)
        if "voxel_coordinate_XYZ_mm_File" not in voxels:
            return 0
        with self.dataset(voxels, "voxel_coordinate_XYZ_mm_File", self.folder / name) as dataset:
            return int(dataset.shape[0])

    def beams(self, beam_ids: list[int] | None) -> list[dict[str, Any]]:
        """Metadata of the given beams; if None of the planner's choice, else of all, in the order of their numbers.

        Raises:
            ValueError: no beams, or a missing beam.
        """
        found = {str(about.get("ID")): about for about in self._every_beam()}
        if beam_ids is None:
            planned = (self.folder / "PlannerBeams.json").is_file()
            wanted = self.json("PlannerBeams.json")["IDs"] if planned else list(found)
        else:
            wanted = list(beam_ids)
        for beam_id in wanted:
            if str(beam_id) not in found:
                raise ValueError(f"{self.folder / 'Beams'}: no beam {beam_id}, expected one of {', '.join(found)}")
        if not wanted:
            raise ValueError(f"{self.folder / 'Beams'}: no beams, expected PortPy's layout")
        return [found[str(beam_id)] for beam_id in wanted]

    def all_beams(self) -> list[dict[str, Any]]:
        """Metadata of all beams, in the order of their numbers.

        Raises:
            ValueError: no beams, or a beam without number or angles.
        """
        beams = self._every_beam()
        for about in beams:
            if missing := {"ID", "gantry_angle", "collimator_angle", "couch_angle"} - about.keys():
                raise ValueError(f"{self.folder / 'Beams'}: beam {about.get('ID')} has no {', '.join(sorted(missing))}")
        if not beams:
            raise ValueError(f"{self.folder / 'Beams'}: no beams, expected PortPy's layout")
        return beams

    def _every_beam(self) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob("Beams/*.json"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        return [self.json(f"Beams/{path.name}") for path in paths]
