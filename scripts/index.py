"""Index: every page of docs by its title, so that none is out of reach. The README chooses; this leaves nothing out."""

from __future__ import annotations

from scripts.cells import PROJECT

DOCS = PROJECT / "docs"


def index() -> str:
    """A line a page, as links from docs/README.md."""
    lines = []
    for page in sorted(path for path in DOCS.rglob("*.md") if path != DOCS / "README.md"):
        title = page.read_text(encoding="utf-8").partition("\n")[0]
        if title.startswith("# "):
            lines.append(f"- [{title[2:]}]({page.relative_to(DOCS).as_posix()})")
    return "\n".join(lines)
