"""Pelvic phantoms, the same bits for a seed on every machine."""
