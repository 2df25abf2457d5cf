"""Load text: what a load study found, for people on a terminal and for programs. It simulates nothing."""

from collections.abc import Sequence
from typing import Any

from specdec.drafters.plain import PLAIN
from specdec.ranking.load_study import Study
from specdec.ranking.load_table import CLAIRVOYANT, CONCURRENCY, FIXED, OFF, SCHEDULED, TAILS, LoadRow, LoadTable
from specdec.ranking.statistics import MIN_QUESTIONS, Value
from specdec.text import aligned
from specdec.views.palette import chains_label, label_of

WORDS = {
    OFF: "{}, off above its break-even",
    SCHEDULED: "{}, scheduled by load",
    CLAIRVOYANT: "no policy beats (bound)",
}
MAX_NAME = 34
BOUNDS = "The profile is of lower bounds: real servers break even at fewer requests"


def label(row: LoadRow) -> str:
    """A row in words."""
    if row.policy == FIXED:
        return label_of(row.name)
    return WORDS[row.policy].format(chains_label(row.name) if row.policy == SCHEDULED else label_of_known(row.name))


def label_of_known(name: str) -> str:
    return name if name.startswith("all ") else label_of(name)


def load_text(study: Study, tables: Sequence[LoadTable], show_all: bool = False) -> str:
    """Head, speedups by load, the best at each load, and what to do. Raises nothing."""
    parts = [_head(study)]
    if at_once := [table for table in tables if table.load.kind == CONCURRENCY]:
        parts.append(_speedups(at_once, show_all))
        parts.append(_break_evens(at_once, show_all))
    parts.append(_bests(tables))
    parts.append("\n".join([*advice(tables), *_notes(study, tables)]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(study: Study) -> str:
    asked, requests = study.asked, study.requests
    lines = [
        f"{requests.target}, as if {study.entry} by {study.profile.title}: simulated, not measured",
        f"{len(requests.questions)} questions, {len(requests.drafters) - 1} configurations; each request "
        f"priced at {_context(study)}; prompts read {asked.chunk:,} tokens a step",
    ]
    return "\n".join([*lines, *([f"{BOUNDS}."] if study.profile.is_bound else [])])


def _context(study: Study) -> str:
    context = study.asked.context
    return "its own context" if context is None else f"{context:,} tokens of context"


def load_title(study: Study) -> str:
    """What a page says of it, in sentences without the last full stop."""
    line = f"Simulated by {study.profile.title} as if {study.entry}, all questions together, each at {_context(study)}"
    said = [line, "Intervals are over questions drawn again", *([BOUNDS] if study.profile.is_bound else [])]
    return ". ".join([*said, *(one.rstrip(".") for one in (*unpriced_line(study), *tree_line(study)))])


def shown(tables: Sequence[LoadTable], show_all: bool = False) -> list[LoadRow]:
    """Of each kind of drafter and policy the rows that are best at some load; or all, in the first table's order."""
    first = [row for row in tables[0].rows if row.name != PLAIN]
    if show_all:
        return first
    kept = set()
    for table in tables:
        seen: set[str] = set()
        for row in table.rows:
            if row.name != PLAIN and row.kind not in seen:
                seen.add(row.kind)
                kept.add((row.name, row.policy))
    return [row for row in first if (row.name, row.policy) in kept]


def _speedups(tables: Sequence[LoadTable], show_all: bool) -> str:
    return _by_load(
        tables, shown(tables, show_all), "speedup", "{:.2f}", "Speedup over plain decoding, by requests at a time"
    )


def _break_evens(tables: Sequence[LoadTable], show_all: bool) -> str:
    rows = [row for row in shown(tables, show_all) if row.acceptance_len is not None]
    title = "Acceptance length (bonus included) at which it would break even; its own last"
    return _by_load(tables, rows, "break_even_len", "{:.2f}", title, own=True)


def _by_load(
    tables: Sequence[LoadTable], rows: Sequence[LoadRow], quantity: str, form: str, title: str, own: bool = False
) -> str:
    head = ["", *(f"{table.load.value:g}" for table in tables), *(["own"] if own else [])]
    lines = []
    for row in rows:
        found = [table.row(row.name, row.policy) for table in tables]
        cells = [
            "-" if one is None or quantity not in one.values else form.format(one.number(quantity)) for one in found
        ]
        lines.append([label(row)[:MAX_NAME], *cells, *([f"{row.acceptance_len:.2f}"] if own else [])])
    return "\n".join([title, *aligned([head, *lines])])


def _bests(tables: Sequence[LoadTable]) -> str:
    tails = "/".join(map(str, TAILS))
    head = [
        "load",
        "best",
        "speedup",
        "tokens/s",
        "wasted/s",
        f"TPOT ms {tails}",
        f"TTFT ms {tails}",
        "batch 1's choice loses",
    ]
    lines = []
    for table in tables:
        row = table.best
        if row is None:
            lines.append([table.load.label, "saturated: nothing keeps up", *["-"] * (len(head) - 2)])
            continue
        numbers = [f"{row.number('tokens_per_s'):.0f}", f"{row.number('wasted_per_s'):.0f}"]
        for name, form in (("tpot_ms", "{:.1f}"), ("ttft_ms", "{:.0f}")):
            numbers.append("/".join(form.format(row.number(f"{name}_p{share}")) for share in TAILS))
        loss = "-" if table.batch_1_loss is None else f"{table.batch_1_loss.value:.0%}"
        speedup = interval(row.values.get("speedup"))
        lines.append([table.load.label, label(row)[:MAX_NAME], speedup, *numbers, loss])
    return "\n".join(["The best at each load", *aligned([head, *lines])])


def interval(value: Value | None) -> str:
    """Example: "1.52 (1.40-1.64)"."""
    if value is None:
        return "-"
    ends = "" if value.low is None or value.high is None else f" ({value.low:.2f}-{value.high:.2f})"
    return f"{value.value:.2f}{ends}"


def advice(tables: Sequence[LoadTable]) -> list[str]:
    """Sentences that the numbers carry: which drafter up to how many requests, and from where on none."""
    runs: list[tuple[str, str, list[LoadTable]]] = []
    for table in tables:
        best, kind = table.best, table.load.kind
        name = "" if best is None else label(best)
        if runs and runs[-1][:2] == (kind, name):
            runs[-1][2].append(table)
        elif best is not None:
            runs.append((kind, name, [table]))
    return [f"At {_loads(own)}: {name}{_beside(own, name)}." for _, name, own in runs]


def _loads(tables: Sequence[LoadTable]) -> str:
    """Example: "1 to 16 requests at a time"."""
    ends = dict.fromkeys(f"{table.load.value:g}" for table in (tables[0], tables[-1]))
    word = "request" if list(ends) == ["1"] else "requests"
    return f"{' to '.join(ends)} {word} {'at a time' if tables[0].load.kind == CONCURRENCY else 'a second'}"


def _beside(tables: Sequence[LoadTable], name: str) -> str:
    """What cannot be told from the best one at some of these loads; plain decoding is always named."""
    level = {label(row) for table in tables for row in table.choices if row.may_be_best} - {name}
    plain = label_of(PLAIN)
    others = level - {plain}
    words = [plain] * (plain in level) + (
        [min(others)] if len(others) == 1 else [f"{len(others)} others"] * bool(others)
    )
    return f"; not told apart from {' and '.join(words)}" if words else ""


def under_load_line(study: Study, tables: Sequence[LoadTable]) -> str:
    """What a recommendation says of one load, in a sentence or two. Example: "64 requests at a time, simulated ..."."""
    table = tables[0]
    where = f"{table.load.value:g} requests at a time, simulated by {study.profile.title} as if {study.entry}"
    if (best := table.best) is None:
        return f"{where}: nothing keeps up."
    others = [label(row) for row in table.choices if row.may_be_best and row is not best]
    several = f"{len(others)} others ({others[0]}, ...)" if len(others) > 1 else "".join(others)
    beside = f"; not told apart from {several}" if others else ""
    lost = table.batch_1_loss
    loss = (
        f" What is best for one request alone loses {lost.value:.0%} of that." if lost and lost.value >= 0.005 else ""
    )
    return f"{where}: {label(best)}, {interval(best.values.get('speedup'))} times plain decoding{beside}.{loss}"


def _notes(study: Study, tables: Sequence[LoadTable]) -> list[str]:
    lines = [f"{table.load.label}: {note}." for table in tables for note in table.notes]
    lines += [*unpriced_line(study), *tree_line(study)]
    for table in tables:
        slow = [row for row in table.rows if not row.has_kept_up]
        if slow and table.best is not None:
            names = f"{len(slow)} configurations" if len(slow) > 3 else ", ".join(map(label, slow))
            lines.append(f"{table.load.label}: saturated with {names}: requests come faster than they are served.")
    if not study.has_intervals:
        lines.append(f"No intervals: they need {MIN_QUESTIONS} questions or more, and as many --seeds.")
    if study.beyond:
        lines.append(f"Extrapolated beyond the profile: {'; '.join(study.beyond)}.")
    return lines


def unpriced_line(study: Study) -> list[str]:
    """The drafters that the profile has no price for, and how to make one that has; [] where there are none."""
    if not study.unpriced:
        return []
    what = f"Left out, as {study.profile.name} does not say what a pass of theirs over several requests costs"
    how = "bounds that do: failfast profile roofline --heads (docs/load.md)"
    return [f"{what}: {', '.join(study.unpriced)}; {how}."]


def tree_line(study: Study) -> list[str]:
    """What trees take beside passes, and that a batch may share some of it; [] where the profile prices no tree."""
    beside_ms = study.beside_ms_F[study.beside_ms_F > 0]
    if not len(beside_ms):
        return []
    what = f"Trees: a round takes {beside_ms.mean():.2f} ms more than its passes for one request alone (mean)"
    return [f"{what}; each request adds that, and a server that shares such work takes less."]


def load_dict(study: Study, tables: Sequence[LoadTable]) -> dict[str, Any]:
    """For programs, unrounded."""
    asked = study.asked
    return {
        "target": study.requests.target,
        "priced_as": study.entry,
        "profile": study.profile.name,
        "is_bound": study.profile.is_bound,
        "num_questions": len(study.requests.questions),
        **{name: getattr(asked, name) for name in ("seeds", "seed", "max_batch", "chunk", "context")},
        "extrapolated": list(study.beyond),
        "unpriced": list(study.unpriced),
        "loads": [_table_dict(table) for table in tables],
    }


def _table_dict(table: LoadTable) -> dict[str, Any]:
    best = table.best
    return {
        "kind": table.load.kind,
        "value": table.load.value,
        "best": None if best is None else best.name,
        "best_policy": None if best is None else best.policy,
        "is_saturated": best is None,
        "batch_1": table.batch_1,
        "batch_1_loss": table.batch_1_loss and vars(table.batch_1_loss),
        "notes": list(table.notes),
        "level_as_recorded": list(table.level),
        "rows": [_row_dict(row) for row in table.rows],
    }


def _row_dict(row: LoadRow) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "policy": row.policy, "label": label(row)}
    found |= {"is_saturated": not row.has_kept_up, "may_be_best": row.may_be_best, "acceptance_len": row.acceptance_len}
    return found | {name: vars(value) for name, value in row.values.items()}
