"""The denoiser of fluence maps and the beam's-eye-view channels that condition it. Independent of `diffusion`."""
