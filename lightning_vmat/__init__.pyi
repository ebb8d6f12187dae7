from lightning_vmat.api.planner_settings import PlannerSettings as PlannerSettings
from lightning_vmat.api.planners import planner as planner
from lightning_vmat.api.planners import register_planner as register_planner
from lightning_vmat.api.reports import write_report as write_report
from lightning_vmat.cases.case_files import write_case as write_case
from lightning_vmat.cases.phantom.phantom import make_phantom as phantom
from lightning_vmat.cases.plan_files import read_plan as read_plan
from lightning_vmat.cases.plan_files import write_plan as write_plan
from lightning_vmat.cases.readers import read_case as read_case
from lightning_vmat.cases.readers import read_dicom as read_dicom
from lightning_vmat.cases.readers import read_dicom_patient as read_dicom_patient
from lightning_vmat.cases.readers import read_matrad as read_matrad
from lightning_vmat.cases.readers import register_reader as register_reader
from lightning_vmat.l2o.optimizer import Optimizer as Optimizer
from lightning_vmat.l2o.optimizer import State as State
from lightning_vmat.l2o.problem import Problem as Problem
from lightning_vmat.l2o.unroll import run as minimise
from lightning_vmat.objectives.base import DoseObjective as DoseObjective
from lightning_vmat.objectives.base import StructureVoxels as StructureVoxels
from lightning_vmat.objectives.protocol import Protocol as Protocol
from lightning_vmat.objectives.protocol import load_protocol as load_protocol
from lightning_vmat.objectives.protocol import register_objective as register_objective
from lightning_vmat.plan.aperture import Plan as Plan
from lightning_vmat.plan.arc import Arc as Arc
from lightning_vmat.plan.beamlets import BeamletGrid as BeamletGrid
from lightning_vmat.plan.case import Case as Case
from lightning_vmat.plan.machine import Machine as Machine
from lightning_vmat.plan.machine import load_machine as load_machine
from lightning_vmat.plan.volume import VolumeGrid as VolumeGrid
from lightning_vmat.planning.evaluation import Evaluation as Evaluation
from lightning_vmat.planning.evaluation import evaluate_dose as evaluate_dose
from lightning_vmat.planning.evaluation import evaluate_plan as evaluate_plan
from lightning_vmat.planning.planner import Planner as Planner
from lightning_vmat.planning.planner import PlanResult as PlanResult
from lightning_vmat.planning.planner import Trace as Trace
from lightning_vmat.planning.planners import register_optimizer as register_optimizer
from lightning_vmat.planning.problem import build_problem as build_problem
from lightning_vmat.recipes.weights import shipped_weights as shipped_weights

__version__: str
__all__ = [
    "__version__",
    "phantom",
    "read_case",
    "read_dicom",
    "read_dicom_patient",
    "read_matrad",
    "write_case",
    "Case",
    "Arc",
    "VolumeGrid",
    "BeamletGrid",
    "Machine",
    "load_machine",
    "planner",
    "Planner",
    "PlannerSettings",
    "Plan",
    "PlanResult",
    "Trace",
    "read_plan",
    "write_plan",
    "shipped_weights",
    "evaluate_plan",
    "evaluate_dose",
    "Evaluation",
    "write_report",
    "Problem",
    "build_problem",
    "Optimizer",
    "State",
    "minimise",
    "DoseObjective",
    "StructureVoxels",
    "Protocol",
    "load_protocol",
    "register_planner",
    "register_optimizer",
    "register_objective",
    "register_reader",
]
