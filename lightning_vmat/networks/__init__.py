"""The denoiser of fluence maps, and the beam's-eye-view channels that condition it. Knows nothing of diffusion."""
