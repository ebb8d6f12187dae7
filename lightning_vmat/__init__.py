"""lightning_vmat: learning to plan volumetric modulated arc therapy (VMAT). Research software, not for clinical use.

>>> import lightning_vmat as vmat
>>> case = vmat.phantom(0, size="tiny")  # or vmat.read_case(folder), vmat.read_dicom(folder)
>>> result = vmat.planner("conventional", voxels=300).plan(case)
>>> judged = vmat.evaluate_plan(case, result)
>>> vmat.write_report("plan.html", case, result, judged)

Each name is imported when it is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    # cases
    "phantom": "cases.phantom.phantom:make_phantom",
    "read_case": "cases.readers",
    "read_dicom": "cases.readers",
    "read_dicom_patient": "cases.readers",
    "read_matrad": "cases.readers",
    "write_case": "cases.case_files",
    "Case": "plan.case",
    "Arc": "plan.arc",
    "VolumeGrid": "plan.volume",
    "BeamletGrid": "plan.beamlets",
    "Machine": "plan.machine",
    "load_machine": "plan.machine",
    # plans
    "planner": "api.planners",
    "Planner": "planning.planner",
    "PlannerSettings": "api.planner_settings",
    "Plan": "plan.aperture",
    "PlanResult": "planning.planner",
    "Trace": "planning.planner",
    "read_plan": "cases.plan_files",
    "write_plan": "cases.plan_files",
    "shipped_weights": "recipes.weights",
    # judging
    "evaluate_plan": "planning.evaluation",
    "evaluate_dose": "planning.evaluation",
    "Evaluation": "planning.evaluation",
    "write_report": "api.reports",
    # problems
    "Problem": "l2o.problem",
    "build_problem": "planning.problem",
    "Optimizer": "l2o.optimizer",
    "State": "l2o.optimizer",
    "minimise": "l2o.unroll:run",
    # objectives
    "DoseObjective": "objectives.base",
    "StructureVoxels": "objectives.base",
    "Protocol": "objectives.protocol",
    "load_protocol": "objectives.protocol",
    # extensions
    "register_planner": "api.planners",
    "register_optimizer": "planning.planners",
    "register_objective": "objectives.protocol",
    "register_reader": "cases.readers",
}
"""Name -> module, and the name in the module if it differs. `__init__.pyi` repeats it for type checkers."""

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, original = _PLACES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), original or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
