"""Reconciled: what made a server's acceptance another than the records', as a table and sentences, or as JSON data.

It finds nothing out (`ranking/reconcile.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from specdec.ranking.conventions import Tally
from specdec.ranking.reconcile import Reconciled, agrees, united
from specdec.ranking.served_counts import ServedCounts
from specdec.text import aligned, ranges

_HEAD = ["question", "ours", "", "server", "", "explained", ""]
_UNITS = ["", "accepted", "rounds", "accepted", "rounds", "accepted", ""]
_STEPS = ["changed, one after the other", "rounds", "drafted", "accepted", "open", "questions that agree"]


def reconciled_text(found: Reconciled, served: Mapping[int, ServedCounts], title: str) -> str:
    """For people: each question, our counts with one change after the other, and what explains the server's."""
    lines = [title, ""]
    if found.questions:
        lines += [*aligned([_HEAD, _UNITS, *_rows(found, served)], is_ruled=False), ""]
        lines += [*aligned([_STEPS, *_steps(found, served)]), ""]
    lines += ["What explains the difference, first what weighs most:"] if found.findings else []
    lines += [f"  {number}. {one.sentence}" for number, one in enumerate(found.findings, 1)]
    return "\n".join([*lines, _verdict(found, served), ""])


def _rows(found: Reconciled, served: Mapping[int, ServedCounts]) -> list[list[str]]:
    rows = []
    for number in found.questions:
        (ours, theirs), one = found.tallies[number], served[number]
        rounds = "" if one.num_rounds is None else str(one.num_rounds)
        rows.append(
            [
                *(str(number), f"{ours.num_accepted}/{ours.num_drafted}", str(ours.num_rounds)),
                *(f"{one.num_accepted}/{one.num_drafted}", rounds, _share(theirs)),
                "yes" if agrees(theirs, one) else "NO",
            ]
        )
    return rows


def _share(one: Tally) -> str:
    """`35/60`, or `35-37/60` where it is open whether 2 more were accepted."""
    most = f"-{one.num_accepted + one.num_open}" if one.num_open else ""
    return f"{one.num_accepted}{most}/{one.num_drafted}"


def _steps(found: Reconciled, served: Mapping[int, ServedCounts]) -> list[list[str]]:
    lines = [
        [label, *map(str, (one.num_rounds, one.num_drafted, one.num_accepted, one.num_open)), f"{count}"]
        for label, one, count in found.steps
    ]
    theirs = [served[number] for number in found.questions]
    rounds = [one.num_rounds for one in theirs if one.num_rounds is not None]
    sums = (sum(one.num_drafted for one in theirs), sum(one.num_accepted for one in theirs))
    is_known = len(rounds) == len(theirs)
    return [*lines, ["the server", str(sum(rounds)) if is_known else "", *map(str, sums), "", str(len(theirs))]]


def _verdict(found: Reconciled, served: Mapping[int, ServedCounts]) -> str:
    compared, known = len(found.questions), len(served)
    if not compared:
        return "No question has the same prompt and answer on both sides, so no counts could be compared."
    rest = "" if compared == known else f" {known - compared} of {known} questions have another prompt or answer."
    if found.apart:
        return f"Unexplained: {len(found.apart)} of {compared} questions ({ranges(found.apart)}).{rest}"
    extra = sum(served[one].num_accepted - found.tallies[one][1].num_accepted for one in found.questions)
    after = f", {extra} of its accepted tokens after the end of an answer" if extra else ""
    return f"All counts of {compared} {'question is' if compared == 1 else 'questions are'} explained{after}.{rest}"


def reconciled_data(found: Reconciled, served: Mapping[int, ServedCounts]) -> dict[str, Any]:
    """For programs."""
    return {
        "is_explained": found.is_explained,
        "findings": [{"kind": one.kind, "text": one.text, "questions": list(one.questions)} for one in found.findings],
        "steps": [{"changed": label, **_counts(one), "num_agree": count} for label, one, count in found.steps],
        "all": _counts(united([ours for ours, _ in found.tallies.values()])),
        "questions": [_question(found, number, served[number]) for number in found.questions],
        "unexplained": found.apart,
    }


def _question(found: Reconciled, number: int, one: ServedCounts) -> dict[str, Any]:
    ours, theirs = found.tallies[number]
    told: Sequence[str] = ("num_rounds", "num_drafts", "num_drafted", "num_accepted", "accepted_per_position")
    server = {name: getattr(one, name) for name in told}
    return {
        "question_id": number,
        "ours": asdict(ours),
        "server": server,
        "explained": asdict(theirs),
        "agrees": agrees(theirs, one),
    }


def _counts(one: Tally) -> dict[str, int]:
    return {key: value for key, value in asdict(one).items() if isinstance(value, int)}
