"""Command-line verbs: arguments in, one call."""
