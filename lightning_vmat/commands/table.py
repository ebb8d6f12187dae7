"""The commands of `vmat`. This imports nothing, so that `vmat --help` is quick."""

from __future__ import annotations

COMMANDS = {
    "prepare phantom": ("prepare:phantom", "seeded phantoms, with reference plans, as a cohort"),
    "prepare open-kbp": ("prepare:open_kbp", "OpenKBP head-and-neck patients as a cohort"),
    "prepare dicom": ("prepare:dicom", "patients from DICOM folders as a cohort"),
    "prepare portpy": ("prepare:portpy", "PortPy patients with their stored influence as a cohort"),
    "prepare pack": ("prepare:pack", "a cohort of planned phantoms as one small file"),
    "prepare unpack": ("prepare:unpack", "the cohort of such a file, or of a shipped one"),
    "prepare sheet": ("prepare:sheet", "slices of a cohort's cases with their outlines, as an image"),
    "plan": ("plan:plan", "plan one patient: apertures, dose, metrics and report"),
    "commission": ("commission:commission", "fit a machine's beam to what a site measured of it"),
    "benchmark": ("benchmark:benchmark", "compare planners on the held-out cases of a cohort"),
    "check dose": ("check:dose", "accuracy of dose against an independent engine, figure by figure"),
    "check delivery": (
        "check:delivery",
        "dose of a written RTPLAN with gantry and leaves in motion against the plan's",
    ),
    "bench dose": ("bench:dose", "speed of the dose operators"),
    "bench optimizers": ("bench:optimizers", "how fast fluence optimizers are, beside the learned one"),
    "fit": ("training:run", "train a recipe from a YAML file"),
    "validate": ("training:run", "validate a recipe on the validation cases"),
    "test": ("training:run", "test a recipe on the held-out cases"),
    "predict": ("training:run", "predict with a recipe"),
    "release": ("release:release", "the weights of a trained run with a card, to pass on"),
    "submit": ("submit:run", "check a preparation, a fit or a sweep, and hand it to Slurm"),
    "completion": ("completion:completion", "print the script that lets a shell complete `vmat` at the Tab key"),
}
"""Command -> (function in `lightning_vmat.commands`, what it does). Nothing is imported before it is asked for."""

OWN_PARSERS = ("fit", "validate", "test", "predict", "submit")
