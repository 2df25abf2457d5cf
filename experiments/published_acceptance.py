"""Speculation with published acceptance: tokens a second of this engine beside published ones, each with its hardware.

    python -m experiments.published_acceptance --target Qwen3-8B --profile DIR/H200_Qwen3-8B.json --out DIR

Random weights accept nothing, so which tokens of a draft are accepted follows the published mean acceptance length
(`profiling/given_acceptance.py`). Everything else is really run, by the program's own loop: the head's passes over the
target's features, the tree, its verification, the commit; `parts_ms` says what each takes of a round. The baseline is
plain decoding in the same engine and process. Acceptance lengths count the target's own token. The last line on stdout
is JSON.
"""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from experiments.published import PUBLISHED, SETS, Published
from profiling.bench import whole_shape
from profiling.common import attempt, machine, parser_of, run_command, save_json
from profiling.given_acceptance import GivenRounds, timed_rounds
from profiling.profile_engine import Settings, add_engine_flags, make_lm, read_settings
from profiling.roofline import entry_name, find_shape
from profiling.shaped_heads import HEAD_SHAPES, make_head
from specdec.decoding.target import Target
from specdec.drafters.families import parse_name
from specdec.drafters.plain import NoDrafter
from specdec.errors import UserError
from specdec.latency.pricing import tree_extra_ms
from specdec.latency.profile import LatencyProfile, load_profile, verification_ms
from specdec.models.checkpoints import TARGET
from specdec.records.rounds import Round
from specdec.runs.jobs import check_pass, check_room


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.published_acceptance", __doc__)
    parser.add_argument("--target", choices=sorted(PUBLISHED), default="Qwen3-8B", help="a shape by name")
    parser.add_argument("--profile", help="latency profile to model with: profile_engine's, with --heads")
    parser.add_argument("--datasets", nargs="+", choices=(*SETS, "chat"), help="these alone")
    how = "such rounds alone: of a kind of head, by a drafter's name, with a mean acceptance length"
    parser.add_argument("--given", nargs=3, action="append", metavar=("HEAD", "DRAFTER", "LENGTH"), help=how)
    parser.add_argument("--context", type=int, default=512, help="prompt tokens")
    parser.add_argument("--new_tokens", type=int, default=384, help="output tokens")
    parser.add_argument("--runs", type=int, default=2, help="each case and plain decoding in turn; the median counts")
    parser.add_argument("--out", type=Path, help="folder for published_TARGET.json, written after every case")
    add_engine_flags(parser)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    cases = [_given(case, flags) for case in flags.given] if flags.given else PUBLISHED[flags.target]
    settings = read_settings(flags)
    profile = load_profile(flags.profile) if flags.profile else None
    if profile is not None and entry_name(flags.target) not in profile.target_ms_per_token:
        raise UserError(f"the profile {profile.name} has no target {entry_name(flags.target)}")
    bench = Bench(flags, settings, profile)
    result: dict[str, Any] = {
        "what": "speculation with published acceptance: everything but which tokens are accepted really run",
        **{name: getattr(flags, name) for name in ("target", "context", "new_tokens", "engine")},
        "provenance": machine(settings.device),
        "cases": [],
    }
    for case in cases:
        if flags.datasets and case.dataset not in flags.datasets:
            continue
        result["cases"].append({"published": vars(case), **attempt(partial(bench.run, case))})
        if flags.out:
            save_json(result, flags.out / f"published_{flags.target}.json")
    return result


def _given(case: Sequence[str], flags: Namespace) -> Published:
    """Raises UserError for what is not a kind of head, a drafter that does not draft by it or asks for more than it
    or a pass over the target has, or a mean below the target's own token."""
    (head, drafter, length), spec = case, parse_name(case[1])
    if head not in HEAD_SHAPES:
        raise UserError(f"--given: {head!r} is not a kind of head: give one of {', '.join(HEAD_SHAPES)}")
    if spec.role is not HEAD_SHAPES[head].role or spec.needs_costs:
        raise UserError(f"--given: {drafter} does not draft by {head} alone")
    target = whole_shape(TARGET, flags.target)
    check_room(spec, spec.stated(HEAD_SHAPES[head].config(target.config)), target.context_len)
    check_pass(spec, flags.engine)
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", length) or float(length) < 1:
        raise UserError(f"--given: {length!r} is not a mean acceptance length, 1 or more")
    return Published(head, drafter, "given", float(length), hardware="not published", source="given")


