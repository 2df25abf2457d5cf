"""Style: importing a module does nothing, things are short and typed, and the architecture page has them all."""

from __future__ import annotations

import ast

import pytest
from sources import ROOT, is_docstring, is_guard, project_files, tree_of

MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 55
# Calls that make a constant: they read, print and load nothing.
PURE_CALLS = {
    "Path", "frozenset", "tuple", "set", "dict", "len", "re.compile", "logging.getLogger", "TypeVar",
    "range", "sorted", "field", "dataclasses.field", "dataclass", "object", "datetime.date",
}  # fmt: skip


def impure_calls(node: ast.AST, own_names: set[str]) -> list[str]:
    """Calls in an expression that are neither known to be pure nor of a class or function of the same file."""
    calls = [ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)]
    return [call for call in calls if call not in PURE_CALLS | own_names and not call.endswith(".resolve")]


def statements_on_import(tree: ast.Module) -> list[str]:
    body = tree.body
    own = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
    classes = {name for name in imported if name[:1].isupper()}  # data classes of constants, by PEP 8
    declarations = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = []
    for node in body:
        if isinstance(node, declarations) or is_docstring(node):
            continue
        if is_guard(node, "__main__") or is_guard(node, "TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign) and not impure_calls(node, own | classes):
            continue
        found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    return found


@pytest.mark.parametrize("path", project_files(), ids=str)
def test_importing_executes_nothing(path):
    assert statements_on_import(tree_of(path)) == []


@pytest.mark.parametrize(
    ("source", "is_fine"),
    [
        ("X = 3", True),
        ("X: int = re.compile('a')", True),
        ("if TYPE_CHECKING:\n    import torch", True),
        ("if __name__ == '__main__':\n    main()", True),
        ("print('x')", False),
        ("X = torch.zeros(3)", False),
        ("X = open('x').read()", False),
        ("for i in range(3):\n    pass", False),
        ("try:\n    import torch\nexcept ImportError:\n    pass", False),
        ("if DEBUG:\n    x = 1", False),
        ("del x", False),
    ],
)
def test_the_check_itself_bites(source, is_fine):
    assert (statements_on_import(ast.parse(source)) == []) is is_fine


@pytest.mark.parametrize("path", project_files(), ids=str)
def test_files_and_functions_are_short_and_say_what_they_are(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE_LINES
    joined = [line for line in lines[: tree.body[0].end_lineno] if line.endswith(" \\")]
    assert joined == [], "a command of several lines would stand on one in --help: end them with two backslashes"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if f.end_lineno - f.lineno + 1 > MAX_FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize("path", project_files(), ids=str)
def test_every_signature_of_the_library_is_typed(path):
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    untyped = [function.name for function in functions if function.returns is None]
    for function in functions:
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        untyped += [f"{function.name}({name})" for name in missing]
    assert untyped == []


def test_the_tree_of_the_architecture_page_is_the_programs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import tree

    text = tree.PAGE.read_text(encoding="utf-8")
    assert tree.page_with(text, tree.tree()) == text, "run: python scripts/tree.py --write"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The tree")[0]
    for path in sorted((ROOT / "specdec").iterdir()):
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            assert path.name == "__init__.py" or f"{path.name}" in text, path.name
