"""Planning of runs: stages, identities, configuration slices, cost."""
