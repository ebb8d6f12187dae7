"""The commands of `vmat`. This imports nothing, so that `vmat --help` is quick."""

from __future__ import annotations

COMMANDS = {
    "prepare phantom": ("prepare:phantom", "make a cohort of seeded phantoms, with reference plans"),
    "prepare open-kbp": ("prepare:open_kbp", "make a cohort of OpenKBP head-and-neck patients"),
    "prepare dicom": ("prepare:dicom", "make a cohort of patients from DICOM folders"),
    "prepare portpy": ("prepare:portpy", "make a cohort of PortPy patients with their dose influence"),
    "prepare matrad": ("prepare:matrad", "make a cohort of matRad or pyRadPlan patients (.mat)"),
    "prepare pack": ("prepare:pack", "pack a cohort of planned phantoms into one small file"),
    "prepare unpack": ("prepare:unpack", "make the cohort of a packed file or of a shipped one"),
    "prepare sheet": ("prepare:sheet", "draw slices of a cohort's cases with their outlines"),
    "plan": ("plan:plan", "plan one patient: apertures, dose, metrics and report"),
    "explore": ("explore:explore", "plan one patient by wish, in the browser"),
    "commission": ("commission:commission", "fit the beam model of a machine to measurements"),
    "benchmark planners": ("benchmark:planners", "compare planners on the held-out cases of a cohort"),
    "benchmark optimizers": ("benchmark:optimizers", "compare fluence optimizers with the learned one"),
    "benchmark dose": ("benchmark:dose", "measure the speed of the dose operators"),
    "check dose": ("check:dose", "check the dose against an independent engine"),
    "check delivery": ("check:delivery", "recompute the dose of RTPLANs with gantry and leaves in motion"),
    "fit": ("training:run", "train a recipe from a YAML file"),
    "validate": ("training:run", "validate a recipe on the validation cases"),
    "test": ("training:run", "test a recipe on the held-out cases"),
    "predict": ("training:run", "predict with a recipe"),
    "release": ("release:release", "write the weights of a trained run with a card"),
    "submit": ("submit:run", "validate a preparation, a fit or a sweep, and submit it to Slurm"),
    "completion": ("completion:completion", "print the script that lets a shell complete `vmat` at the Tab key"),
}
"""Command -> (function in `lightning_vmat.commands`, what it does). Modules are imported when a command runs."""

OWN_PARSERS = ("fit", "validate", "test", "predict", "submit")
