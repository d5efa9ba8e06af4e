"""The arithmetic of diffusion between prompt and picture: noise, sigmas, steps, latents. Plain NumPy, no device."""
