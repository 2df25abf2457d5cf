"""Asking: which engine is asked what, how often and how many questions at once. The flags of profilers.

It asks nothing: `server_profile.py` and `profile_tpt_hf.py` do.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profiling.serving.server import Server
from profiling.serving.stream import OPENAI_ENDS
from specdec.commands.flags import StrictParser
from specdec.drafters.flags import number, positive_int
from specdec.questions.own import is_own
from specdec.questions.sets import dataset_name

NUM_QUESTIONS = 8  # of a data set; of one's own, all
DEFAULTS = {"num_questions": None, "max_new_tokens": 256}
NEUTRAL = {"repetition_penalty": 1.0}  # or the checkpoint's own generation_config.json would apply


@dataclass(frozen=True)
class Engine:
    """What is particular to one server program.

    `extra`: fields of its requests; `version_url`: where its JSON names its version; `speculates`: whether it must
    speculate, must not, or may (None). `says_method`: the field there that names how it speculates, null: not at all;
    `method`: how it is taken to speculate where nobody says; `times_are_plain`: whether its times pass for plain
    decoding's (lengths of answers claim none); `ends`: the reasons for which it finishes a whole answer.
    """

    module: str
    name: str
    base_url: str
    version_url: str
    speculates: bool | None
    extra: dict[str, Any] = field(default_factory=lambda: dict(NEUTRAL))
    says_method: str | None = None
    method: str = "eagle3"
    times_are_plain: bool = True
    ends: Mapping[str, str] = field(default_factory=lambda: OPENAI_ENDS)


def add_server_flags(parser: StrictParser, engine: Engine) -> None:
    """What `served_model` reads, and how often and how many at once questions are asked."""
    server = parser.group("server")
    server.add_argument("--target_model_name", required=True, help="the model's name on the server")
    server.add_argument("--base_url", default=engine.base_url, help="of the OpenAI protocol (default: %(default)s)")
    server.add_argument("--tokenizer", help="the model's folder, to count tokens where the server sends no usage")
    server.add_argument(
        "--extra_body", type=_json_object, default={}, help="JSON: more fields of a request; null: none"
    )
    silence = number(float, lambda value: 1e-3 <= value < math.inf, "a time in seconds (0.001 or more)")
    server.add_argument("--timeout_s", type=silence, default=Server.timeout_s, help="longest silence of the server")
    parser.group("measuring").add_argument(
        "--concurrency", type=positive_int, default=1, help="questions at once (default: %(default)s)"
    )
    add_trial_flags(parser)


def add_trial_flags(parser: StrictParser) -> None:
    """--repeats and --warm_up, and a profiler's number and length of answers."""
    measuring = parser.group("measuring")
    measuring.add_argument(
        "--repeats",
        type=positive_int,
        default=3,
        help="times each question is asked; in all questions x repeats + warm-up answers (default: %(default)s)",
    )
    measuring.add_argument(
        "--warm_up", type=positive_int, default=2, help="answers that do not count (default: %(default)s)"
    )
    parser.set_defaults(**DEFAULTS)
    parser.explain("num_questions", f"the first N questions (default: {NUM_QUESTIONS}; of your own, all)")


def question_arguments(flags: argparse.Namespace) -> dict[str, Any]:
    """What `load_problems` takes, of the parsed flags."""
    names = ("data_dir", "num_questions", "question_ids", "seed", "prompt_style")
    asked = {name: getattr(flags, name) for name in names}
    dataset = getattr(flags, "dataset_name", None)
    asks_all = dataset is not None and is_own(dataset_name(dataset))
    return asked if asks_all or asked["num_questions"] is not None else asked | {"num_questions": NUM_QUESTIONS}


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return found
