"""What the linac can do, read from a documented YAML."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from itertools import accumulate
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Machine:
    """Geometry and limits of a linac with its MLC.

    Args:
        name: name of the YAML.
        beam_model: name of a built-in beam model or path of a machine file.
        sad_mm: source-axis distance.
        leaf_edges_mm: boundaries of the leaf pairs along y_b at the isocentre plane, ascending.
        leaf_speed_mm_per_s: fastest leaf travel at the isocentre plane.
        gantry_speed_deg_per_s: fastest gantry rotation.
        dose_rate_mu_per_s: highest dose rate.
        min_mu_per_deg: fewest monitor units per degree while the beam is on.
        max_mu_per_deg: most monitor units per degree.
        min_leaf_gap_mm: smallest opening of a leaf pair.
        max_leaf_span_mm: largest distance between two leaf tips of one bank.
        max_leaf_position_mm: largest distance of a leaf tip from the central axis.
        interdigitation: whether a leaf may pass its opposed neighbours.
        leaf_transmission: fraction of fluence that passes closed leaves.
        dosimetric_leaf_gap_mm: opening that dose sees when the leaves touch.

    Raises:
        ValueError: a value that is not positive.
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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not 0 <= value < float("inf"):
                raise ValueError(f"machine {self.name}: {field.name} is {value}, expected a number >= 0")


def load_machine(name_or_path: str | Path) -> Machine:
    """A machine by the name of a shipped YAML, or from a YAML file.

    Raises:
        ValueError: no such machine, or a file whose keys are not those of `Machine`.
    """
    shipped = resources.files("lightning_vmat.plan") / "machines" / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if not shipped.is_file() and not path.is_file():
        raise ValueError(f"machine {name_or_path}: neither a shipped machine nor a YAML file")
    try:
        values = yaml.safe_load(shipped.read_text() if shipped.is_file() else path.read_text())
        blocks = [float(width) for count, width in values.pop("leaf_blocks") for _ in range(count)]
        edges = tuple(edge - sum(blocks) / 2 for edge in accumulate(blocks, initial=0.0))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"machine {name_or_path}: no leaf_blocks ({' '.join(str(error).split())})") from error
    values["leaf_edges_mm"] = edges
    types = {field.name: field.type for field in fields(Machine)}
    for key in sorted(types.keys() ^ values.keys()):
        raise ValueError(f"machine {name_or_path}: key {key} is {'missing' if key in types else 'unknown'}")
    for key, value in values.items():
        if types[key] == "float" and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"machine {name_or_path}: {key} is {value!r}, expected a number")
    return Machine(**values)