class Bench:
    """One target, and the head at hand, loaded and warmed up."""

    def __init__(self, flags: Namespace, settings: Settings, profile: LatencyProfile | None) -> None:
        self.flags, self.settings, self.profile = flags, settings, profile
        self.source = find_shape(TARGET, flags.target)
        self.lm = make_lm(flags.target, TARGET, settings)
        self.prompt_ids = [1 + index % 97 for index in range(flags.context)]
        self._head: tuple[str, Any] = "", None

    def _rounds(self, case: Published) -> GivenRounds:
        kind, head = self._head
        if kind != case.head:
            head = make_head(case.head, self.source, self.lm, self.settings.engine)
            head.warm_up()
            self._head = case.head, head
        return GivenRounds(self.lm, head, case.drafter)

    def run(self, case: Published) -> dict[str, Any]:
        """Medians of tokens a second with and without the drafter, what a round took, and what a profile says."""
        given, plain, drafted, parts = self._rounds(case), list[float](), list[float](), list[dict[str, float]]()
        few, many = self.flags.new_tokens // 4, self.flags.new_tokens
        rounds: list[Round] = []
        for turn in range(1 + self.flags.runs):  # the first records what the others replay, and does not count
            ms_plain, _ = timed_rounds(Target(self.lm), NoDrafter(), self.prompt_ids, few)
            ms, rounds = given.decode(self.prompt_ids, case.acceptance_length, many)
            if turn:
                plain.append(ms_plain / few)
                drafted.append(ms / many)
                parts.append(given.parts_ms(ms, rounds))
        speedup = median(plain) / median(drafted)
        found = {
            "tokens_per_s": 1e3 / median(drafted),
            "plain_tokens_per_s": 1e3 / median(plain),
            "speedup": speedup,
            "acceptance_length": _mean_emitted(rounds[:-1] or rounds),
            "drafted": median(made.draft_len for made in rounds),
            "passes": median(made.num_forward_passes for made in rounds),
            "draft_ms": median(made.draft_ms for made in rounds),
            "verify_ms": median(made.verify_ms for made in rounds),
            "round_ms": median(drafted) * many / len(rounds),
            "parts_ms": {part: median(one[part] for one in parts) for part in parts[0]},
            **self._modelled(rounds, case, speedup),
        }
        print(_line(case, found), file=sys.stderr)
        return found

    def _modelled(self, rounds: Sequence[Round], case: Published, speedup: float) -> dict[str, float]:
        """The paper's formula over these rounds, by the profile that was given."""
        spec, entry = parse_name(case.drafter), entry_name(self.flags.target)
        profile, kind = self.profile, spec.priced_as
        if profile is None or not profile.knows(kind, entry):
            return {}
        total_ms = profile.pass_ms(kind, entry) * sum(made.num_forward_passes for made in rounds)
        for made in rounds:
            total_ms += verification_ms(profile, entry, made.draft_len + 1)
            total_ms += sum(tree_extra_ms(profile, entry, spec, made))
        modelled = len(rounds) * _mean_emitted(rounds) * profile.target_ms_per_token[entry] / total_ms
        return {"modelled_speedup": modelled, "modelled_over_measured": modelled / speedup}


def _line(case: Published, found: dict[str, Any]) -> str:
    """A case, for people."""
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in found["parts_ms"].items())
    modelled = f", modelled over measured {found['modelled_over_measured']:.2f}" if "modelled_speedup" in found else ""
    return (
        f"{case.head} {case.drafter} {case.dataset}: {found['tokens_per_s']:.0f} tokens/s, a round "
        f"{found['round_ms']:.2f} ms ({parts}){modelled}"
    )


def _mean_emitted(rounds: Sequence[Round]) -> float:
    """Tokens a round; of an answer's rounds the last is cut."""
    return sum(len(made.emitted_tokens) for made in rounds) / len(rounds)


if __name__ == "__main__":
    sys.exit(main())
