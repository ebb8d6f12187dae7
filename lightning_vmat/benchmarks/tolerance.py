"""The exception of a check that found a figure out of tolerance."""

EXCEEDED = 1  # exit status


class ToleranceExceeded(Exception):
    """A figure is out of tolerance; all figures are printed and written already."""
