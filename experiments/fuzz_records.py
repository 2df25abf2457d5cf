"""Damaged records in great number: none runs code, hangs or takes more than 256 MB, and no page of one holds a tag.

    python -m experiments.fuzz_records [--num_cases 100000] [--seed 0]

Every case is the pickle of a real record, made here by the bundled models, with bytes turned, cut or doubled, opcodes
put in, or values exchanged before it is pickled. It is read as any record is and, if it still is one, becomes an HTML
report. A worker process does this with its memory limited; the system ends it where a case takes 10 s of its CPU time,
an audit hook where one opens, runs or connects to anything. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

from experiments.damage import OPCODES, damaged, exchanged
from profiling.common import parser_of, run_command
from specdec.commands.report import report_html
from specdec.drafters.families import kinds
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import BUNDLED
from specdec.models.token_text import find_tokenizer, read_token_bytes
from specdec.ranking.entries import entry_of
from specdec.records import pickles
from specdec.records.record import Record
from specdec.views.trajectory import Reader

MAX_BYTES, MAX_CPU_S = 256 * 2**20, 10.0
DRAFTERS = ("ar_sf", "dllm_sf", "failfast")
ROOT = Path(__file__).resolve().parents[1]
# Events of Python's audit that reading a record and showing it never cause; opening is, to read the page's own sources.
FORBIDDEN = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "exec", "compile", "import", "pickle.find")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.fuzz_records", __doc__)
    parser.add_argument("--num_cases", type=int, default=100_000, help="damaged records (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: %(default)s)")
    parser.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    return run_command(parser, lambda flags: _work(flags) if flags.worker else fuzz(flags), arguments)


def fuzz(flags: argparse.Namespace) -> dict[str, Any]:
    """Every case in worker processes, a new one after each that was ended. What ended them is counted, and named."""
    counts: Counter[str] = Counter()
    ended, peak = [], 0
    with tempfile.TemporaryDirectory() as folder:
        make_records(Path(folder))
        at, end = flags.seed, flags.seed + flags.num_cases
        while at < end:
            found = _run_worker(folder, at, end)
            counts += Counter(found["counts"])
            peak, at = max(peak, found["peak_bytes"]), found["next"]
            ended += found["ended"]
    return {
        "what": "damaged pickles of real records, read and, where they still are records, shown as an HTML report",
        "num_cases": flags.num_cases,
        "counts": dict(sorted(counts.items())),
        "num_ended": len(ended),
        "ended": ended[:20],
        "peak_mb": round(peak / 2**20, 1),
        "limit_mb": MAX_BYTES // 2**20,
        "limit_cpu_s": MAX_CPU_S,
    }


def make_records(folder: Path) -> None:
    """A question of each drafter, by the bundled models: what is damaged."""
    command = [sys.executable, "failfast.py", "--num_questions", "1", "--max_new_tokens", "24", "--device", "cpu"]
    command += ["--drafters", *DRAFTERS, "--spec_len", "4", "--output_dir", str(folder), "--log_level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"no records to damage: {(done.stderr.splitlines() or ['failfast.py failed'])[-1]}")


def _run_worker(folder: str, begin: int, end: int) -> dict[str, Any]:
    """What a worker found from `begin` on; where it was ended, up to the case that did it."""
    flags = ["--worker", folder, "--seed", str(begin), "--num_cases", str(end - begin)]
    command = [sys.executable, "-m", "experiments.fuzz_records", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    state = json.loads((Path(folder) / "state.json").read_text(encoding="utf-8"))
    if done.returncode == 0:
        return {**state, "ended": []}
    reason = (done.stderr.splitlines() or [f"signal {-done.returncode}"])[-1][:200]
    return {**state, "next": state["next"] + 1, "ended": [{"case": state["next"], "why": reason}]}


def _work(flags: argparse.Namespace) -> dict[str, Any]:
    """Cases from --seed on, in this process, noted in a file so that whoever ends it knows where it was."""
    judge = Judge.of(Path(flags.worker))
    counts: Counter[str] = Counter()
    note = os.open(Path(flags.worker) / "state.json", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    watch()
    for case in range(flags.seed, flags.seed + flags.num_cases):
        _write_note(note, counts, case)
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
        try:
            counts[judge.outcome(judge.case(case))] += 1
        except Exception as error:  # whatever it is, it names the case
            _end(f"{type(error).__name__}: {error}")
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    _write_note(note, counts, flags.seed + flags.num_cases)
    return {"counts": counts, "provenance": {}}


def _write_note(note: int, counts: Counter[str], case: int) -> None:
    state = {"counts": counts, "next": case, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    os.pwrite(note, json.dumps(state).encode().ljust(1000), 0)


def watch() -> None:
    """From here on this process may not grow beyond MAX_BYTES, nor run, open, import or connect to anything.

    What tries ends the process at once: an exception could be caught, and would be.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    size, resident = (int(fields[name].split()[0]) * 1024 for name in ("VmSize", "VmRSS"))
    limit = size + MAX_BYTES - resident
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def hook(event: str, details: tuple) -> None:
        is_ours = event == "open" and str(details[0]).startswith(str(ROOT)) and not details[2] & os.O_ACCMODE
        if event.startswith(FORBIDDEN) or (event == "open" and not is_ours):
            _end(f"{event} {details}")

    sys.addaudithook(hook)


