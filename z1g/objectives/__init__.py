"""What the two stages minimize."""
