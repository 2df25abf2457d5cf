"""Measured against modelled speedup at real shapes, with given acceptance.

    python -m experiments.profile_speculation --profile results/latency/here.json --out DIR

Random weights accept nothing, so how many tokens are drafted, in how many passes, and how many of them are accepted
follow a script: the per-round means of the FailFast paper, or stored records. Everything else is really run, by the
program's own loop: every pass of drafter and target with its tokens, rewinding, and the host's work. The baseline is
plain decoding in the same engine and process. The modelled speedup is the paper's formula with the given profile. The
last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.common import machine, parser_of, run_command, save_json
from profiling.profile_engine import Settings, add_engine_flags, make_lm, read_settings
from profiling.roofline import BLOCK, SUB_BLOCK, entry_name
from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft, Passes
from specdec.decoding.target import Target, Verification
from specdec.drafters.ar import AR_DRAFTER, ArDrafter, ArStatic
from specdec.drafters.base import Drafter
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.drafters.families import parse_name
from specdec.drafters.plain import NoDrafter
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, load_profile, verification_ms
from specdec.models.checkpoints import TARGET
from specdec.records.record import find_records, load_record
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.models.lm import CachedLM


@dataclass(frozen=True)
class Turn:
    """One scripted round: tokens drafted, drafter passes of any kind, tokens accepted."""

    draft_len: int
    num_passes: int
    accepted_len: int


@dataclass(frozen=True)
class Means:
    """Per-round means: tokens drafted, passes, and tokens emitted (the target's own included)."""

    draft_len: float
    num_passes: float
    emitted: float
    is_ar: bool = False


# MATH with the 32B target, arXiv 2512.20573: FailFast, and the AR drafter with static drafts of 8.
PAPER = {
    "paper_math_failfast": Means(draft_len=14.6, num_passes=3.46, emitted=6.7),
    "paper_math_ar_8": Means(draft_len=8, num_passes=8, emitted=1 + 8 * 0.582, is_ar=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.profile_speculation", __doc__)
    parser.add_argument("--profile", required=True, help="latency profile to model with: profile_engine's output")
    parser.add_argument("--target", default="Qwen2.5-7B", help="a shape by name, or a model as failfast.py takes it")
    parser.add_argument("--drafter", default="Qwen2.5-1.5B", help="likewise")
    parser.add_argument("--records", help="follow the rounds of this folder's stored records, not the paper's means")
    parser.add_argument("--context", type=int, default=512, help="prompt tokens (default: %(default)s)")
    parser.add_argument("--new_tokens", type=int, default=512, help="output tokens (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="each case and plain decoding in turn; the median counts")
    parser.add_argument("--out", help="folder for speculation.json")
    add_engine_flags(parser)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    """Every case, measured beside modelled; also written, where that is asked for."""
    settings = read_settings(flags)
    scripts = {name: (turns_of(means), means.is_ar) for name, means in PAPER.items()}
    if flags.records:
        scripts = recorded_scripts(Path(flags.records))
    bench = Bench(flags, settings, load_profile(flags.profile))
    result = {
        "cases": {name: bench.run(*script, flags.runs) for name, script in scripts.items()},
        **{name: getattr(flags, name) for name in ("target", "drafter", "context", "new_tokens", "engine")},
        "provenance": machine(settings.device),
    }
    if flags.out:
        save_json(result, Path(flags.out, "speculation.json"))
    return result


def turns_of(means: Means) -> Iterator[Turn]:
    """Whole numbers, without end, whose running means are `means`.

    Example: emitted 2.5 a round gives 2, 3, 2, 3, ... tokens. A draft is never shorter than what is accepted.
    """
    index = 0
    while True:
        drafted, passes, emitted = (
            int((index + 1) * mean + 1e-9) - int(index * mean + 1e-9)
            for mean in (means.draft_len, means.num_passes, means.emitted)
        )
        yield Turn(max(drafted, emitted - 1), passes, emitted - 1)
        index += 1


def recorded_scripts(folder: Path) -> dict[str, tuple[Iterator[Turn], bool]]:
    """Drafter name -> its rounds in all stored records, again and again, and whether it is AR. Raises UserError."""
    turns: dict[str, list[Turn]] = {}
    for record in map(load_record, find_records(folder)):
        if record.drafter_name != "plain":
            turns.setdefault(record.drafter_name, []).extend(
                Turn(made.draft_len, made.num_forward_passes, made.accepted_len)
                for made in record.rounds
                if made.draft_len
            )
    if not turns:
        raise UserError(f"no record of a drafter in {folder}: run failfast.py with --output_dir {folder} first")
    return {name: (cycle(made), parse_name(name).priced_as == "ar") for name, made in turns.items()}


class Script:
    """The turns of one run; drafter and target look at the same one."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = iter(turns)
        self.turn = Turn(0, 0, 0)

    def advance(self, budget: int) -> Turn:
        """The next turn, cut to what is still wanted."""
        turn = next(self._turns)
        self.turn = replace(turn, draft_len=min(turn.draft_len, budget), accepted_len=min(turn.accepted_len, budget))
        return self.turn


class ScriptedTarget(Target):
    """Verifies in earnest, then accepts what the script says."""

    def __init__(self, lm: CachedLM, script: Script) -> None:
        super().__init__(lm)
        self.script = script

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        greedy, _ = self.lm.predict(tokens)
        accepted_len = min(self.script.turn.accepted_len, len(draft.tokens))
        return Verification(range(accepted_len), greedy[accepted_len])


class ScriptedArDrafter(ArDrafter):
    """The AR drafter itself; only tells the script that a round has begun."""

    def __init__(self, lm: CachedLM, script: Script, draft_len: int) -> None:
        super().__init__(lm, ArStatic(draft_len), stop_ids=())
        self.script = script

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        self.script.advance(budget)
        return super().propose(prefix_ids, budget)


class ScriptedBlockDrafter(NoDrafter):
    """Runs the passes that a block-diffusion draft of the script's length and pass count is made of."""

    def __init__(self, lm: CachedLM, script: Script) -> None:
        self.lm, self.script = lm, script

    def reset(self, features: Tensor | None = None) -> None:
        self.lm.rollback(0)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        """Prefill what has become whole blocks; denoise; commit where the draft crosses into the next block."""
        turn = self.script.advance(budget)
        if turn.draft_len < 1:
            return Draft()
        passes, whole = Passes(), len(prefix_ids) // BLOCK * BLOCK
        self.lm.reuse(prefix_ids[:whole], block_size=BLOCK)
        if self.lm.length < whole:
            self._clean_pass(list(prefix_ids[self.lm.length : whole]))
            passes.prefill = 1
        text = list(prefix_ids) + [0] * (turn.draft_len + BLOCK)
        crossings = (len(prefix_ids) + turn.draft_len - 1) // BLOCK - whole // BLOCK
        commit_after = {turn.num_passes - 1 - i for i in range(1, 2 * crossings, 2)}
        tokens: list[int] = []
        while passes.total < turn.num_passes:
            block = text[self.lm.length : self.lm.length + BLOCK]
            if passes.total in commit_after:
                self._clean_pass(block)
                passes.commit += 1
                continue
            found, _ = self.lm.predict(block, block_size=BLOCK, keep=range(SUB_BLOCK - 1, 2 * SUB_BLOCK - 1), never=0)
            passes.denoise += 1
            tokens += found
        drafted = list(islice(cycle(tokens or [1]), turn.draft_len))
        return Draft(tokens=drafted, passes=passes, stop_reason="length")

    def _clean_pass(self, tokens: list[int]) -> None:
        self.lm.predict(tokens, block_size=BLOCK, keep=[len(tokens) - 1], never=0)
        self.lm.commit(len(tokens))


class Bench:
    """One target and one drafter, loaded and warmed up, and the profile to model with."""

    def __init__(self, flags: Namespace, settings: Settings, profile: LatencyProfile) -> None:
        """`flags`: target and drafter by name, tokens of the prompt (context) and of the answer (new_tokens)."""
        drafter, target = flags.drafter, flags.target
        self.profile, self.entry, self.new_tokens = profile, entry_name(target), flags.new_tokens
        if self.entry not in profile.target_ms_per_token:
            raise UserError(
                f"the profile has no target {self.entry}: measure it with profile_engine --targets {target}"
            )
        self.drafter_lm = make_lm(drafter, DLLM_DRAFTER, settings)
        # What the target says, the drafter has to read: shapes of one family pad their vocabularies differently.
        self.target_lm = make_lm(target, TARGET, settings, self.drafter_lm.model.config.vocab_size)
        self.ar_lm = make_lm(drafter, AR_DRAFTER, settings) if drafter == "bundled" else self.drafter_lm
        for lm in {id(lm): lm for lm in (self.target_lm, self.drafter_lm, self.ar_lm)}.values():
            lm.warm_up()
        self.prompt_ids = [1 + index % 97 for index in range(flags.context)]

    def run(self, turns: Iterator[Turn], is_ar: bool, num_runs: int) -> dict[str, Any]:
        """Plain decoding and the scripted case in turn; medians of ms per token, and both speedups."""
        plain: list[float] = []
        drafted: list[float] = []
        rounds: list[Round] = []
        for _ in range(num_runs):
            plain.append(self._decode(Target(self.target_lm), NoDrafter())[0])
            script = Script(turns)
            ms, rounds = self._decode(ScriptedTarget(self.target_lm, script), self._drafter(script, is_ar))
            drafted.append(ms)
        measured = sorted(plain)[num_runs // 2] / sorted(drafted)[num_runs // 2]
        modelled = self._modelled(rounds, is_ar)
        return {
            "plain_ms_per_token": plain,
            "ms_per_token": drafted,
            "emitted_per_round": self.new_tokens / len(rounds),
            "passes_per_round": sum(made.num_forward_passes for made in rounds) / len(rounds),
            "drafted_per_round": sum(made.draft_len for made in rounds) / len(rounds),
            "measured_speedup": measured,
            "modelled_speedup": modelled,
            "modelled_over_measured": modelled / measured,
        }

    def _drafter(self, script: Script, is_ar: bool) -> Drafter:
        if is_ar:
            return ScriptedArDrafter(self.ar_lm, script, draft_len=8)
        return ScriptedBlockDrafter(self.drafter_lm, script)

    def _decode(self, target: Target, drafter: Drafter) -> tuple[float, list[Round]]:
        """Wall-clock ms per token of a whole answer, without the target's prompt, and its rounds."""
        clock, budget = self.target_lm.clock, self.new_tokens
        begin = clock()
        rounds = speculate(target, drafter, self.prompt_ids, max_new_tokens=budget, stop_ids=(), clock=clock)
        wall_ms = 1e3 * (clock() - begin) - target.prefill_ms
        return wall_ms / self.new_tokens, rounds

    def _modelled(self, rounds: list[Round], is_ar: bool) -> float:
        """The paper's formula over these rounds, with the measured profile."""
        profile, passes = self.profile, sum(made.num_forward_passes for made in rounds)
        verify_ms = sum(verification_ms(profile, self.entry, made.draft_len + 1) for made in rounds)
        total = passes * profile.pass_ms("ar" if is_ar else "block") + verify_ms
        return self.new_tokens * profile.target_ms_per_token[self.entry] / total


if __name__ == "__main__":
    sys.exit(main())
