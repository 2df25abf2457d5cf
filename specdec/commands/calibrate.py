"""Learn what the cost-aware policy needs from half of a folder's traces, and write it beside them. Loads no model."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from specdec.commands.flags import StrictParser, add_flags
from specdec.decoding.cost_aware import FILE_NAME, Advice, Calibration
from specdec.drafters.advised import Advised, policy_over
from specdec.drafters.block_diffusion import UNMASK_THRESHOLD, CostAware, FailFast
from specdec.errors import UserError, exit_status
from specdec.latency.asked import PricingConfig
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile, load_profiles
from specdec.records.turns import row_of
from specdec.traces.calibration import calibrate, costs_of, save_calibration
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

PROGRAM = "python -m specdec.calibrate"  # its published name
EXAMPLES = ("failfast calibrate results/traces",)
MIN_CHAIN_LEN, MAX_DRAFT_LEN = 20, 60
MAX_ROUNDS, PRECISION = 12, 1e-4  # of the search for a rate that is its own


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""
    return exit_status(program, lambda: print(run(arguments, program)))


def run(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> str:
    """What was learnt, in words. Raises UserError."""
    parser = StrictParser(prog=program, examples=EXAMPLES, description=__doc__)
    parser.add_argument("traces", metavar="TRACE_DIR", help="folder with traces (failfast.py --record)")
    add_flags(parser, ("question_ids", "latency_profile"))
    options = parser.parse_args(arguments)
    recorded = {path: load_trace(path) for path in find_traces(options.traces, None)}
    if options.question_ids is None:
        learnt_on = chosen_half(list(recorded.values()))
    else:
        learnt_on = [recorded[path] for path in find_traces(options.traces, options.question_ids)]
    profiles, folder = load_profiles(options.latency_profile), Path(options.traces)
    made = [learn(learnt_on, name, profiles) for name in learnable(learnt_on, profiles)]
    path = (folder.parent if folder.is_file() else folder) / FILE_NAME
    save_calibration(path, made)
    questions = " ".join(str(trace.question_id) for trace in learnt_on)
    learnt = f"Learnt {', '.join(one.name for one in made)} from questions {questions}: {path}"
    held_out = [trace for trace in recorded.values() if not any(trace is one for one in learnt_on)]
    if not held_out:
        return f"{learnt}\nHeld out: no question, so that nothing can be ranked with it: record more questions."
    numbers = " ".join(map(str, sorted({trace.question_id for trace in held_out})))
    command = [*_replay(program), shlex.quote(options.traces), *what_replays(learnt_on, made)]
    command += ["--question_ids", numbers]
    if options.latency_profile != PricingConfig.latency_profile:
        command += ["--latency_profile", *options.latency_profile]
    live = f"Live: --calibration {shlex.quote(str(path))} --question_ids {numbers}"
    return f"{learnt}\nHeld out: questions {numbers}. Rank on them:\n  {' '.join(command)}\n{live}"


def chosen_half(traces: Sequence[Trace]) -> list[Trace]:
    """The traces of every second question, with all its turns; the others are for reporting. Example: of questions
    0, 1, 2, 3 those are 0 and 2."""
    questions = list(dict.fromkeys(map(_question, traces)))
    return [trace for trace in traces if _question(trace) in questions[::2]]


def _question(trace: Trace) -> tuple[str, str, int, int]:
    """What the traces of a conversation's turns have in common."""
    identity = trace.identity
    return identity.target, identity.dataset, row_of(identity.question_id), identity.max_new_tokens


def _replay(program: str) -> list[str]:
    """How the replay is called by somebody who called this command so."""
    return program.replace("calibrate", "replay").split()


def what_replays(traces: Sequence[Trace], made: Sequence[Calibration]) -> list[str]:
    """The flags of a replay of the policy, and beside it of FailFast where the recorded chains are long enough."""
    longest = min(shortest(traces, one.name) for one in made)
    policies = [policy(one.name) for one in made]
    thresholds = tuple(spec.unmask_threshold for spec in policies if isinstance(spec, CostAware))
    usual = FailFast.sweep({UNMASK_THRESHOLD.name: thresholds})
    has_failfast = bool(usual) and all(spec.chain_len({}) <= longest for spec in usual)
    kinds = dict.fromkeys(spec.kind for spec in policies)
    flags = ["--drafters", *(["failfast"] if has_failfast else []), *kinds]
    if thresholds not in (UNMASK_THRESHOLD.default, ()):
        flags += ["--drafter_thresholds", *map(str, thresholds)]
    return flags if longest >= MAX_DRAFT_LEN else [*flags, "--sweep_max_spec_len", str(longest)]


