"""Prints the table of targets, a row per architecture; `--write` puts it into docs/targets.md.

python -m scripts.targets --write
"""

import sys
from pathlib import Path

from specdec.models.architectures import ARCHITECTURES, Architecture

PAGE = Path(__file__).resolve().parent.parent / "docs" / "targets.md"
BEGIN, END = "<!-- targets -->\n", "<!-- end of targets -->\n"
HEADS = ("model type", "transformers' class", "eager", "graph", "sliding windows", "rotary scaling", "blocks of masks")


def row(one: Architecture) -> list[str]:
    """The cells of an architecture."""
    fields = one.fields
    windows = "by layer" if "layer_types" in fields else "all layers" if "sliding_window" in fields else "refused"
    scalings = ", ".join(name for name in one.rope_types if name != "default")
    masked = ", ".join(f"`{kind}*`" for kind in one.masked_types)
    graph = "yes" if one.runs_as_graphs else "no"
    return [f"`{one.name}`", f"`{one.model_class}`", "yes", graph, windows, scalings, masked or "no"]


def table() -> str:
    rows = [HEADS, ["---"] * len(HEADS), *map(row, ARCHITECTURES)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def page_with(text: str, made: str) -> str:
    """The page with its table replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{made}{END}{tail}"


def main() -> int:
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
    else:
        print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
