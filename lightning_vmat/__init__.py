"""lightning_vmat: learning to plan volumetric modulated arc therapy (VMAT). Research software, not for clinical use."""

__version__ = "0.1.0"
