"""Layers: what may import what, and which programs answer without a library of models. All by `ast`."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from sources import (
    MODEL_LIBRARIES,
    ROOT,
    file_of,
    imports_anywhere,
    is_docstring,
    is_guard,
    loaded_with,
    project_files,
    top_names,
    tree_of,
)

DRIVERS = {"failfast", "parse_log", "plotting", "profiling", "experiments", "training", "scripts", "tests"}
# Of specdec/, what runs networks or reads tokenizers; everything else answers without a library of models.
HEAVY = (
    "decoding/block_recorder",
    "decoding/sampled",
    "decoding/sampling",
    "models/dflash",
    "models/eagle3",
    "models/llama_like",
    "models/graph/",
    "models/int8",
    "models/joined",
    "models/kv_buffer",
    "models/lm",
    "models/load",
    "models/pages",
    "models/room",
    "models/taps",
    "models/tokens",
    "runs/against_plain",
    "runs/drafter_variants",
    "runs/earlier",
    "runs/jobs",
    "runs/plan",
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
    "serving/counts",
    "serving/metrics",
    "serving/ranking_row",
    "serving/server",
    "serving/server_profile",
    "serving/speculating",
    "serving/step_costs",
    "serving/trials",
    "tune_attention",
    "tune_engine",
)
LIGHT_EXPERIMENTS = (
    "code_table",
    "compare_hf_assisted",
    "compare_live_replay",
    "gpu_session",
    "profile_overhead",
    "profile_rounds",
    "profile_sampling",
    "profile_speculation",
    "profile_taps",
    "published",
    "session_brief",
    "tree_products",
)
SANDBOXED = ("lockdown", "plain_values", "programs")  # beside sandboxed.py
LIGHT_TRAINING = (
    "family",
    "invent_prompts",
    "make_drafters",
    "self_generate",
    "train_ar_drafter",
    "train_dllm_drafter",
    "train_target",
)


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


def test_the_sandboxed_process_needs_nothing_but_its_own_files_and_the_standard_library():
    own = {f"specdec.questions.{name}" for name in SANDBOXED}
    for path in (Path("specdec", "questions", f"{name}.py") for name in ("sandboxed", *SANDBOXED)):
        assert {name for name in imports_anywhere(path) if file_of(name)} <= own, path
        assert top_names(imports_anywhere(path)) <= sys.stdlib_module_names | {"specdec"}, path


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
            assert not re.search(r"""startswith\(["'](?:ar|dllm|eagle3|lookup|plain)""", text), path


def test_the_rules_of_drafts_need_nothing_of_the_project():
    assert not [name for name in imports_anywhere(Path("specdec", "decoding", "stopping.py")) if file_of(name)]


def test_generate_needs_the_windows_alone():
    """Of the project's own files only how blocks are filled and how a draft ends, and no library."""
    imported = imports_anywhere(Path("generate.py"))
    assert not top_names(imported) & (MODEL_LIBRARIES | DRIVERS)
    assert {name for name in imported if file_of(name)} == {"specdec.decoding.denoising", "specdec.decoding.stopping"}


@pytest.mark.parametrize("path", [p for p in project_files() if p.parts[0] == "specdec"], ids=str)
def test_the_library_imports_no_driver(path):
    """But for the verbs, which are drivers: one draws figures, one asks servers."""
    allowed = {"plotting", "profiling"} if room_of(path) == "commands" else set()
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
