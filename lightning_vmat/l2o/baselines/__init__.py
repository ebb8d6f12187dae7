"""Hand-designed optimizers, against which the learned one is judged."""
