"""Comparisons of planners, optimizers and dose engines."""
