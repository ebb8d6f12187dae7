"""Geometry of a case, its arcs and apertures, and what the linac can do. Imports nothing else of the package."""
