"""Data sets: manifests, shards on disk, and the scenes that training reads."""
