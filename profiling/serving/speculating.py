"""Speculating: whether a server speculates, as it should, and by which method; what its metrics say over all answers.

It asks no question (`chat.py` does) and reads no page of metrics (`metrics.py` does).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from profiling.serving.asking import Engine
from profiling.serving.chat import Served
from profiling.serving.metrics import NO, UNKNOWN, YES, Metrics, between, is_alone, speculates, total
from profiling.serving.ranking_row import skips_rounds
from profiling.serving.server import Refused, Server
from profiling.serving.trials import REMEMBERS, Trial
from specdec.commands.flags import StrictParser
from specdec.errors import UserError

ANY_METHOD = "speculation"  # what a row is called whose method is not known


def add_method_flag(parser: StrictParser, engine: Engine) -> None:
    parser.group("measuring").add_argument(
        "--method",
        type=_method,
        help="how the server speculates, which names its row: draft_model, eagle3, ngram, suffix "
        f"(default: what the server says, else {engine.method})",
    )


def _method(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9+.-][\w+.-]{0,59}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a method, such as draft_model")
    return text.lower()


def method_of(engine: Engine, flags: argparse.Namespace, server: Server, counts: dict[str, Any]) -> str:
    """The name of the server's method: as the user says it, else as the server does, else the profiler's own; a warning
    where the counts rule that out."""
    if flags.method:
        return str(flags.method)
    said = None
    with suppress(UserError):
        said = told(engine, server).get(engine.says_method) if engine.says_method else None
    if said:
        return re.sub(r"[^\w+.-]", "", str(said)).lower()[:60] or ANY_METHOD
    if not skips_rounds(counts, engine.method):
        return engine.method
    num_idle = counts["num_rounds"] - counts["num_drafts"]
    _warn(
        f"{num_idle} of {counts['num_rounds']} rounds had no draft, so this is not {engine.method}: "
        "give --method (ngram, suffix), which names the row"
    )
    return ANY_METHOD


@dataclass(frozen=True)
class Kind:
    """What a profiler wants of a server. `needs`: it must speculate; `forbids`: it must not."""

    engine: Engine
    base_url: str
    needs: bool
    forbids: bool

    @classmethod
    def wanted(cls, engine: Engine, flags: argparse.Namespace) -> Kind:
        needs = bool(engine.speculates or getattr(flags, "vanilla", None))
        forbids = not needs and (engine.times_are_plain or bool(flags.write_profile))
        return cls(engine, flags.base_url, needs, forbids)

    def check_warm_up(self, before: Metrics | None, after: Metrics | None) -> None:
        """Raises UserError for a server that the warm-up has shown to be of the wrong kind. A drafter that has found
        nothing to propose yet (ngram) proves nothing."""
        if self.forbids and speculates(before, after) == YES:
            raise self._not_plain("")
        if self.needs and (after is None or after.denies):
            raise self._not_speculating()

    def check(self, found: dict[str, Any]) -> None:
        """Raises UserError where the server is of the wrong kind; that it is unknown is a warning."""
        if self.forbids and found["speculates"] == YES:
            counts = found["speculation"]
            raise self._not_plain(f" (acceptance length {counts['acceptance_len']:.2f})" if counts else "")
        if self.forbids and found["speculates"] == UNKNOWN:
            _warn(
                f"{Server(self.base_url).root_url}/metrics does not say whether the server speculates, so this "
                'may not be plain decoding ("speculates": "unknown")'
            )
        if self.needs and not found["speculation"]:
            raise self._not_speculating()

    def _not_plain(self, length: str) -> UserError:
        how = "profile_tpt_vllm_eagle3" if self.engine.speculates is False else "--vanilla FILE, made without it"
        return UserError(
            f"the server at {self.base_url} speculates{length}, so this is not plain decoding: start it without, or "
            f"use {how}"
        )

    def _not_speculating(self) -> UserError:
        return UserError(
            f"{Server(self.base_url).root_url}/metrics tells of no speculation in these answers: start the server "
            "with it (docs/servers.md) and with its metrics on, and ask while nobody else does"
        )


def speculation_of(engine: Engine, served: Served, before: Metrics | None, trials: Sequence[Trial]) -> dict[str, Any]:
    """{"speculation": totals or None, "speculates": YES, NO or UNKNOWN} over the trials that count.

    Answers at once cannot be told apart by the metrics: then all of them are taken together, if nobody else asked.
    """
    answers = [trial.answer for trial in trials if trial.answer]
    counts = total([answer.speculation for answer in answers if answer.speculation])
    num_tokens = sum(answer.num_tokens for answer in answers)
    after = served.metrics() if before is None else served.metrics_after(before, num_tokens)
    if counts is None and not served.reads_metrics and before and after:
        of_all = between(before, after, num_tokens - len(answers))
        counts = total([] if of_all is None else [of_all])
        if counts and not counts["is_derived"] and not is_alone(before, after, num_tokens):
            counts = None
    return {"speculation": counts, "speculates": YES if counts else _speculates(engine, served, before, after)}


def _speculates(engine: Engine, served: Served, before: Metrics | None, after: Metrics | None) -> str:
    """YES, NO or UNKNOWN, by the server's metrics, else by what it says of its settings."""
    found, said = speculates(before, after), {}
    if found == UNKNOWN and engine.says_method:
        with suppress(UserError):  # a server that is gone by now leaves what was measured
            said = told(engine, served.chat.server)
    if engine.says_method not in said:
        return found
    return NO if said[engine.says_method] is None else YES


def warn_of_memory(found: dict[str, Any]) -> None:
    """A warning where repeats were left out for what the server remembers of first answers."""
    forgotten = [one for one in found["left_out"] if one["why"].endswith(REMEMBERS)]
    if forgotten:
        _warn(
            f"{forgotten[0]['why']}; {len(forgotten)} repeats are left out. Ask a server that has just been started, "
            "with --repeats 1"
        )


def told(engine: Engine, server: Server) -> dict[str, Any]:
    """What the server says of itself, where it says its version; {} if it says nothing."""
    try:
        found = json.loads(server.get(server.root_url + engine.version_url))
    except (Refused, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
