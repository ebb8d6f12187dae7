"""Accuracy of the dose: against an independent engine, and for a 6 MV beam in water."""
