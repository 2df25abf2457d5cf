"""Shards: every question in exactly one part, Slurm's variables, and every wrong one named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdec.errors import UserError
from specdec.runs.shards import EVERYTHING, Shard, parse_shard


def array(task: object, count: object, first: object = 0, last: object = None) -> dict[str, str]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
    values = (task, count, first, count - 1 + first if last is None else last)
    return dict(zip(names, map(str, values), strict=True))


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_the_parts_are_the_whole(items, count):
    parts = [Shard(index, count).of(items) for index in range(count)]
    assert sorted(sum(parts, [])) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_as_given():
    assert parse_shard(None, {}) == parse_shard("slurm", {}) == EVERYTHING
    assert parse_shard(None, array(3, 8)) == EVERYTHING  # an array over something else than questions
    assert parse_shard("2/8", array(5, 9)) == Shard(2, 8)
    assert parse_shard("slurm", array(3, 8)) == Shard(3, 8)
    assert parse_shard("slurm", array(1, 8, first=1)) == Shard(0, 8)
    assert parse_shard("slurm", array(5, 1, first=5)) == EVERYTHING


@pytest.mark.parametrize("text", ["8/8", "1/0", "-1/8", "1", "1/", "a/b", "1/2/3", "", "1.0/2", "0x1/2", " 1/2", "٣/٨"])
def test_a_wrong_shard_is_named(text):
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text, {})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        (array("three", 8), "SLURM_ARRAY_TASK_ID is 'three'"),
        (array(3, 8) | {"SLURM_ARRAY_TASK_COUNT": "8 tasks"}, "SLURM_ARRAY_TASK_COUNT"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT is ''"),
        (array(3, 2, first=1, last=3), "without gaps"),
        (array(9, 8), "no place"),
        (array(-1, 8), "SLURM_ARRAY_TASK_ID"),
    ],
)
def test_a_wrong_slurm_variable_is_named(environment, named):
    with pytest.raises(UserError, match=named):
        parse_shard("slurm", environment)
