"""Explain why a server's acceptance counts differ from those recorded here, on the same questions with the same models.

Changes one convention at a time in our own counts until they are the server's. Reads traces (failfast run
--with_traces); loads no model, but for --with_models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling.serving.counts import Counter
from specdec.commands.flags import StrictParser, add_flags
from specdec.config import RunConfig
from specdec.drafters.asked import model_flags
from specdec.drafters.base import Spec
from specdec.drafters.families import known_spec, parse_name
from specdec.errors import UserError, exit_status
from specdec.models.checkpoints import BUNDLED, SMOLLM2, TARGET, find_model
from specdec.questions.problem import Problem
from specdec.questions.sets import SHORT, load_problems
from specdec.ranking.conventions import Convention, Written
from specdec.ranking.reconcile import OURS, Answers, Reconciled, reconcile
from specdec.ranking.served_counts import ServedCounts, read_counts
from specdec.ranking.text_findings import Pair, Show
from specdec.records.record import find_records
from specdec.traces.trace import Trace, find_traces, load_trace
from specdec.views.reconciled import reconciled_data, reconciled_text

EXAMPLES = (
    "failfast reconcile results --base_url http://127.0.0.1:8000/v1",
    "failfast reconcile results --drafter ar_None_sf_5 --counts counts.csv",
)
MODELS = ("device", "dtype", "target_weights", "engine")
AGAIN = 3  # questions with another answer that are asked once more: a server that samples answers otherwise


def build_parser(program: str) -> StrictParser:
    parser = StrictParser(prog=program, examples=EXAMPLES, description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results folder with traces, or a folder in it")
    source = parser.group("input").add_mutually_exclusive_group(required=True)
    source.add_argument("--base_url", metavar="URL", help="ask this server (OpenAI protocol, vLLM's counters)")
    source.add_argument("--counts", metavar="FILE", type=Path, help="read the counts: CSV or JSON (docs/reconcile.md)")
    parser.group("input").add_argument(
        "--drafter", metavar="NAME", help="the drafter that the server runs, by its name here (default: the only one)"
    )
    parser.group("server").add_argument("--served_name", metavar="NAME", help="of the model (default: the target's)")
    parser.group("models").add_argument("--tokenizer", metavar="FOLDER", help="the target's, to show tokens as text")
    parser.group("models").add_argument(
        "--with_models", action="store_true", help="run a head along the texts again, with the mistakes servers make"
    )
    add_flags(parser, ("data_dir", "target_model_name", *(flag.name for flag in model_flags()), *MODELS))
    parser.group("output").add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(arguments: Sequence[str], program: str) -> int:
    """Exit status: 0 said, also where something is left unexplained; 2 a mistake of the user's."""
    return exit_status(program, lambda: print(run(arguments, program), end=""))


def run(arguments: Sequence[str], program: str = "failfast reconcile") -> str:
    """The text to print for a command line. Raises UserError."""
    options = build_parser(program).parse_args(arguments)
    traces = {trace.question_id: trace for trace in map(load_trace, find_traces(options.results))}
    _require_one_source(list(traces.values()), options.results)
    spec = _drafter(options.drafter, options.results, next(iter(traces.values())))
    served = _served(options, traces)
    used = [traces[one.question_id] for one in served]
    variants: dict[str, Answers] = {OURS: {trace.question_id: written(trace, spec) for trace in used}}
    variants |= _served_otherwise(spec, used)
    if options.with_models:
        variants |= _mistaken(options, spec, used)
    found = _reconciled(used, served, variants, spec, _show(options, used[0]))
    by_question = {one.question_id: one for one in served}
    if options.json:
        return json.dumps(reconciled_data(found, by_question), indent=2, allow_nan=False) + "\n"
    where = options.base_url or options.counts
    return reconciled_text(found, by_question, f"{spec.name} in {options.results} and on {where}")


def _reconciled(
    traces: Sequence[Trace],
    served: Sequence[ServedCounts],
    variants: Mapping[str, Answers],
    spec: Spec,
    show: Show | None,
) -> Reconciled:
    pairs = [pair_of(trace, one) for trace, one in zip(traces, served, strict=True)]
    own = Convention(_length_of(spec))
    return reconcile(pairs, {one.question_id: one for one in served}, variants, own, _longest(traces, spec), show)


def _longest(traces: Sequence[Trace], spec: Spec) -> int:
    """The longest drafts that are tried: as far as all chains go, and not far beyond the drafter's own."""
    own = _length_of(spec)
    return min(max(own, min(trace.chains_of(spec).chain_len for trace in traces)), 2 * own + 8)


