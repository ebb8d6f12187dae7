"""Dose: beam model, radiological depth, linear dose operators and the projection layer. Imports `plan` and `files`."""
