"""One results folder under attack: 32 writers at once, and writers killed at 200 random moments."""

from __future__ import annotations

import builtins
import os
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import FakeDraft, ScriptedDrafter, ScriptedTarget
from samples import make_record

from specdec.decoding.loop import speculate
from specdec.records.record import Record, find_records, load_record, record_path, save_record
from specdec.runs.run_file import RunFile, find_runs, read_run
from specdec.runs.status import read_status

pytestmark = pytest.mark.slow
NUM_PROCESSES = 32
NUM_KILLS = 200
OPERATIONS = [(builtins, "open"), *((os, name) for name in ("open", "fsync", "replace", "unlink", "mkdir"))]
DRAFTERS = ("plain", "ar_None_sf_4")
BUDGET = 12


@cache
def work(question_id: int, drafter: str) -> Record:
    """A question under a drafter that is right now and then, in no time; always the same record."""
    rng = random.Random(question_id)
    text = [rng.randrange(1000) for _ in range(BUDGET + 8)]

    def draft(prefix_ids: list[int], budget: int) -> FakeDraft:
        begin = len(prefix_ids) - 3
        tokens = [token + (token % 5 == 0) for token in text[begin : begin + 4]]
        return FakeDraft([] if drafter == "plain" else tokens[:budget], [0.5] * len(tokens))

    rounds = speculate(
        ScriptedTarget(text), ScriptedDrafter(draft), [1, 2, 3], max_new_tokens=BUDGET, stop_ids=(), clock=lambda: 0.0
    )
    return make_record(question_id, drafter, rounds)


def asked(question_ids: list[int]) -> dict[str, object]:
    known = {"target": "bundled", "dataset": "gsm8k", "max_new_tokens": BUDGET}
    return {**known, "question_ids": question_ids, "drafters": list(DRAFTERS)}


def path_of(folder: Path, question_id: int, drafter: str) -> Path:
    return record_path(folder, "bundled", "gsm8k", question_id, drafter, BUDGET)


def do_all(folder: Path, question_ids: list[int], on_saved: Callable[[Path], None] = lambda _: None) -> None:
    """What failfast.py does with a folder: a run.json, and every record that is not there yet."""
    with RunFile(folder, asked(question_ids)):
        for question_id in question_ids:
            for drafter in DRAFTERS:
                path = path_of(folder, question_id, drafter)
                if not path.exists():
                    save_record(work(question_id, drafter), path)
                    on_saved(path)


class Moments(ExitStack):
    """Counts the moments right before and right after each operation on files.

    At moment number `last` the process is killed. They are counted because a time would be another moment on a machine
    that is busy: maybe none of the work.
    """

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.num_seen, self._last = 0, last

    def __enter__(self) -> Moments:
        for module, name in OPERATIONS:
            self.enter_context(mock.patch.object(module, name, self._counted(getattr(module, name))))
        return self

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._see()
            try:
                return operation(*arguments, **keywords)
            finally:
                self._see()

        return call

    def _see(self) -> None:
        if self.num_seen == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.num_seen += 1


def started(task: Callable[[], None]) -> int:
    """The id of a forked process that does `task`: no time goes into imports."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            task()
            status = 0
        finally:
            os._exit(status)
    return process


def assert_whole(folder: Path) -> set[Path]:
    """Every record loads and is what it would be in a run of its own."""
    paths = find_records(folder)
    for path in paths:
        record = load_record(path)
        assert record == work(record.question_id, record.drafter_name)
        assert path == path_of(folder, record.question_id, record.drafter_name)
    return set(paths)


def test_32_processes_in_one_folder_lose_nothing(tmp_path):
    """Every question is asked of four processes, and none begins before all are there."""
    questions = [list(range(8 * (n % 8), 8 * (n % 8) + 8)) for n in range(NUM_PROCESSES)]
    gate, opener = os.pipe()

    def task(mine: list[int]) -> None:
        os.close(opener)
        os.read(gate, 1)  # returns when the last other end is closed
        do_all(tmp_path, mine)

    processes = [started(lambda mine=mine: task(mine)) for mine in questions]
    os.close(opener)
    os.close(gate)
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * NUM_PROCESSES
    assert assert_whole(tmp_path) == {path_of(tmp_path, question, name) for question in range(64) for name in DRAFTERS}
    found = [read_run(path) for path in find_runs(tmp_path)]
    assert len(found) == NUM_PROCESSES and all(one["end"]["outcome"] == "done" for one in found)
    assert all(not progress.missing for progress in read_status(tmp_path).configurations.values())
    assert not list(tmp_path.rglob("*.tmp"))


def test_kill_at_200_random_moments_never_leaves_a_record_that_loads_wrongly(tmp_path):
    """In 20 folders, 10 killed writers each and a last one that is left to finish."""
    rng, questions, num_half_done = random.Random(0), list(range(10)), 0
    moments = Moments()
    with moments:
        do_all(tmp_path / "counting", questions[:3])
    for number in range(NUM_KILLS):
        folder = tmp_path / str(number // 10)
        before = set(find_records(folder))
        saved = killed_while_working(folder, questions, rng.randrange(moments.num_seen))
        present = set(find_records(folder))
        assert before | saved <= present, number
        num_half_done += present != before
        if number % 10 == 9:
            assert_whole(folder)
            ends = [read_run(path)["end"] for path in find_runs(folder)]
            assert all(end is None or end["outcome"] == "done" for end in ends)
            do_all(folder, questions)
            assert len(assert_whole(folder)) == len(questions) * len(DRAFTERS)
    assert num_half_done > NUM_KILLS / 10  # the kills did come in the middle of the work


def killed_while_working(folder: Path, questions: list[int], last: int) -> set[Path]:
    """The records that a writer had reported as saved when it was killed, at its moment number `last`."""
    reader, writer = os.pipe()

    def task() -> None:
        with Moments(last):
            do_all(folder, questions, lambda path: os.write(writer, f"{path}\n".encode()))

    process = started(task)
    os.close(writer)
    os.waitpid(process, 0)
    with os.fdopen(reader) as reports:
        return {Path(line) for line in reports.read().splitlines()}
