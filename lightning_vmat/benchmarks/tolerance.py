"""A check that ran to its end and found a figure out of tolerance."""

EXCEEDED = 1  # exit status


class ToleranceExceeded(Exception):
    """A figure is out of its tolerance; everything is printed and written already."""
