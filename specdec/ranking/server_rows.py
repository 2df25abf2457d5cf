"""Also: what a server with speculative decoding of its own gave on the ranked questions, as entries of the ranking.

Reads what a server's profiler printed (profiling/serving/ranking_row.py writes the row in it); measures nothing. Its
speedup is the server's against the same server's plain decoding, whatever the ranking's prices are: a note says so.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdec.errors import MALFORMED, UserError
from specdec.latency.pricing import Price
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import Entry
from specdec.ranking.ranking import engines_of
from specdec.ranking.source import Source
from specdec.records.fields import is_count, is_duration, parse_json
from specdec.text import visible

_COUNTS = ("num_rounds", "num_emitted", "num_drafts", "num_drafted", "num_accepted")
_TIMES = ("ms_per_token", "vanilla_ms_per_token")


def also_ranked(paths: Sequence[Path], stats: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """(entries to rank beside `stats`, a sentence on each file). UserError for a file that cannot stand there."""
    entries, notes, seen = [], [], dict[str, Path]()
    for path in paths:
        row = _read_row(path)
        _check_name(row["drafter_name"], path, seen, stats)
        source = _source_of(row, stats, path)
        engines = engines_of(stats) or [MEASURED]
        entries += [_entry(question, row, source, engines) for question in row["questions"]]
        where = " ".join(str(row[key]) for key in ("engine", "engine_version", "hardware") if row.get(key))
        is_plain = row.get("vanilla_speculates") == "no"
        notes.append(
            f"{row['drafter_name']} was measured on a server ({where}) against that server's own plain decoding, also "
            "where others are modelled. Rounds are the server's decode steps, tokens those after the prompt's pass; "
            "drafted and accepted tokens are as it counts them, with those accepted after an answer's end. What a "
            "drafter's passes are there it does not say (0), so all time stands under verify ms."
            + ("" if is_plain else " Whether that plain decoding was plain is unknown: the server did not say.")
        )
    return entries, notes


def _check_name(name: str, path: Path, seen: dict[str, Path], stats: Sequence[Entry]) -> None:
    """Raises UserError for a row that would be added to another's, of a file in `seen` or of `stats`."""
    if name in seen or any(entry.drafter_name == name for entry in stats):
        other = f"--also {seen[name]}" if name in seen else "what is ranked"
        raise UserError(
            f"--also {path} has a row called {name}, and so has {other}: name it by the profiler's --method, or leave "
            "one of them out"
        )
    seen[name] = path


def _entry(question: dict[str, Any], row: dict[str, Any], source: Source, engines: Sequence[str]) -> Entry:
    """One question. Tokens are those of the rounds: without the one that the prompt's pass gives."""
    num_tokens = question["num_emitted"]
    price = Price(0.0, num_tokens * question["ms_per_token"], num_tokens * question["vanilla_ms_per_token"])
    return Entry(
        question_id=question["question_id"],
        drafter_name=row["drafter_name"],
        num_output_tokens=num_tokens,
        num_accepted=question["num_accepted"],
        num_drafted=question["num_drafted"],
        num_rounds=question["num_rounds"],
        num_forward_passes=0,
        prices=dict.fromkeys(engines, price),
        source=source,
        settings=f"server {row['engine']}",
    )


def _source_of(row: dict[str, Any], stats: Sequence[Entry], path: Path) -> Source:
    """The ranked questions' source that the row belongs to: the same target, data set and budget, and greedy.

    What else is in a source, arithmetic and device, is left to the server. Logs that state none fit any row.
    """
    sources = sorted({entry.source for entry in stats})
    own = row["target"], row["dataset"], row["max_new_tokens"], row.get("prompt_style", "")
    like_it = [one for one in sources if (one.target, one.dataset, one.max_new_tokens, one.prompt_style) == own]
    # The server's chat template decided whether its model thinks.
    fitting = [one for one in like_it if not one.is_sampled and not one.thinking]
    if len(fitting) == 1:
        return fitting[0]
    if len(sources) == 1 and not any(entry.settings for entry in stats):
        return sources[0]
    raise UserError(
        f"--also {path} is of target {own[0]}, data set {own[1]} and {own[2]} new tokens, and what is ranked is of "
        f"{' and of '.join(visible(one.title) for one in sources)}: rank what was run alike{_how(own, sources)}"
    )


def _how(own: tuple[Any, ...], sources: Sequence[Source]) -> str:
    """What to give a profiler or a server where one thing alone differs; "" where it is not one."""
    for one in sources:
        target, dataset, budget, style = own
        if (target, dataset, style) == (one.target, one.dataset, one.prompt_style) and budget != one.max_new_tokens:
            return f" (the profiler takes --max_new_tokens {one.max_new_tokens})"
        if (dataset, budget, style) == (one.dataset, one.max_new_tokens, one.prompt_style) and target != one.target:
            name = visible(one.target)
            return f" (a server names its model: vllm serve ... --served-model-name {name}, if it is the same one)"
    return ""


def _read_row(path: Path) -> dict[str, Any]:
    """The row of what a profiler printed: the file's last line. Raises UserError for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--also: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = parse_json(text.strip().rpartition("\n")[2])
        row = found["row"]
    except MALFORMED as error:
        raise UserError(
            f"--also {path} has no row for a ranking: give what profile_tpt_vllm_eagle3 or _sglang printed "
            "with --vanilla and --concurrency 1"
        ) from error
    try:
        _check_row(row)
    except MALFORMED as error:
        raise UserError(f"--also {path}: its row is damaged ({error!r}): measure it again") from error
    return row


def _check_row(row: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError unless the row is what `ranking_row` writes."""
    if not re.fullmatch(r"[\w.+-]{1,200}", row["drafter_name"]):
        raise ValueError("drafter_name")
    for key in ("engine", "target", "dataset", "max_new_tokens"):
        if isinstance(row[key], list | dict):
            raise TypeError(key)
    ids = [question["question_id"] for question in row["questions"]]
    if not ids or len(set(ids)) < len(ids) or not all(map(is_count, ids)):
        raise ValueError("questions")
    if not all(key in question for question in row["questions"] for key in _COUNTS):
        raise ValueError("made by an earlier version, which took drafts for rounds")
    for question in row["questions"]:
        if not all(is_count(question[key]) for key in _COUNTS) or not question["num_rounds"]:
            raise ValueError("counts")
        times = [question[key] for key in _TIMES]
        if not all(type(ms) in (int, float) and ms > 0 and is_duration(ms) for ms in times):
            raise ValueError("times")
