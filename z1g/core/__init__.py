"""The base of all other packages: errors, files, locks, progress, seeding, devices and slots."""
