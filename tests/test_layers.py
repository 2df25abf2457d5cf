"""Layers: what may import what, that importing a module does nothing, and how long things may be. All by `ast`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODEL_LIBRARIES = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "accelerate"}
DRIVERS = {"failfast", "parse_log", "plotting", "profiling", "experiments", "training", "scripts", "tests"}
# Of specdec/, what runs networks or reads tokenizers; everything else answers without a library of models.
HEAVY = (
    "decoding/block_recorder",
    "decoding/sampled",
    "decoding/sampling",
    "models/graph/",
    "models/lm",
    "models/load",
    "models/pages",
    "models/tokens",
    "runs/against_plain",
    "runs/jobs",
    "runs/recording",
    "session",
)
LIGHT_PROFILING = (
    "check_lossless",
    "common",
    "new_profile",
    "profile_dataset_output",
    "profile_engine",
    "profile_tpt_hf",
    "profile_tpt_sglang",
    "profile_tpt_vllm",
    "profile_tpt_vllm_eagle3",
    "roofline",
    "serving/asking",
    "serving/chat",
    "serving/metrics",
    "serving/ranking_row",
    "serving/server",
    "serving/server_profile",
    "serving/trials",
    "tune_engine",
)
LIGHT_EXPERIMENTS = (
    "compare_hf_assisted",
    "compare_live_replay",
    "gpu_session",
    "profile_overhead",
    "profile_rounds",
    "profile_sampling",
    "profile_speculation",
)
LIGHT_TRAINING = (
    "family",
    "invent_prompts",
    "make_drafters",
    "self_generate",
    "train_ar_drafter",
    "train_dllm_drafter",
    "train_target",
)
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 55


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
    for path in (Path(*module.split(".")).with_suffix(".py"), Path(*module.split("."), "__init__.py")):
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


def is_heavy(path: Path) -> bool:
    return path.relative_to("specdec").as_posix().startswith(HEAVY)


@pytest.mark.parametrize("path", [p for p in project_files() if p.parts[0] == "specdec" and not is_heavy(p)], ids=str)
def test_what_runs_no_network_loads_no_model_library(path):
    assert not top_names(loaded_with(path)) & MODEL_LIBRARIES


@pytest.mark.parametrize("name", LIGHT_PROFILING)
def test_clients_of_servers_and_answers_about_profilers_load_no_model_library(name):
    assert not top_names(loaded_with(Path("profiling", f"{name}.py"))) & MODEL_LIBRARIES


@pytest.mark.parametrize("name", LIGHT_EXPERIMENTS)
def test_answers_about_experiments_load_no_model_library(name):
    assert not top_names(loaded_with(Path("experiments", f"{name}.py"))) & MODEL_LIBRARIES


@pytest.mark.parametrize("name", LIGHT_TRAINING)
def test_training_commands_load_no_model_library_before_they_train(name):
    assert not top_names(loaded_with(Path("training", f"{name}.py"))) & MODEL_LIBRARIES


def test_ranking_a_log_loads_no_model_library():
    assert not top_names(loaded_with(Path("parse_log.py"))) & MODEL_LIBRARIES


@pytest.mark.parametrize("path", [p for p in project_files() if p.parts[0] == "plotting"], ids=str)
def test_figures_load_no_model_library(path):
    assert not top_names(loaded_with(path)) & MODEL_LIBRARIES


def test_only_figures_load_matplotlib():
    """So that everything else starts without it."""
    names = [path for path in project_files() if path.parts[0] != "plotting"]
    assert not [path for path in names if "matplotlib" in top_names(loaded_with(path))]


@pytest.mark.parametrize("name", ["inputs", "sweeps"])
def test_what_figures_are_drawn_from_needs_no_matplotlib(name):
    assert "matplotlib" not in top_names(loaded_with(Path("plotting", f"{name}.py")))


def test_the_sandboxed_process_needs_nothing_of_the_project():
    assert not [name for name in imports_anywhere(Path("specdec", "questions", "sandboxed.py")) if file_of(name)]


def test_answers_about_the_command_line_load_no_model_library():
    """`failfast.py --help`, a bad flag and --read_pickle answer at once."""
    assert not top_names(loaded_with(Path("failfast.py"))) & MODEL_LIBRARIES


ROOMS = Path("specdec")
DOORS = ("calibrate", "html_report", "replay")  # published names of commands, and no more than that
MAX_ROOMS, MAX_FLOORS = 16, 10


def room_of(path: Path) -> str:
    """What stands at the top of specdec/: a folder, or a file by itself."""
    return path.parts[1] if len(path.parts) > 2 else path.stem


def arrows() -> dict[str, set[str]]:
    """Room -> rooms that it imports, wherever the import stands: at the top, in a function, for types alone."""
    found: dict[str, set[str]] = {}
    for path in project_files():
        room = room_of(path)
        if path.parts[0] == "specdec" and room != "__init__" and room not in DOORS:
            own = {name.split(".")[1] for name in imports_anywhere(path) if name.startswith("specdec.")}
            found.setdefault(room, set()).update(own - {room})
    return found


def floors(above: dict[str, set[str]]) -> dict[str, int]:
    """Each room's floor: one more than the highest that it stands on. ValueError where rooms form a ring."""
    found: dict[str, int] = {}
    while len(found) < len(above):
        ready = [room for room, below in above.items() if room not in found and below <= found.keys()]
        if not ready:
            raise ValueError(f"a ring among {sorted(above.keys() - found.keys())}")
        found |= {room: 1 + max((found[one] for one in above[room]), default=0) for room in ready}
    return found


