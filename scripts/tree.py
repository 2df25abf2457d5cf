"""Prints the tree of the program, a line per module from its docstring; `--write` puts it into docs/architecture.md.

python scripts/tree.py --write
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "architecture.md"
FOLDERS = ("specdec", "plotting", "profiling", "experiments", "training")
BEGIN, END = "<!-- tree -->\n", "<!-- end of tree -->\n"
WIDTH = 110


def about(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph if len(paragraph) <= WIDTH else paragraph[: WIDTH - 3].rsplit(" ", 1)[0] + " ..."


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A folder and what is in it: files first, then folders, by name."""
    indent = "  " * depth
    package = folder / "__init__.py"
    yield f"{indent}{folder.name}/" + (f"  {about(package)}" if package.is_file() else "")
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}  {path.name}  {about(path)}"
    for below in sorted(one for one in folder.iterdir() if one.is_dir() and any(one.glob("*.py"))):
        yield from lines(below, depth + 1)


def tree() -> str:
    """The whole tree as text."""
    top = [f"{path.name}  {about(path)}" for path in sorted(PROJECT.glob("*.py"))]
    return "\n".join([*top, *(line for name in FOLDERS for line in lines(PROJECT / name))])


def page_with(text: str, made: str) -> str:
    """The page with its tree replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}```\n{made}\n```\n{END}{tail}"


def main() -> int:
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), tree()), encoding="utf-8")
    else:
        print(tree())
    return 0


if __name__ == "__main__":
    sys.exit(main())
