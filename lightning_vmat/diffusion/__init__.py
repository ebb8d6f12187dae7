"""Diffusion of fluence maps: preconditioning, noise, sampling, losses. A network is its call signature, no more."""
