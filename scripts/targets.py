"""Targets: what runs on which backend, a row per architecture, from the table of architectures."""

from specdec.models.architectures import ARCHITECTURES, Architecture

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
    """All of them, as Markdown."""
    rows = [HEADS, ["---"] * len(HEADS), *map(row, ARCHITECTURES)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
