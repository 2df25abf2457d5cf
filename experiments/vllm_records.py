"""What the experiments with a real vLLM share: the flags that they take, and our records of the questions it is asked.

The server itself: `vllm_server.py`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from profiling.common import parser_of
from specdec.commands import record
from specdec.commands.flags import StrictParser
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError


def vllm_parser(module: str, about: str) -> StrictParser:
    """The parser of an experiment: its server, its questions and where it works."""
    parser = parser_of(module, about, ("data_dir", "num_questions", "max_new_tokens"))
    parser.add_argument("--vllm", type=Path, required=True, help="the command vllm of its environment")
    parser.add_argument("--work_dir", type=Path, required=True, help="where traces and logs go")
    return parser


def record_questions(flags: Namespace, dataset: str, drafters: Sequence[str]) -> Path:
    """The folder of traces of a data set's questions with what these drafters write, heads by the flags that name them;
    those that are there already stay. Raises UserError if the recording ends badly."""
    folder: Path = flags.work_dir / dataset
    asked = ["--dataset_name", dataset, "--num_questions", str(flags.num_questions), "--device", "cpu"]
    asked += ["--max_new_tokens", str(flags.max_new_tokens), "--dtype", "float32", "--drafters", PLAIN, *drafters]
    asked += ["--latency_profile", "none", "--output_dir", str(folder)]
    for name in ("data_dir", "eagle3_dir", "dflash_dir"):
        given = getattr(flags, name, None)
        asked += [f"--{name}", str(given)] if given else []
    if status := record.main(asked, "failfast record"):
        raise UserError(f"recording {dataset} ended with exit status {status}")
    return folder
