"""Work side by side: the same as in turn, no more at a time than is asked; libraries leave nothing switched off."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from functools import partial

import pytest

from specdec.runs.side_by_side import num_cores, side_by_side


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
def test_libraries_are_imported_and_garbage_is_looked_for_again() -> None:
    code = (
        "import gc, sys; from specdec.commands.libraries import import_libraries; import_libraries();"
        "assert 'torch' in sys.modules and gc.isenabled() and gc.get_freeze_count() > 1000; gc.unfreeze();"
        "import_libraries(); assert gc.get_freeze_count() == 0"
    )
    assert gc.isenabled()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
