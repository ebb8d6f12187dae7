"""How right the dose is, figure by figure: against an independent engine's doses, and a 6 MV beam in water."""
