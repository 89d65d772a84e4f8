"""Six views tiled into one latent (the original research code)."""
