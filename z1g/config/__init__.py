"""Configuration: the pydantic tree, slots, and the reading of YAML files."""
