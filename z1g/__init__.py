"""Zero-1-to-G: image to Gaussian splats with a 2D latent diffusion model."""

__version__ = "0.1.0"
