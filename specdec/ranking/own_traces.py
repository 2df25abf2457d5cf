"""Own traces: the judges of records whose traces lie in the same results folder, so that nobody has to name them."""

from collections.abc import Sequence
from pathlib import Path

from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.oracle import Judges
from specdec.records.record import Record
from specdec.traces.trace import trace_path


class OwnJudges(Judges):
    """Judges that nobody asked for: what they cannot judge has no ceiling, and is no mistake."""

    def ceilings(self, record: Record) -> dict[str, Ceiling]:
        try:
            return super().ceilings(record)
        except UserError:
            return {}


def own_judges(folder: str | Path, records: Sequence[Record], pricing: Pricing) -> Judges | None:
    """Where a results folder holds a trace of every question, else None."""
    paths = {trace_path(folder, record.identity) for record in records}
    return OwnJudges(folder, pricing) if all(path.is_file() for path in paths) else None