def _mistaken(options: argparse.Namespace, spec: Spec, traces: Sequence[Trace]) -> Mapping[str, Answers]:
    from specdec.runs.drafter_variants import variants_of

    names = ("target_model_name", *(flag.name for flag in model_flags()), *MODELS)
    given = {name: getattr(options, name) for name in names}
    config = RunConfig.of(**given, drafters=[spec.kind], draft_len=[_length_of(spec)], latency_profile=["none"])
    return variants_of(config, spec, traces, _longest(traces, spec))


def _require_one_source(traces: Sequence[Trace], results: Path) -> None:
    sources = {(one.identity.target, one.identity.dataset, one.identity.max_new_tokens) for one in traces}
    if len(sources) > 1 or len({one.question_id for one in traces}) < len(traces):
        named = "; ".join(sorted(f"{target} {dataset} {budget}" for target, dataset, budget in sources))
        raise UserError(f"{results} holds traces of several runs ({named}): give one, traces/TARGET/DATASET")


def _drafter(name: str | None, results: Path, trace: Trace) -> Spec:
    """The asked drafter, or the only one of the records here that servers have. Raises UserError."""
    if name is not None:
        asked = parse_name(name)
        _length_of(asked)
        trace.chains_of(asked)
        return asked
    names = sorted({path.parent.name for path in find_records(results)})
    specs = [spec for spec in map(known_spec, names) if spec is not None]
    known = [spec for spec in specs if any(map(spec.is_served, spec.serving))]
    if len(known) != 1:
        listed = ", ".join(spec.name for spec in known) or "no record of a drafter that servers have is there"
        raise UserError(f"give --drafter, the one that the server runs ({listed})")
    return known[0]


def _length_of(spec: Spec) -> int:
    names = ("draft_len", "max_draft_len") if spec.role is None else ("draft_len",)  # what is copied may be shorter
    length = next((getattr(spec, name) for name in names if hasattr(spec, name)), None)
    if not isinstance(length, int) or spec.chains_name is None:
        raise UserError(f"{spec.name} does not draft by a fixed length, as servers do: give --drafter")
    return length


def _served(options: argparse.Namespace, traces: Mapping[int, Trace]) -> list[ServedCounts]:
    """The server's counts of questions that are recorded. Raises UserError where one is not, or cannot be counted."""
    if options.counts is not None:
        found = read_counts(options.counts)
        missing = [one.question_id for one in found if one.question_id not in traces]
        if missing:
            raise UserError(f"--counts {options.counts}: no trace of question {missing[0]} is in {options.results}")
        return found
    first = next(iter(traces.values()))
    name = options.served_name or first.identity.target
    counter = Counter(options.base_url, name, first.identity.max_new_tokens)
    problems = _problems(first, sorted(traces), options)
    found = counter.counts(problems)
    parting = [one.question_id for one in found if pair_of(traces[one.question_id], one).parts_at is not None][:AGAIN]
    return counter.asked_again(found, [one for one in problems if one.question_id in parting])


def _problems(trace: Trace, question_ids: Sequence[int], options: argparse.Namespace) -> list[Problem]:
    settings = trace.identity.settings
    style = settings.get("prompt_style", SHORT)
    how = {"data_dir": options.data_dir, "seed": settings.get("seed", 0), "prompt_style": style}
    return [one.alone() for one in load_problems(trace.identity.dataset, question_ids=question_ids, **how)]


def written(trace: Trace, spec: Spec) -> Written:
    """A trace's answer with what the drafter would write after each of its tokens."""
    return _written(trace, spec, [chain.tokens for chain in trace.chains_of(spec).chains])


def _written(trace: Trace, spec: Spec, drafts: Sequence[Sequence[int]]) -> Written:
    budget = trace.identity.max_new_tokens
    return Written(trace.output_tokens, drafts, trace.stop_ids, budget, is_copied=spec.role is None)


def _served_otherwise(spec: Spec, traces: Sequence[Trace]) -> dict[str, dict[int, Written]]:
    """The answers with what servers' drafter of this kind drafts, by what it does otherwise."""
    found: dict[str, dict[int, Written]] = {}
    for trace in traces:
        for name, drafts in spec.served_drafts(trace).items():
            found.setdefault(name, {})[trace.question_id] = _written(trace, spec, drafts)
    return found


def pair_of(trace: Trace, one: ServedCounts) -> Pair:
    return Pair(
        trace.question_id,
        trace.prompt_ids,
        trace.output_tokens,
        trace.gaps,
        trace.stop_ids,
        trace.identity.max_new_tokens,
        one.prompt_ids,
        one.output_ids,
        one.length,
        one.finish_reason,
        one.output_again,
    )


def _show(options: argparse.Namespace, trace: Trace) -> Show | None:
    """Tokens as text, where the target's tokenizer is at hand."""
    target = trace.identity.target
    name = options.tokenizer or (target if target in (BUNDLED, SMOLLM2) else None)
    if name is None:
        return None
    from specdec.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(find_model(TARGET, name, with_weights=False))
    return lambda tokens: str(tokenizer.decode(list(tokens)))
