"""relight: diffusion and language models on old Vulkan cards, each component on the hardware that suits it."""
