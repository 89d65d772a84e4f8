"""What the two stages minimise."""
