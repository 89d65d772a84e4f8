"""Training objectives of the two stages."""
