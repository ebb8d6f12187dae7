"""Phantoms of the male pelvis. A seed gives the same bits on every machine."""
