"""Searches over options: points from Optuna, trained and measured by the DAG."""