def test_rooms_form_no_ring_and_few_floors():
    above = arrows()
    assert len(above) <= MAX_ROOMS, sorted(above)
    assert max(floors(above).values()) <= MAX_FLOORS, floors(above)


def test_a_ring_of_rooms_would_be_seen():
    assert floors({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ValueError, match="ring among"):
        floors({"a": {"b"}, "b": {"a"}, "c": set()})


@pytest.mark.parametrize("name", DOORS)
def test_published_names_are_no_more_than_doors(name):
    body = [node for node in tree_of(ROOMS / f"{name}.py").body if not is_docstring(node)]
    assert all(isinstance(node, ast.Import | ast.ImportFrom) or is_guard(node, "__main__") for node in body)


def test_only_its_own_file_names_a_drafter_family():
    """Nothing else lists families or matches on their names: the table is made of the files that are there."""
    for path in project_files():
        if path.parts[:2] != ("specdec", "drafters"):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not re.search(r"""startswith\(["'](?:ar|dllm|lookup|plain)""", text), path


def test_the_rules_of_drafts_need_nothing_of_the_project():
    assert not [name for name in imports_anywhere(Path("specdec", "decoding", "stopping.py")) if file_of(name)]


def test_generate_needs_the_windows_alone():
    """Of the project's own files only how blocks are filled and how a draft ends, and no library."""
    imported = imports_anywhere(Path("generate.py"))
    assert not top_names(imported) & (MODEL_LIBRARIES | DRIVERS)
    assert {name for name in imported if file_of(name)} == {"specdec.decoding.denoising", "specdec.decoding.stopping"}


@pytest.mark.parametrize("path", [p for p in project_files() if p.parts[0] == "specdec"], ids=str)
def test_the_library_imports_no_driver(path):
    """But for the verbs, which are drivers: one draws figures."""
    allowed = {"plotting"} if room_of(path) == "commands" else set()
    assert not top_names(imports_anywhere(path)) & (DRIVERS - allowed)


def test_the_loop_imports_no_model_library():
    path = Path("specdec", "decoding", "loop.py")
    assert not top_names(imports_anywhere(path) | loaded_with(path)) & MODEL_LIBRARIES


@pytest.mark.parametrize("path", project_files(), ids=str)
def test_no_import_cycle(path):
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    assert module not in loaded_with(path)


@pytest.mark.parametrize("path", [p for p in project_files() if p.name not in ("failfast.py", "parse_log.py")], ids=str)
def test_drivers_are_imported_by_nobody(path):
    assert not {"failfast", "parse_log"} & top_names(imports_anywhere(path))


def test_nothing_shadows_another_package():
    assert not (ROOT / "failfast").exists()
    assert not (ROOT / "plotting.py").exists() and not (ROOT / "datasets.py").exists()


# Calls that make a constant: they read, print and load nothing.
PURE_CALLS = {
    "Path", "frozenset", "tuple", "set", "dict", "len", "re.compile", "logging.getLogger", "TypeVar",
    "range", "sorted", "field", "dataclasses.field", "dataclass", "object", "datetime.date",
}  # fmt: skip


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


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
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
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
