"""Accounting: whose way of counting passes and drafted tokens a record is looked at by. Counts alone, from the record.

"ours": the passes that were made, and the tokens that were offered to the target. "published": what the published
program (arXiv 2512.20573) counts for the same drafts, which the paper's numbers are made of.
"""

from specdec.drafters.families import parse_name
from specdec.records.identity import PUBLISHED as BY_PUBLISHED
from specdec.records.record import Record

OURS, PUBLISHED = "ours", "published"
ACCOUNTINGS = (OURS, PUBLISHED)


def num_passes(record: Record, accounting: str) -> int:
    """Drafter passes. A pickle of the published program has been counted already."""
    if accounting == OURS or record.identity.origin == BY_PUBLISHED:
        return record.num_forward_passes
    return sum(parse_name(record.drafter_name).published_passes(record.rounds, record.identity.settings))


def num_drafted(record: Record, accounting: str) -> int:
    """Drafted tokens: those offered; as published every window whole, also where the draft was cut."""
    if accounting == OURS:
        return record.num_drafted
    least = parse_name(record.drafter_name).first_asked  # of older records, which do not hold the windows
    return sum(max(turn.asked_len, least) for turn in record.rounds)
