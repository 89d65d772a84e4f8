"""Data: sources of objects, shards on disk, and what training reads."""
