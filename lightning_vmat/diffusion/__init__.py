"""Diffusion of fluence maps: preconditioning, noise, sampling, losses. Networks are known by call signature only."""
