"""The published name of `specdec/commands/replay.py`: traces x settings, ranked. No more than a door."""

import sys

from specdec.commands.replay import main

if __name__ == "__main__":
    sys.exit(main())
