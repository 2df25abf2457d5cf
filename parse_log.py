"""Rank drafter configurations from logs and results: the published command, a door to `specdec/commands/rank.py`."""

import sys

from specdec.commands.rank import main

if __name__ == "__main__":
    sys.exit(main())
