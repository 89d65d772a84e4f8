"""One training loop for both stages."""
