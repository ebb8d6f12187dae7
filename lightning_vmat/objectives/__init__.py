"""Dose objectives, clinical goals and the protocols that hold both."""
