"""Launching of ranks, leasing of GPUs, SLURM, and records of jobs."""
