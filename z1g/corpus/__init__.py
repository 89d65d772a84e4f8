"""A corpus of open objects from Debian's packages: what `make corpus` converts, chooses and lists."""
