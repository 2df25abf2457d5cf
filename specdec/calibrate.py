"""The published name of `specdec/commands/calibrate.py`: what the cost-aware policy learns. No more than a door."""

import sys

from specdec.commands.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
