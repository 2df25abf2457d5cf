"""Puts a trained head among the bundled models, with its card: what training.make_drafters left in its work folder.

    python -m training.publish_head WORK_DIR/eagle3 assets/models/eagle3_head --made_by "python -m ..."

It trains nothing. Which head a folder is for, its name says: eagle3_head or dflash_head.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from specdec.commands.flags import StrictParser, program_name
from specdec.errors import MALFORMED, UserError
from training.cards import HEAD_TITLES, head_card
from training.cli import run_command
from training.export import REPORT_FILE, publish

MODULE = "training.publish_head"


def publish_head(source: Path, folder: Path, command: str) -> dict:
    """Copies a head with its card; what an earlier call put there is replaced. Raises UserError."""
    if folder.name not in HEAD_TITLES:
        raise UserError(f"{folder} is not a folder of a bundled head: call it {' or '.join(HEAD_TITLES)}")
    try:
        report, config = (json.loads((source / name).read_text()) for name in (REPORT_FILE, "config.json"))
        card = head_card(folder.name, report, config, command)
    except (OSError, *MALFORMED) as error:
        raise UserError(f"{source} is not a head that training.make_drafters made ({error!r:.80})") from error
    return {"bytes": publish(source, folder, card)}


def main() -> dict:
    about = "Puts a trained head among the bundled models, with its card."
    parser = StrictParser(prog=program_name(MODULE), description=about)
    parser.add_argument("head", type=Path, help="a head's folder in the work folder of training.make_drafters")
    parser.add_argument("out", type=Path, help=f".../{' or .../'.join(HEAD_TITLES)}")
    parser.add_argument("--made_by", required=True, help="the command that trained it, for the card")
    arguments = parser.parse_args()
    return publish_head(arguments.head, arguments.out, arguments.made_by)


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