def _end(why: str) -> NoReturn:
    os.write(2, f"{' '.join(why.split())[:200]}\n".encode("utf-8", "replace"))
    os._exit(3)


class Judge:
    """The real records, and what is made of a damaged one."""

    def __init__(self, originals: list[bytes], reader: Reader, pricing: Pricing) -> None:
        self.originals, self.reader, self.pricing = originals, reader, pricing
        # Whatever is imported or cached at first use is now: no case may.
        for encoding in ("unicode_escape", "raw_unicode_escape", "utf_16", "latin_1"):
            codecs.lookup(encoding)
        for kind in kinds().values():
            kind.parse("")
        for data in originals:
            self.tags = tags_of(self.page(Record.from_builtins(pickles.loads(data))))
            self.outcome(exchanged_pickle(data, random.Random(0)))

    @classmethod
    def of(cls, folder: Path) -> Judge:
        originals = [path.read_bytes() for path in sorted(folder.rglob("*.pickle"))]
        tokenizer = find_tokenizer(BUNDLED)
        assert tokenizer is not None  # it is bundled
        return cls(originals, Reader(read_token_bytes(tokenizer)), Pricing.load(["vLLM_A6000"]))

    def case(self, number: int) -> bytes:
        """Damaged record `number`: the same every time."""
        rng = random.Random(number)
        data = rng.choice(self.originals)
        return exchanged_pickle(data, rng) if number % 2 else damaged(data, rng, OPCODES)

    def outcome(self, data: bytes) -> str:
        """What became of it, in a few words. Raises for anything but a refusal or a page with its own tags alone."""
        try:
            record = Record.from_builtins(pickles.loads(data))
        except pickles.UnsafePickle as error:
            if "MemoryError" in str(error):
                raise MemoryError from None
            return "refused as a pickle"
        except UserError as error:
            assert len(str(error).splitlines()) == 1, "a refusal of several lines"
            return "refused as a record"
        try:
            page = self.page(record)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, "a refusal of several lines"
            return "a record without a page"
        assert tags_of(page) == self.tags, "a page with other tags"
        return "a record and its page"

    def page(self, record: Record) -> str:
        return report_html([record], [entry_of(record, self.pricing)], self.reader)


def exchanged_pickle(data: bytes, rng: random.Random) -> bytes:
    return pickles.dumps(exchanged(pickles.loads(data), rng))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, tuple]] = []
        self._is_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if ("http-equiv", "Content-Security-Policy") not in attrs:  # it has a hash of the style, which drafters decide
            self.found.append((tag, tuple(attrs)))
        self._is_data = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        self._is_data = False

    def handle_data(self, data: str) -> None:
        if self._is_data:
            json.loads(data)


def tags_of(page: str) -> list[tuple[str, tuple]]:
    """The tags of a page with their attributes, in order. Raises ValueError where a block of data is not JSON."""
    parser = _Tags()
    parser.feed(page)
    parser.close()
    return parser.found


if __name__ == "__main__":
    sys.exit(main())
