"""Hand-designed optimizers, with which the learned one is compared."""
