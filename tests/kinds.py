"""Kinds of tests: which modules need a library of models, by what they import. No test.

`make test` runs those that do not in processes where importing one fails, so a module that is taken for one of them and
is not fails there. Of the others `make test-pinned` runs those again that could tell one version of such a library from
another.
"""

from __future__ import annotations

from pathlib import Path

from sources import MODEL_LIBRARIES, ROOT, file_of, imports_anywhere, loaded_with, top_names

PROCESSES = {"subprocess", "multiprocessing", "concurrent"}
# Their imports reach no library of models; a command that they call imports one late, in a function, or might.
LATE = {
    "test_ablations",
    "test_gallery",
    "test_heads_clock",
    "test_heads_measured",
    "test_heads_table",
    "test_html_report",
    "test_many_processes",
    "test_measuring_commands",
    "test_merge_traces",
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
# What they try stands above `CachedLM`: rules of drafting and stopping, laws of sampling, recordings, folders of
# records, scripts. Their networks are something to draft with. A forward, a mask, a cache, a hidden state or a field of
# a checkpoint that is another in a version is found by those that compare just that: test_lm, test_block_cache,
# test_pages, test_taps, test_tree_verification, test_joined, test_targets, test_dflash, test_eagle3, test_bundled,
# test_failfast, test_models, test_checkpoint_settings.
SAME_IN_ALL_VERSIONS = {
    "test_advised",
    "test_drafters",
    "test_generate",
    "test_generate_cache",
    "test_hybrid",
    "test_lossless",
    "test_recording",
    "test_reconcile_heads",
    "test_repeated",
    "test_replay_command",
    "test_runs",
    "test_sampled_runs",
    "test_sampling_laws",
    "test_scripts",
    "test_table_rows",
    "test_tree_sampling",
}


def needs_models(path: Path) -> bool:
    """Whether a test module needs a library of models, or starts processes, which might."""
    loaded = loaded_with(path.resolve().relative_to(ROOT))
    return path.stem in LATE or bool(top_names(loaded) & MODEL_LIBRARIES or _names_itself(path) & PROCESSES)


def tells_versions_apart(path: Path) -> bool:
    """Whether a test module that needs a library of models could find another version of it to differ.

    It makes networks, tokenizers or checkpoints of its own, itself or by a helper. One that knows the program's
    commands and the bundled models alone finds nothing there that test_bundled and test_failfast do not.
    """
    is_same = path.stem in SAME_IN_ALL_VERSIONS
    return needs_models(path) and not is_same and bool(_names_itself(path) & MODEL_LIBRARIES)


def _names_itself(path: Path) -> set[str]:
    """The libraries that a test module and its helpers import, wherever in them; not those of the program."""
    own = path.resolve().relative_to(ROOT)
    helpers = {own, *(found for name in loaded_with(own) if (found := file_of(name)) and found.parts[0] == "tests")}
    return top_names({name for helper in helpers for name in imports_anywhere(helper)})
