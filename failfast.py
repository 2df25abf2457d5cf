"""Measure drafting strategies for speculative decoding: the published command, a door to `specdec/cli.py`."""

import sys

from specdec.cli import main

if __name__ == "__main__":
    sys.exit(main())
