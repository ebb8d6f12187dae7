"""What a case of a cohort costs: seconds on one thread (medians of CPU time), memory and disk.

python tests/benchmarks/cohort_cost.py --json tests/benchmarks/cohort_cost.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from monai.transforms import Compose

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import PLAN_FILE, read_case, read_fluence_shape
from lightning_vmat.cases.phantom.source import PhantomSource
from lightning_vmat.cases.plan_files import write_plan
from lightning_vmat.data.cached_items import measure_item
from lightning_vmat.data.cohort import Cohort, read_cohort, split_in_order
from lightning_vmat.data.preparation import prepare_case
from lightning_vmat.data.ray_cache import RayCache
from lightning_vmat.data.transforms import item_transform
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.planning.sequencing import sequence

T = TypeVar("T")
FIRST_SEED = 900_301  # of no cohort
STRUCTURES = ["Rectum", "Bladder", "FemoralHeadLeft", "FemoralHeadRight", "Bowel", "PenileBulb"]
ROUNDS = 4  # loads of each case that are kept together to see how much memory they take
LARGE = 10_000  # cases of the cohort whose split and manifest are written and read


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of a call, and its result."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def resident_bytes() -> int:
    """Memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_under(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_all(folders: list[Path], transform: Compose, rounds: int = 1) -> tuple[float, float]:
    """Median seconds of loading a case, and the memory that each takes while all of some rounds are kept."""
    transform({"case_dir": folders[0]})  # what the first one takes once and for all is not counted
    before, items, seconds = resident_bytes(), [], []
    for folder in folders * rounds:
        spent, item = timed(partial(transform, {"case_dir": folder}))
        seconds.append(spent)
        items.append(item)
    return statistics.median(seconds), (resident_bytes() - before) / len(items)


def plan_open_field(folder: Path, voxels: int) -> None:
    """Gives a case a plan of its open field with the metadata that spare loaders the problem."""
    case = read_case(folder)
    problem = build_problem(case, voxels)
    plan = sequence(problem.open_field * problem.scale_mu, case.beamlets)
    known = {"voxels": voxels, "seed": 0, "package_version": __version__, "scale_mu": problem.scale_mu}
    write_plan(plan, folder / PLAN_FILE, known)


def bookkeeping(root: Path, folder: Path) -> dict[str, float]:
    """Seconds for the files of a large cohort, and for the shape of a case."""
    names = [f"phantom_{number:04d}" for number in range(LARGE)]
    quality = {"goals_met": 12, "goals": 13, "unmet": ["PTV Dmax"], "violations": 0}
    write_s, _ = timed(
        lambda: Cohort(root, split_in_order(names)).write({"cases": {name: dict(quality) for name in names}})
    )
    read_s, _ = timed(lambda: read_cohort(root))
    shape_s, _ = timed(lambda: [read_fluence_shape(folder) for _ in range(20)])
    return {"write_cohort_s": write_s, "read_cohort_s": read_s, "read_shape_s": shape_s / 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--size", default="base")
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--voxels", type=int, default=15_000, help="voxel sample of the problems")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root, rays = Path(temporary) / "cohort", RayCache(Path(temporary) / "rays")
        sources = [PhantomSource(FIRST_SEED + n, arguments.size) for n in range(arguments.cases)]
        made = [timed(partial(prepare_case, source, root, plan=False)) for source in sources]
        folders = [root / name for _, name in made]
        for folder in folders:
            plan_open_field(folder, arguments.voxels)
        figures: dict[str, object] = {"size": arguments.size, "cases": arguments.cases, "voxels": arguments.voxels}
        figures |= {
            "make_s": statistics.median(seconds for seconds, _ in made),
            "disk_bytes": bytes_under(root) / len(folders),
        }
        for kind, with_problem in (("condition", False), ("problem", True)):

            def chain(cache: RayCache | None, with_problem: bool = with_problem) -> Compose:
                return item_transform(ChannelSettings(STRUCTURES), arguments.voxels, with_problem, rays=cache)

            before = bytes_under(rays.folder) if rays.folder.is_dir() else 0
            figures[f"{kind}_s"], figures[f"{kind}_bytes"] = load_all(folders, chain(None), ROUNDS)
            figures[f"{kind}_tensor_bytes"] = measure_item(chain(None), folders[0])[0]
            load_all(folders, chain(rays))
            figures[f"{kind}_from_rays_s"], _ = load_all(folders, chain(rays))
            figures[f"{kind}_rays_bytes"] = (bytes_under(rays.folder) - before) / len(folders)
        figures |= bookkeeping(Path(temporary) / "large", folders[0])
    arguments.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