def learnable(traces: Sequence[Trace], profiles: Sequence[LatencyProfile]) -> list[str]:
    """The drafters with a policy by cost whose chains all traces have, long enough to show where drafts should end, and
    whose passes a profile prices. Raises UserError if there are none.
    """
    names = set.intersection(*(set(trace.chains) for trace in traces))
    known = sorted(name for name in names if policy_over(name, MAX_DRAFT_LEN, "") is not None)
    long_enough = [name for name in known if shortest(traces, name) >= _least_len(traces[0], name)]
    if not long_enough:
        raise UserError(
            f"no dLLM drafter was recorded for all questions with chains of {MIN_CHAIN_LEN} tokens or more, and no "
            f"head: record one with failfast.py --record --chain_len {MAX_DRAFT_LEN}"
        )
    unpriced = [name for name in long_enough if not _is_priced(policy(name), profiles)]
    if unpriced == long_enough:
        kind = policy(unpriced[0]).priced_as
        raise UserError(f"no --latency_profile says what a pass of {kind} costs (family_pass_ms): give one that does")
    return [name for name in long_enough if name not in unpriced]


def _least_len(trace: Trace, name: str) -> int:
    """Heads write short chains; a block of a dLLM drafter has to have room for more than one window."""
    return MIN_CHAIN_LEN if trace.chains[name].has_blocks else 1


def _is_priced(spec: Advised, profiles: Sequence[LatencyProfile]) -> bool:
    return not spec.has_own_price or bool(_engines(spec, profiles))


def _engines(spec: Advised, profiles: Sequence[LatencyProfile]) -> list[tuple[LatencyProfile, str]]:
    """The targets of profiles beside which these say what a pass of it costs."""
    engines = [(profile, entry) for profile in profiles for entry in profile.target_ms_per_token]
    return [(profile, entry) for profile, entry in engines if profile.knows(spec.priced_as, entry)]


def policy(name: str, max_draft_len: int = MAX_DRAFT_LEN, pricing: str = "") -> Advised:
    """The policy over chains of this name. Raises ValueError where there is none."""
    spec = policy_over(name, max_draft_len, pricing)
    if spec is None:
        raise ValueError(f"no policy drafts from {name}")
    return spec


def shortest(traces: Sequence[Trace], name: str) -> int:
    """The length that all traces' chains of a drafter have."""
    return min(trace.chains[name].chain_len for trace in traces)


def learn(traces: Sequence[Trace], name: str, profiles: Sequence[LatencyProfile]) -> Calibration:
    """A drafter's calibration with the rates of every target of every profile."""
    calibration = calibrate(traces, name)
    engines = _engines(policy(name), profiles)
    rates = {
        f"{entry}@{profile.name}": own_rate(traces, calibration, profile, entry)
        for profile, entry in tqdm(engines, desc=name, disable=None)
    }
    return dataclasses.replace(calibration, rates=rates)


def own_rate(traces: Sequence[Trace], calibration: Calibration, profile: LatencyProfile, entry: str) -> float:
    """The rate, in tokens per ms, that the policy reaches when its time is worth just that: found by Dinkelbach's
    iteration, starting with plain decoding's rate."""
    longest = min(MAX_DRAFT_LEN, shortest(traces, calibration.name))
    spec = policy(calibration.name, longest, f"{entry}@{profile.name}")
    rate = 1.0 / profile.target_ms_per_token[entry]
    pass_ms, verify_ms = costs_of(spec, profile)
    for _ in range(MAX_ROUNDS):
        advice = Advice(calibration, pass_ms=pass_ms, verify_ms=verify_ms, rate=rate)
        records = [replay(trace, spec, advice=advice) for trace in traces]
        total_ms = sum(price(record, profile, entry).total_ms for record in records)
        reached = sum(record.num_output_tokens for record in records) / total_ms
        is_its_own, rate = abs(reached - rate) < PRECISION * rate, reached
        if is_its_own:
            break
    return rate
