"""Kinds of tests: which modules need a library of models, by what they import. No test.

`make test` runs those that do not in processes where importing one fails, so a module that is taken for one of them and
is not fails there; `make test-pinned` runs the others again.
"""

from __future__ import annotations

from pathlib import Path

from sources import MODEL_LIBRARIES, ROOT, file_of, imports_anywhere, loaded_with, top_names

PROCESSES = {"subprocess", "multiprocessing", "concurrent"}
# Their imports reach no library of models; a command that they call imports one late, in a function, or might.
LATE = {
    "test_gallery",
    "test_html_report",
    "test_many_processes",
    "test_measuring_commands",
    "test_own_traffic",
    "test_paths_of_users",
    "test_places",
    "test_problems",
    "test_published_prompts",
    "test_results",
    "test_rewritings",
    "test_server_profile",
    "test_settings_file",
    "test_stream",
    "test_trajectory",
}


def needs_models(path: Path) -> bool:
    """Whether a test module needs a library of models, or starts processes, which might."""
    own = path.resolve().relative_to(ROOT)
    loaded = {str(own.with_suffix("")), *loaded_with(own)}
    helpers = {own, *(found for name in loaded if (found := file_of(name)) and found.parts[0] == "tests")}
    started = {name for helper in helpers for name in imports_anywhere(helper)}
    return own.stem in LATE or bool(top_names(loaded) & MODEL_LIBRARIES or top_names(started) & PROCESSES)
