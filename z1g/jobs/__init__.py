"""Launching of ranks, leasing of GPUs, SLURM, records of jobs, budgets, and commands at the end of a run."""
