"""`python -m z1g`."""

import sys

from z1g.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
