"""Exports: the files that `failfast rank` writes beside its ranking: flat tables, and those of specdec_bench.

What stands in them: `views/record_rows.py`, `views/specdec_bench.py`.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from specdec.commands.flags import StrictParser
from specdec.errors import UserError, user_error
from specdec.ranking.entries import Entry, records_of
from specdec.ranking.source import Source
from specdec.records.pickles import write_atomic
from specdec.records.record import Record
from specdec.views.record_rows import Rows, record_rows, round_rows
from specdec.views.specdec_bench import FILES, acceptance_rate, runs_of, timing

Key = tuple[Source, int, str]
_TABLES = "write records and rounds as flat tables into --out"


def add_export_flags(parser: StrictParser) -> None:
    """The flags that `Exports` reads."""
    group = parser.group("output")
    group.add_argument(
        "--records",
        choices=tuple(WRITERS),
        help="write records and rounds as flat tables into --out (docs/measures.md)",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of --records: records.FORMAT, rounds.FORMAT")
    group.add_argument(
        "--specdec_bench",
        type=Path,
        metavar="DIR",
        help=f"write {' and '.join(FILES)} of every drafter, as NVIDIA's specdec_bench has them",
    )


@dataclass(frozen=True)
class Exports:
    """Which files were asked for."""

    form: str | None = None
    out: Path | None = None
    bench: Path | None = None

    @classmethod
    def asked(cls, options: argparse.Namespace) -> "Exports":
        """Raises UserError for flags that do not go together, and for a format that cannot be written here."""
        if (options.records is None) != (options.out is None):
            raise UserError("--records and --out go together: --records csv --out DIR")
        if options.records is not None:
            WRITERS[options.records](Rows({"x": int}, []))
        return cls(options.records, options.out, options.specdec_bench)

    def write(self, stats: Sequence[Entry], paths: Sequence[Path]) -> None:
        """Write the files of what `stats` ranks, from the records of `paths`, and say which on stderr.

        Raises UserError where there are no records, or no place.
        """
        if not (self.form or self.bench):
            return
        seen = _records(paths)
        keyed = [((entry.source, entry.question_id, entry.drafter_name), entry) for entry in stats]
        pairs = [(seen[key], entry) for key, entry in keyed if key in seen]
        if not pairs:
            raise UserError("no records to write: logs hold none, give a results folder")
        records = [record for record, _ in pairs]
        if self.out is not None and self.form is not None:
            for name, rows in (("records", record_rows(pairs)), ("rounds", round_rows(records))):
                path = self.out / f"{name}.{self.form}"
                _put(path, WRITERS[self.form](rows))
                print(f"{path}: {len(rows.rows)} rows", file=sys.stderr)
        if self.bench is not None:
            _write_bench(self.bench, records)


def _records(paths: Sequence[Path]) -> dict[Key, Record]:
    """The records of results folders and pickles; a later one replaces an earlier one, as in rankings."""
    folders = [path for path in paths if path.is_dir() or path.suffix == ".pickle"]
    found = [record for path in folders for record in records_of(path)]
    return {(Source.of(record), record.question_id, record.drafter_name): record for record in found}


def _write_bench(folder: Path, records: Sequence[Record]) -> None:
    runs = runs_of(records)
    for (sweep, run), own in runs.items():
        for name, data in zip(FILES, (acceptance_rate(own), timing(own)), strict=True):
            if data is not None:
                _put(folder / sweep / run / name, json.dumps(data, indent=4, allow_nan=False).encode())
    print(f"{folder}: {len(runs)} runs", file=sys.stderr)


def _put(path: Path, data: bytes) -> None:
    with user_error(f"write {path}", "choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def _csv(rows: Rows) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.rows)
    return out.getvalue().encode("utf-8", "backslashreplace")


def _parquet(rows: Rows) -> bytes:
    """Raises UserError where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("--records parquet needs pyarrow, which is not installed: give --records csv") from None
    types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in rows.columns.items()])
    data = io.BytesIO()
    cleaned = [
        {name: _text(value) if type(value) is str else value for name, value in row.items()} for row in rows.rows
    ]
    try:
        parquet.write_table(pyarrow.Table.from_pylist(cleaned, schema=schema), data)
    except OverflowError:
        raise UserError("a number is too large for parquet: give --records csv") from None
    return data.getvalue()


def _text(value: str) -> str:
    """Halves of characters, which only JSON can hold, are escaped."""
    return value.encode("utf-8", "backslashreplace").decode()


WRITERS: dict[str, Callable[[Rows], bytes]] = {"csv": _csv, "parquet": _parquet}
