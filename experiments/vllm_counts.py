"""Acceptance counts of a real vLLM, method by method, against our records under its conventions: count for count.

    python -m experiments.vllm_counts --vllm VENV/bin/vllm --work_dir FOLDER --data_dir data --eagle3_dir HEAD

Records traces of the bundled target on bundled and gsm8k questions, starts vLLM once a method, and reconciles with it
(docs/reconcile.md). A method whose head is not given is left out. No time is measured. The last line on stdout is JSON.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.vllm_records import record_questions, vllm_parser
from experiments.vllm_server import Settings, VllmServer, draft_model, lookup, versions
from profiling.common import run_command
from specdec.commands import reconcile
from specdec.models.checkpoints import BUNDLED

DATASETS = (BUNDLED, "gsm8k")
COUNTS = ("num_rounds", "num_drafts", "num_drafted", "num_accepted")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = vllm_parser("experiments.vllm_counts", __doc__)
    parser.add_argument("--eagle3_dir", type=Path, help="an EAGLE-3 head of the bundled target")
    parser.add_argument("--dflash_dir", type=Path, help="a DFlash head of the bundled target")
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    methods = methods_of(flags.eagle3_dir, flags.dflash_dir)
    for dataset in DATASETS:
        record_questions(flags, dataset, [drafter for drafter, _ in methods.values()])
    return {
        "what": "acceptance counts of vLLM against those of our records under its conventions, by question",
        "versions": versions(flags.vllm),
        "device": "CPU, float32",
        "max_new_tokens": flags.max_new_tokens,
        "methods": {name: _of_method(flags, name, *one) for name, one in methods.items()},
    }


def methods_of(eagle3_dir: Path | None, dflash_dir: Path | None) -> dict[str, tuple[str, Settings]]:
    """By vLLM's method: the drafter's name here, and the server's settings for the same drafts."""
    suffix = {"method": "suffix", "num_speculative_tokens": 8, "suffix_decoding_max_cached_requests": 0}
    found: dict[str, tuple[str, Settings]] = {
        "draft_model": ("ar_None_sf_5", draft_model(5)),
        "ngram": ("lookup_3_sf_5", lookup(5)),
        "suffix": ("suffix_24_n8", suffix),
    }
    for method, folder, length in (("eagle3", eagle3_dir, 3), ("dflash", dflash_dir, 15)):
        if folder is not None:
            settings = {"method": method, "model": str(folder.resolve()), "num_speculative_tokens": length}
            found[method] = f"{method}_sf_{length}", settings
    return found


def _of_method(flags: Namespace, name: str, drafter: str, settings: Settings) -> dict[str, Any]:
    with VllmServer(flags.vllm, flags.work_dir / f"{name}.log", settings) as server:
        head = getattr(flags, f"{name}_dir", None)  # run again under the mistakes that servers make with heads
        models = ["--with_models", "--device", "cpu", f"--{name}_dir", str(head)] if head else []
        found = {dataset: _of_questions(flags, dataset, drafter, server.url, models) for dataset in DATASETS}
    return {"drafter": drafter, "settings": {**settings, "model": Path(settings.get("model", "")).name}, **found}


def _of_questions(flags: Namespace, dataset: str, drafter: str, url: str, models: Sequence[str]) -> dict[str, Any]:
    asked = [str(flags.work_dir / dataset), "--drafter", drafter, "--base_url", url, "--json", *models]
    asked += ["--data_dir", str(flags.data_dir)] if flags.data_dir else []
    found = json.loads(reconcile.run(asked))
    questions = found["questions"]
    return {
        "num_questions": len(questions),
        "num_agree": sum(one["agrees"] for one in questions),
        "conventions": [one["kind"] + ": " + one["text"] for one in found["findings"]],
        "ours": _sums([one["ours"] for one in questions]),
        "server": _sums([one["server"] for one in questions]),
        "explained": _sums([one["explained"] for one in questions], (*COUNTS, "num_open")),
    }


def _sums(parts: Sequence[Mapping[str, Any]], names: Sequence[str] = COUNTS) -> dict[str, int]:
    return {name: sum(one[name] for one in parts) for name in names}


if __name__ == "__main__":
    sys.exit(main())
