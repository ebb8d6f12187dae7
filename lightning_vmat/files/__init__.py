"""Atomic writes of files and folders, and YAML with one-line errors."""
