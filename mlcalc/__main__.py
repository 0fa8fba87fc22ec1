"""`python -m mlcalc` is the command `mlcalc`."""

import sys

from mlcalc.cli import main

if __name__ == "__main__":
    sys.exit(main())
