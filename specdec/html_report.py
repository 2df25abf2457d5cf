"""The published name of `specdec/commands/report.py`: the HTML report. No more than a door."""

import sys

from specdec.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
