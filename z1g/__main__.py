"""`python -m z1g`."""

import signal
import sys

from z1g.cli.main import main

if __name__ == "__main__":
    code = main()
    # What Python does after this has nothing to tell.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
