"""Sources: the project's own files as syntax trees, and what they import. No test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL_LIBRARIES = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "accelerate"}


def project_files() -> list[Path]:
    folders = ("specdec", "plotting", "profiling", "experiments", "training", "scripts")
    found = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return sorted(path.relative_to(ROOT) for path in found)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def is_guard(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.If) and name in ast.unparse(node.test)


def names_of(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names, as "specdec.config" for each spelling of it."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import"
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_on_load(path: Path) -> set[str]:
    """Modules imported when the file is; not those inside functions or under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.AST] = list(tree_of(path).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_guard(node, "TYPE_CHECKING"):
            continue
        found.update(names_of(node))
        pending.extend(ast.iter_child_nodes(node))
    return found


def imports_anywhere(path: Path) -> set[str]:
    return {name for node in ast.walk(tree_of(path)) for name in names_of(node)}


@cache
def file_of(module: str) -> Path | None:
    named = Path(*module.split("."))
    for path in (named.with_suffix(".py"), named / "__init__.py", Path("tests", f"{module}.py")):
        if (ROOT / path).is_file():
            return path
    return None


def loaded_with(path: Path) -> set[str]:
    """Everything that importing the file imports, through the project's own files."""
    seen: set[str] = set()
    pending = list(imports_on_load(path))
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            own = file_of(module)
            pending.extend(imports_on_load(own) if own else ())
    return seen


def top_names(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
