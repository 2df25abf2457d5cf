"""Report data: what the HTML report says of all questions together: the run, the ranking, the figures' numbers.

Not the trajectories (`question_data.py`), and not how any of it looks (html/).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from specdec.latency.profile import MEASURED
from specdec.ranking.entries import PLAIN, Entry, category_of, merge
from specdec.ranking.lossless import losslessness_line
from specdec.ranking.question_sets import Question, question_key
from specdec.ranking.ranking import engines_of
from specdec.ranking.scopes import each
from specdec.ranking.source import Source
from specdec.records.record import Record
from specdec.records.turns import question_name, row_of, turn_of
from specdec.runs.drafter_facts import drafter_facts
from specdec.text import ranges, visible
from specdec.views.captions import engine_title, scope_line
from specdec.views.categories import by_category
from specdec.views.drafters_table import drafters_document, fact_pairs
from specdec.views.load_data import NOT_ASKED
from specdec.views.palette import Look, kind_of, legend, look_of
from specdec.views.table_data import ranking_document, scope_document

MAX_BINS = 24
_TITLE_LEN = 160
_SHOWN = (  # of a row, on the page
    *("rank", "drafter_name", "standing", "num_questions", "speedup_mean", "mean_low", "mean_high", "speedup_ratio"),
    *("draft_ms", "total_ms", "ceiling_share", "acceptance_rate", "acceptance_len", "request_acceptance_len"),
    *("passes_per_round", "tpot_ms", "ttft_ms", "num_correct", "num_graded", "num_degenerate", "num_checked"),
    *("to_best_value", "to_best_low", "to_best_high"),
)
_ASKED = (
    "question",
    "problem",
    "Problem",
    "prompt",
    "turns",
    "messages",
    "Question",
)  # where data sets keep the question


def report_data(
    records: Sequence[Record],
    stats: Sequence[Entry],
    runs: Sequence[Mapping[str, Any]],
    note: str = "",
    load: Mapping[str, Any] = NOT_ASKED,
) -> dict[str, Any]:
    """Everything but the trajectories, as JSON data. `stats`: the records' entries that are ranked; `load`:
    `load_data.load_document`, or {"why": there is none}."""
    engines, groups = engines_of(stats), each(stats)
    drafters = sorted({record.drafter_name for record in records}, key=lambda name: (name != PLAIN, name))
    facts = drafter_facts(records, runs)
    said = {one["drafter_name"]: fact_pairs(one) for one in drafters_document(facts, stats)}
    return {
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "facts": _facts(records, runs),
        "settings": _flat(runs[-1]) if runs else _flat(records[-1].identity.to_builtins()),
        "engines": [{"name": name, "title": engine_title(name), "is_measured": name == MEASURED} for name in engines],
        "ranking": ranking_document(stats, note, facts),
        "load": load,
        "scope": scope_line(stats),
        "lossless": losslessness_line(stats),
        "drafters": [
            {"name": name, "family": kind_of(name).kind, "look": f"drafter-{index}", "facts": said.get(name, [])}
            for index, name in enumerate(drafters)
        ],
        "families": {kind.kind: {"title": kind.title, "marker": kind.marker} for kind in legend()},
        "categories": _categories(records, stats, groups),
        "questions": _questions(records, stats, engines, drafters),
        "position": _position(records),
        "positions": [_position(_of(records, group)) for group in groups] if len(groups) > 1 else [],
    }


def looks(data: Mapping[str, Any]) -> dict[str, Look]:
    """What the page calls a look -> the look: of every drafter of `report_data`, and of every family."""
    families = {kind.kind: Look(kind.hue, kind.marker) for kind in legend()}
    return families | {one["look"]: look_of(one["name"]) for one in data["drafters"]}


def by_question(records: Sequence[Record]) -> dict[Question, list[Record]]:
    """The records of each question, under what tells the questions of a report apart."""
    found: dict[Question, list[Record]] = {}
    for record in records:
        found.setdefault((Source.of(record), record.question_id), []).append(record)
    return found


def _facts(records: Sequence[Record], runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was run, in a few pairs of words."""
    identities = [record.identity.to_builtins() for record in records]
    sets: dict[str, set[int]] = {str(one["dataset"]): set() for one in identities}
    for one in identities:
        sets[str(one["dataset"])].add(int(one["question_id"]))
    last = records[-1].provenance
    facts = [
        ["Target", _listed(identities, "target")],
        ["Questions", "; ".join(f"{name} {_numbers(ids)}" for name, ids in sets.items())],
        ["Output budget", f"{_listed(identities, 'max_new_tokens')} tokens"],
        ["Arithmetic", f"{_listed(identities, 'dtype')} on {_listed(identities, 'device')}"],
        ["Decoding", _listed(identities, "decoding")],
        ["Versions", ", ".join(f"{name} {last[name]}" for name in ("torch", "transformers", "python") if name in last)],
        ["Revision", str(last.get("git_revision") or "unknown")[:12] + " (changed)" * bool(last.get("git_is_dirty"))],
    ]
    dates = sorted(str(record.provenance["date"]) for record in records if "date" in record.provenance)
    if dates:
        first, final = dates[0][:16], dates[-1][:16]
        facts.append(["Made", (first if first == final else f"{first} to {final}").replace("T", " ") + " UTC"])
    outcomes = [(run["end"] or {"outcome": "without an end"})["outcome"] for run in runs]
    counts = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
    return [*facts, *([["Runs", counts]] if counts else [])]


