"""Figures of the plan report, one a file."""
