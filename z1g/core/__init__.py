"""What every other room stands on: errors, files, locks, progress, seeds, devices, slots."""
