"""Geometry and limits of a linac, read from a documented YAML."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.plan.checks import check_kinds, check_values, is_number

DEFAULT_MACHINE = "truebeam_millennium120"
MAY_BE_ZERO = {
    "min_mu_per_deg",
    "min_leaf_gap_mm",
    "min_still_leaf_gap_mm",
    "leaf_transmission",
    "dosimetric_leaf_gap_mm",
}


@dataclass(frozen=True)
class Machine:
    """Geometry and limits of a linac with its MLC.

    Args:
        name: name of the YAML.
        beam_model: name of a built-in beam model or path of a file, see `dose.beam_model.load_beam_model`.
        sad_mm: source-axis distance.
        leaf_edges_mm: boundaries of the leaf pairs along y_b at the isocentre plane, ascending.
        leaf_speed_mm_per_s: maximum leaf speed at the isocentre plane.
        gantry_speed_deg_per_s: maximum gantry speed.
        dose_rate_mu_per_s: maximum dose rate.
        min_mu_per_deg: minimum monitor units per degree while the beam is on.
        max_mu_per_deg: maximum monitor units per degree.
        min_leaf_gap_mm: smallest opening of a moving leaf pair.
        max_leaf_span_mm: largest distance between two leaf tips of one bank.
        max_leaf_position_mm: largest distance of a leaf tip from the central axis.
        interdigitation: whether a leaf may pass its opposed neighbours.
        leaf_transmission: fraction of fluence that passes closed leaves.
        dosimetric_leaf_gap_mm: opening that closed leaves have for the dose, because leaf ends are rounded.
        min_still_leaf_gap_mm: smallest opening of a leaf pair at rest; 0 where its leaves may touch.
        energy_mv: nominal energy of the beam.
        flattening_filter: whether the beam has a flattening filter.
        x_jaws: whether there are jaws along leaf travel.

    Raises:
        ValueError: a value of the wrong kind or out of its range; the message names the field.
    """

    name: str
    beam_model: str
    sad_mm: float
    leaf_edges_mm: tuple[float, ...]
    leaf_speed_mm_per_s: float
    gantry_speed_deg_per_s: float
    dose_rate_mu_per_s: float
    min_mu_per_deg: float
    max_mu_per_deg: float
    min_leaf_gap_mm: float
    max_leaf_span_mm: float
    max_leaf_position_mm: float
    interdigitation: bool
    leaf_transmission: float
    dosimetric_leaf_gap_mm: float
    min_still_leaf_gap_mm: float = 0.0
    energy_mv: float = 6.0
    flattening_filter: bool = True
    x_jaws: bool = True

    def __post_init__(self) -> None:
        where = f"machine {self.name}"
        check_kinds(type(self), vars(self), where)
        for field in fields(self):
            value, zero = getattr(self, field.name), field.name in MAY_BE_ZERO
            if field.type == "float" and (value < 0 or (value == 0 and not zero)):
                raise ValueError(f"{where}: {field.name} is {value}, expected a number {'>=' if zero else '>'} 0")
        if self.leaf_transmission >= 1:
            raise ValueError(f"{where}: leaf_transmission is {self.leaf_transmission}, expected a fraction below 1")
        if self.min_mu_per_deg >= self.max_mu_per_deg:
            raise ValueError(
                f"{where}: min_mu_per_deg is {self.min_mu_per_deg}, expected less than max_mu_per_deg "
                f"({self.max_mu_per_deg})"
            )
        if self.min_still_leaf_gap_mm > self.min_leaf_gap_mm:
            raise ValueError(
                f"{where}: min_still_leaf_gap_mm is {self.min_still_leaf_gap_mm}, expected at most min_leaf_gap_mm "
                f"({self.min_leaf_gap_mm})"
            )
        if len(self.leaf_edges_mm) < 2 or any(low >= high for low, high in pairwise(self.leaf_edges_mm)):
            raise ValueError(f"{where}: leaf_edges_mm is {self.leaf_edges_mm}, expected two or more ascending numbers")

    @property
    def quality(self) -> str:
        """Energy and filter of the beam as text, like `6 MV` or `10 MV without flattening filter`."""
        return beam_quality(self.energy_mv, self.flattening_filter)


def beam_quality(energy_mv: float, flattening_filter: bool) -> str:
    """Returns a beam's energy and filter as text."""
    return f"{energy_mv:g} MV{'' if flattening_filter else ' without flattening filter'}"


def shipped_machines() -> list[str]:
    """Returns the names of the machines in the package."""
    files = (resources.files("lightning_vmat.plan") / "machines").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def machine_name(name_or_path: str | Path) -> str:
    """Returns the name of a machine in a case: that of a shipped machine, or the absolute path of its file.

    Raises:
        ValueError: see `load_machine`.
    """
    load_machine(name_or_path)
    return str(name_or_path) if str(name_or_path) in shipped_machines() else str(Path(name_or_path).resolve())


def load_machine(name_or_path: str | Path) -> Machine:
    """Loads a machine by the name of a shipped YAML or from a YAML file, whose beam model may be a file in its folder.

    >>> from lightning_vmat.plan.machine import load_machine
    >>> machine = load_machine("truebeam_millennium120")
    >>> len(machine.leaf_edges_mm) - 1, machine.quality
    (60, '6 MV')

    Raises:
        ValueError: no such machine, or a missing key, unknown key or invalid value; the message names the key.
    """
    shipped = resources.files("lightning_vmat.plan") / "machines" / f"{name_or_path}.yaml"
    path, where = Path(name_or_path), f"machine {name_or_path}"
    if not shipped.is_file() and not path.is_file():
        raise ValueError(f"{where}: expected one of {', '.join(shipped_machines())}, or a YAML file")
    values = read_mapping(shipped if shipped.is_file() else path, where)
    if "leaf_blocks" not in values:
        raise ValueError(f"{where}: no leaf_blocks, expected the keys of a machine")
    if "leaf_edges_mm" in values:
        raise ValueError(f"{where}: key leaf_edges_mm is unknown, expected leaf_blocks")
    edges = _leaf_edges(values.pop("leaf_blocks"), where)
    if not shipped.is_file() and (path.parent / str(values.get("beam_model"))).is_file():
        values["beam_model"] = str((path.parent / str(values["beam_model"])).resolve())
    values = check_values(Machine, {**values, "leaf_edges_mm": edges}, where)
    try:
        return Machine(**values)
    except ValueError as error:  # the file's name says more than the name in the file
        raise ValueError(f"{where}: {str(error).partition(': ')[2]}") from error


def _leaf_edges(blocks: Any, where: str) -> tuple[float, ...]:
    """Returns the boundaries of leaf pairs, centred on 0, from pairs of count and width."""
    wrong = f"{where}: leaf_blocks is {blocks!r}, expected a list of [number of leaf pairs, width in mm], all positive"
    if not isinstance(blocks, list) or not blocks:
        raise ValueError(wrong)
    widths: list[float] = []
    for block in blocks:
        if not isinstance(block, list) or len(block) != 2 or not all(is_number(v) and v > 0 for v in block):
            raise ValueError(wrong)
        count, width = block
        if not isinstance(count, int):
            raise ValueError(wrong)
        widths += [float(width)] * count
    return tuple(edge - sum(widths) / 2 for edge in accumulate(widths, initial=0.0))
