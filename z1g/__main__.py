"""`python -m z1g`."""

from z1g.cli.main import run

if __name__ == "__main__":
    run()
