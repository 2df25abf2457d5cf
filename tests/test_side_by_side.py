"""Work side by side: the same as in turn, no more at a time than is asked; libraries leave nothing switched off."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from specdec.errors import UserError
from specdec.records.provenance import num_cores
from specdec.runs.side_by_side import processes, side_by_side


def test_what_calls_give_stands_in_their_order_however_many_run_at_a_time() -> None:
    together = threading.Barrier(2, timeout=60)
    assert side_by_side([lambda: (together.wait(), 1)[1], lambda: (together.wait(), 2)[1]], lambda: None, 2) == [1, 2]
    for num_workers in (0, 1, 3, 99):
        assert side_by_side([partial(int, str(one)) for one in range(7)], lambda: None, num_workers) == list(range(7))
    assert side_by_side([], lambda: None, 4) == [] and num_cores() >= 1


def test_every_other_thread_begins_and_this_one_does_not() -> None:
    begun: list[int] = []
    here = threading.get_ident()
    assert side_by_side([threading.get_ident] * 3, lambda: begun.append(threading.get_ident()), 1) == [here] * 3
    assert begun == []
    ran = side_by_side([threading.get_ident] * 8, lambda: begun.append(threading.get_ident()), 2)
    assert set(ran) <= set(begun) and here not in begun


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_goes_wrong_in_one_is_told(num_workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0], lambda: None, num_workers)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_give_in_order_and_tell_what_goes_wrong_in_the_first_of_many(num_workers: int) -> None:
    with processes(num_workers) as each:
        assert list(each(abs, range(-40, 0))) == list(range(40, 0, -1))
    # Long things to hand over, more than a pipe holds: what the error leaves is dropped and nothing waits for it.
    long = ["?" * 200_000] * 40
    with pytest.raises(ValueError, match="invalid literal"), processes(num_workers) as each:
        list(each(int, long))


@pytest.mark.slow
def test_a_process_that_is_ended_from_outside_is_a_line() -> None:
    with pytest.raises(UserError, match="fewer --workers"), processes(2) as each:
        list(each(_end, [signal.SIGKILL] * 3))


def _end(how: int) -> None:
    os.kill(os.getpid(), how)


@pytest.mark.slow
def test_libraries_are_imported_and_garbage_is_looked_for_again() -> None:
    code = (
        "import gc, sys; from specdec.commands.libraries import import_libraries; import_libraries();"
        "assert 'torch' in sys.modules and gc.isenabled() and gc.get_freeze_count() > 1000; gc.unfreeze();"
        "import_libraries(); assert gc.get_freeze_count() == 0"
    )
    assert gc.isenabled()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
