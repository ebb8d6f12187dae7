"""Seconds from a moved slider of `vmat explore` to the first new figures and to the deliverable plan.

Wall seconds depend on what else the machine does; processor seconds of the session's one thread do not.

    python tests/benchmarks/explore_speed.py --json tests/benchmarks/explore_speed.json
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import threading
import time
from itertools import chain
from pathlib import Path

import torch

import lightning_vmat as vmat
from lightning_vmat.cases.open_kbp import read_open_kbp
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.explore.drawings import Drawings
from lightning_vmat.explore.session import Session
from lightning_vmat.export.figures.dose_slices import PLANES

MOVES = ({"Rectum": 2.0}, {"Rectum": 4.0}, {"Bladder": 2.0}, {"homogeneity": 2.0})


class Clock:
    """Wall and processor seconds of the session's thread at its first new figures and at its plan."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.plans = 0
        self.begin: tuple[float, float] | None = None
        self.seen: dict[str, tuple[float, float]] = {}
        session.listen(self.listener)

    def listener(self, version: int) -> None:
        """Called after each change; the session's own thread reads its processor time."""
        if threading.current_thread().name != "vmat-session":
            return
        now = time.perf_counter(), time.thread_time()
        running = self.session._running
        if running is not None and self.begin is None:
            self.begin = now
        if running is not None and (running.course is not None or running.preview is not None):
            self.seen.setdefault("figures", now)
        if len(self.session.plans) > self.plans:
            self.seen.setdefault("plan", now)

    def start(self) -> None:
        """Before a move."""
        self.plans, self.begin, self.seen = len(self.session.plans), None, {}

    def row(self) -> dict[str, float]:
        """Seconds since the computation began."""
        if self.begin is None:
            raise ValueError("nothing was computed")
        found = {}
        for name, (wall, processor) in self.seen.items():
            found[f"{name}_wall_s"] = wall - self.begin[0]
            found[f"{name}_cpu_s"] = processor - self.begin[1]
        return found


def measure(case: vmat.Case, planner: str) -> dict[str, object]:
    """One patient: the first plan, then each move."""
    session = Session(OpenedPatient(case, None, None, None), planner)
    known = all(name in session.wish_names for move in MOVES for name in move)
    organs = [name for name in session.wish_names if name not in (*case.target_names, "Body", "homogeneity")]
    moves = MOVES if known else tuple({name: 2.0} for name in organs[:4])
    session._next_to_judge = lambda: None  # type: ignore[method-assign]  # only plans are timed
    session.wait(3600)
    clock, rows, objectives = Clock(session), [], []
    for move in ({case.target_names[0]: 1.5}, *moves):  # the first one warms up
        clock.start()
        session.change(wishes=move)
        session.wait(3600)
        rows.append(clock.row())
        objectives.append(session.plan(len(session.plans)).measured.objective)
    drawings = Drawings(session)
    made = session.plan(len(session.plans))
    drawn_s = []
    for _ in range(2):  # the first time warms up
        begin = time.perf_counter()
        drawings.dvh(made.measured)
        drawn_s = [time.perf_counter() - begin]
        for plane in PLANES:
            drawings.slice(made.number, plane, drawings.sliced.view(plane).central, None)
            drawn_s.append(time.perf_counter() - begin)
    session.close()
    gc.collect()  # the session's operators
    drawings_s = {"histograms_s": drawn_s[0], "all_s": drawn_s[-1]}
    return {"case": case.case_id, "moves": rows[1:], "objectives": objectives[1:], "drawings": drawings_s}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(200, 210)))
    parser.add_argument("--open_kbp", type=Path, nargs="*", default=[], help="folders of OpenKBP patients")
    parser.add_argument("--size", default="base")
    parser.add_argument("--planner", default="learned")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = []
    phantoms = (vmat.phantom(seed, size=options.size) for seed in options.seeds)
    patients = (read_open_kbp(folder, options.size)[0] for folder in options.open_kbp)
    for case in chain(phantoms, patients):
        cases.append(measure(case, options.planner))
        options.json.write_text(
            json.dumps(
                {"planner": options.planner, "size": options.size, "threads": options.threads, "cases": cases}, indent=1
            )
        )
        moves = [move for one in cases for move in one["moves"]]  # type: ignore[attr-defined]
        for name in ("figures_cpu_s", "plan_cpu_s", "figures_wall_s", "plan_wall_s"):
            values = sorted(move[name] for move in moves)
            print(case.case_id, name, f"median {statistics.median(values):.2f}, highest {values[-1]:.2f}", flush=True)
        print(case.case_id, cases[-1]["drawings"], flush=True)


if __name__ == "__main__":
    main()
