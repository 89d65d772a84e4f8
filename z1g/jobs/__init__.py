"""Launching ranks, leasing GPUs, SLURM, and the records that jobs leave."""
