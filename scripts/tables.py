"""Prints the tables of the pages from the data they show; `--write` puts them into README.md and docs.

python -m scripts.tables --write

A page has a table where it says `<!-- table: NAME -->`, up to `<!-- end of table -->`. What makes them: `results.py`,
`costs.py`, `checks.py`, `paper.py`, `findings.py`, `index.py`,
`targets.py`, `tree_rules.py`, `under_load.py`, `head_to_head.py`, `heads_by_clock.py`,
`ablations.py`, `vllm.py`.
"""

import re
import sys
from pathlib import Path

from scripts.ablations import TABLES as ABLATIONS
from scripts.at_size import TABLES as AT_SIZE
from scripts.cells import PROJECT
from scripts.checks import TABLES as CHECKS
from scripts.costs import TABLES as COSTS
from scripts.findings import findings
from scripts.head_to_head import TABLES as HEAD_TO_HEAD
from scripts.heads_by_clock import TABLES as HEADS_BY_CLOCK
from scripts.index import index
from scripts.paper import runs
from scripts.results import TABLES as RESULTS
from scripts.targets import table as targets
from scripts.tree_rules import TABLES as TREE_RULES
from scripts.under_load import TABLES as UNDER_LOAD
from scripts.vllm import TABLES as VLLM

TABLES = {
    **RESULTS,
    **COSTS,
    **AT_SIZE,
    **CHECKS,
    **UNDER_LOAD,
    **VLLM,
    **HEAD_TO_HEAD,
    **HEADS_BY_CLOCK,
    **ABLATIONS,
    **TREE_RULES,
    "paper": runs,
    "first-hour": findings,
    "index": index,
    "targets": targets,
}
BLOCK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page that people read."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def page_with(text: str) -> str:
    """A page with its tables made anew. KeyError for a name that no table has."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> int:
    if sys.argv[1:] == ["--write"]:
        for page in pages():
            page.write_text(page_with(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{make()}" for name, make in TABLES.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
