"""The command line: `failfast VERB`, each verb a file in `commands/` with the flags that it owns.

Without a verb it is the published command (`python failfast.py`), which keeps all published flags. Imports no library
of models, so that every --help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

# In the order of the work.
VERBS = ("run", "rank", "record", "replay", "calibrate", "report", "status", "plot", "profile", "train")
PROGRAM = "failfast"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of a verb: 0 done, 2 a mistake of the user's (one line says which)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        print(overview())
        return 0
    if words and words[0] in VERBS:
        status = import_module(f"specdec.commands.{words[0]}").verb(words[1:])
        return int(status)
    from specdec.commands.run import main as published

    return published(words)


def overview() -> str:
    """The verbs, and what each does."""
    abouts = {verb: (import_module(f"specdec.commands.{verb}").__doc__ or "").partition("\n")[0] for verb in VERBS}
    lines = [f"  {verb:10}{about}" for verb, about in abouts.items()]
    return "\n".join(
        [f"{PROGRAM} VERB --help", "", *lines, "", f"Without a verb: {PROGRAM} run, with the published flags."]
    )


if __name__ == "__main__":
    sys.exit(main())
