"""Figures of the plan report, one in each file."""
