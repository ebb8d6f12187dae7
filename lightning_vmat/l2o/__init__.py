"""Problems, optimizers and unrolls: learned and hand-designed optimizers behind one protocol."""