def _numbers(question_ids: set[int]) -> str:
    """Which rows of a data set were asked: "0-7 (8)", or "0-7 (8, 12 turns)"."""
    rows, num_turns = set(map(row_of, question_ids)), len(question_ids)
    turns = "" if len(rows) == num_turns else f", {num_turns} turns"
    return f"{ranges(rows)} ({len(rows)}{turns})"


def _listed(identities: Sequence[Mapping[str, Any]], key: str) -> str:
    values = dict.fromkeys(str(one[key]) for one in identities if key in one)
    return visible(", ".join(values)) or "unknown"


def _flat(tree: Any, name: str = "") -> list[list[str]]:
    """(path, value) for every leaf: `_flat({"a": {"b": 1}}) == [["a.b", "1"]]`."""
    if isinstance(tree, Mapping) and tree:
        return [pair for key, value in tree.items() for pair in _flat(value, f"{name}.{key}" if name else str(key))]
    if isinstance(tree, list) and len(tree) > 20:
        return [[name, f"{len(tree)} values: {', '.join(map(str, tree[:8]))}, ..."]]
    return [[name, ", ".join(map(str, tree)) if isinstance(tree, list) else str(tree)]]


def _questions(
    records: Sequence[Record], stats: Sequence[Entry], engines: Sequence[str], drafters: Sequence[str]
) -> list[dict[str, Any]]:
    """Per question its first words, how its answers are graded, and a row of numbers per drafter."""
    key = question_key(stats)
    entries = {(*key(entry), entry.drafter_name): entry for entry in merge(stats)}
    return [
        {
            "id": question_id,
            "name": question_name(question_id),
            "dataset": own[0].identity.dataset,
            "budget": own[0].identity.max_new_tokens,
            "category": visible(category_of(own[0])),
            "title": _title(own[0]),
            "tokens": own[0].num_output_tokens,
            **_grades([entries.get((source, question_id, record.drafter_name)) for record in own]),
            "results": [_result(entries.get((source, question_id, name)), engines) for name in drafters],
        }
        for (source, question_id), own in by_question(records).items()
    ]


def _grades(entries: Sequence[Entry | None]) -> dict[str, int]:
    known = [entry for entry in entries if entry is not None]
    return {
        "num_correct": sum(entry.is_correct is True for entry in known),
        "num_graded": sum(entry.is_correct is not None for entry in known),
        "num_degenerate": sum(entry.is_degenerate is True for entry in known),
    }


def _title(record: Record) -> str:
    row = record.raw_data
    key = next((key for key in _ASKED if row.get(key)), next(iter(row), ""))
    asked = row.get(key, "")
    if isinstance(asked, list) and asked:  # messages end with what is asked; of turns, this one
        asked = asked[-1 if key == "messages" else min(turn_of(record.identity.question_id), len(asked) - 1)]
    asked = asked.get("content", asked) if isinstance(asked, Mapping) else asked
    text = visible(" ".join(str(asked).split()))
    return text if len(text) <= _TITLE_LEN else text[: _TITLE_LEN - 1] + "…"


def _result(entry: Entry | None, engines: Sequence[str]) -> list[Any] | None:
    """[speedup per engine (None without one), tokens, rounds, accepted, drafted, passes]."""
    if entry is None:
        return None
    prices = [entry.prices.get(engine) for engine in engines]
    speedups = [None if price is None or not price.total_ms else round(price.speedup, 4) for price in prices]
    counts = entry.num_output_tokens, entry.num_rounds, entry.num_accepted, entry.num_drafted
    return [speedups, *counts, entry.num_forward_passes]


def _categories(
    records: Sequence[Record], stats: Sequence[Entry], groups: Sequence[Sequence[Entry]]
) -> list[dict[str, Any]]:
    """What is said of each category, of all questions and of each data set where there are several; `scope`: which data
    set, None for all. Empty where there are no categories."""
    scopes: list[tuple[int | None, Sequence[Entry]]] = [(None, stats), *(enumerate(groups) if len(groups) > 1 else ())]
    return [
        {"scope": scope, "category": visible(category), "position": _position(_of(records, own)), **_brief(own)}
        for scope, group in scopes
        for category, own in sorted(by_category(group).items(), key=lambda pair: pair[0] == "")
    ]


def _brief(stats: Sequence[Entry]) -> dict[str, Any]:
    """`scope_document` with what the page shows of a row alone: pages with many categories stay small."""
    document = scope_document(stats)
    for engine in document["engines"]:
        engine["rows"] = [{key: row[key] for key in _SHOWN if key in row} for row in engine["rows"]]
        if engine["plain_row"] is not None:
            engine["plain_row"] = {key: engine["plain_row"].get(key) for key in _SHOWN}
    return document


def _of(records: Sequence[Record], group: Sequence[Entry]) -> list[Record]:
    """The records of a group's questions."""
    asked = {(entry.source, entry.question_id) for entry in group}
    return [record for record in records if (Source.of(record), record.question_id) in asked]


def _position(records: Sequence[Record]) -> dict[str, Any]:
    """By drafter, [accepted, drafted] tokens of the rounds that begin in each stretch of `bin` output tokens."""
    longest = max(record.num_output_tokens for record in records)
    width = 8 * max(1, -(-longest // (8 * MAX_BINS)))
    by_drafter: dict[str, list[list[int]]] = {}
    for record in records:
        if record.drafter_name == PLAIN:
            continue
        bins = by_drafter.setdefault(record.drafter_name, [[0, 0] for _ in range(-(-longest // width))])
        for turn in record.rounds:
            cell = bins[(turn.prefix_len - len(record.prompt_ids)) // width]
            cell[0] += turn.accepted_len
            cell[1] += turn.draft_len
    return {"bin": width, "by_drafter": by_drafter}
