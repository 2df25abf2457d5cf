"""Costs by rows: read strictly, linear between points, and in the bounds what bandwidth and FLOP/s allow."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiling.new_profile import TargetCost, write_profile
from profiling.roofline import BYTES, GPUS, Machine, find_shape
from scripts import bounds
from specdec.errors import UserError
from specdec.latency import profile as latency
from specdec.latency.profile import load_profile, profile_text, verification_ms
from specdec.latency.rows import Rows
from specdec.latency.tree_costs import TreeCosts
from specdec.models.checkpoints import TARGET

TABLE = {"requests": [1, 4], "tokens": [1, 3], "contexts": [0, 100], "ms": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}
PASS = {"requests": [1, 2], "tokens": [1], "contexts": [0], "ms": [[[1]], [[1.5]]]}
PROFILE: dict[str, Any] = {
    "name": "p",
    "draft_pass_ms": 1.0,
    "target_ms_per_token": {"t": 1.0},
    "verify_ms": {"t": {"1": 1.0, "3": 3.0}},
    "provenance": {},
    "rows": {"context": 0, "verify": {"t": TABLE}, "passes": {"ar": PASS}},
}


def read(tmp_path: Path, fields: dict[str, Any]) -> Any:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(fields))
    return load_profile(path)


def test_a_profile_with_rows_is_read_and_written(tmp_path):
    rows = read(tmp_path, PROFILE).rows
    assert rows.verify["t"].ms_RKX.shape == (2, 2, 2) and rows.passes["ar"].requests == (1, 2)
    assert json.loads(profile_text(PROFILE)) == PROFILE
    without = {key: value for key, value in PROFILE.items() if key != "rows"}
    assert json.loads(profile_text(without)) == without and read(tmp_path, without).rows is None


def test_between_points_it_is_linear_and_beyond_the_last_slope_goes_on():
    ms = tuple(tuple(map(tuple, table)) for table in TABLE["ms"])
    rows = Rows((1, 4), (1, 3), (0, 100), ms)
    found = rows.at([1, 2.5, 4, 7], [1, 2, 5], [0, 50])
    assert found.shape == (4, 3, 2)
    # it is linear here: 1 + 4/3 (requests - 1) + (tokens - 1) + context / 100
    wanted = [[[1 + 4 / 3 * (r - 1) + (k - 1) + c / 100 for c in (0, 50)] for k in (1, 2, 5)] for r in (1, 2.5, 4, 7)]
    assert found == pytest.approx(np.array(wanted))
    late = Rows((1, 2), (1,), (96, 200), (((1.0, 2.0),), ((3.0, 4.0),)))
    assert late.at([1], [9], [0, 304])[0, 0].tolist() == [1.0, 3.0]  # no less than at the first context


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("context",), -1, "rows.context must be a number of tokens"),
        (("verify",), {}, "rows.verify must be a JSON object with a table"),
        (("verify", "u"), TABLE, "no table in verify_ms"),
        (("verify", "t", "requests"), [2, 4], "must begin with 1"),
        (("verify", "t", "tokens"), [3, 1], "rising whole numbers from 1 on"),
        (("verify", "t", "contexts"), [0, True], "rising whole numbers from 0 on"),
        (("verify", "t", "ms"), [[[1, 2]]], "2 x 2 x 2 positive numbers"),
        (("verify", "t", "ms"), [[[1, 2], [3, 4]], [[5, 6], [7, -8]]], "2 x 2 x 2 positive numbers"),
        (("verify", "t", "ms"), [[[1, 2], [3, 4]], [[5, 6], [7, "x"]]], "2 x 2 x 2 positive numbers"),
        (("verify", "t", "ms"), [[[1, 2], [3, 4]], [[5, 6], [7, float("nan")]]], "2 x 2 x 2 positive numbers"),
        (("verify", "t", "kv_tokens"), 0, "kv_tokens must be a number of tokens"),
        (("verify", "t", "more"), 0, "unknown field 'more'"),
        (("passes", "ar"), TABLE, "a drafter's pass runs one"),
        (("passes", "ar"), {"requests": [1]}, "lacks the field 'tokens'"),
        (("passes", "ar"), [], "must be a JSON object"),
    ],
)
def test_what_rows_may_not_be_is_one_line(tmp_path, place, value, why):
    fields = copy.deepcopy(PROFILE)
    inner = fields["rows"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(UserError, match=why) as caught:
        read(tmp_path, fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpu", bounds.COMMON)
def test_bounds_by_rows_agree_with_those_of_one_request(gpu):
    profile = load_profile(f"{gpu}_bound")
    rows = profile.rows
    assert rows.context == 512 and set(rows.passes) == {"ar", "block"}
    assert set(rows.verify) == set(profile.target_ms_per_token)
    for name, table in rows.verify.items():
        one = table.at([1], list(profile.verify_ms[name]), [512]).ravel()
        assert one == pytest.approx([verification_ms(profile, name, k) for k in profile.verify_ms[name]], rel=1e-4)
        assert np.all(np.diff(table.ms_RKX, axis=0) >= 0) and np.all(np.diff(table.ms_RKX, axis=1) >= 0)


def test_a_batch_reads_weights_once_and_multiplies_for_every_row():
    machine, model = Machine(GPUS["H100"], BYTES["bfloat16"]), find_shape(TARGET, "Qwen2.5-7B")
    one, many = machine.pass_ms(model, 1, 512), machine.pass_ms(model, 1, 512, requests=64)
    kv_ms = 1e3 * 2 * model.kv_values_per_token * 513 / 3.35e12
    assert many - one == pytest.approx(63 * (kv_ms + 1e3 * 2 * 3584 / 3.35e12))  # 64 contexts, and 64 embeddings
    assert machine.pass_ms(model, 8, 0, requests=256) == pytest.approx(2 * machine.pass_ms(model, 8, 0, requests=128))
    # 80 GB less 15.2 GB of weights, 56 kB a token: 2 x 28 layers x 4 heads x 128 numbers
    assert machine.kv_tokens(model) == int((80e9 - 2 * model.num_parameters) // (2 * 28 * 4 * 128 * 2))


def test_a_profile_that_grows_keeps_its_rows_and_what_families_cost(tmp_path, monkeypatch):
    """Targets are measured one after the other into one profile."""
    monkeypatch.setattr(latency, "WRITTEN_DIR", tmp_path)
    origin = {"measured_by_this_project": True, "engine": "e", "hardware": "h"}
    more = {
        "family_pass_ms": {"eagle3": 2.0},
        "trees": {"t": {"round_ms": {"8": 9.0}, "pass_ms": {"eagle3": {"8": 3.0}}}},
    }
    (tmp_path / "p.json").write_text(json.dumps({**PROFILE, "provenance": origin, **more}))
    flags = argparse.Namespace(write_profile="p", hardware="h")
    write_profile(flags, "e", TargetCost("u", 5.0, {}, {"1": 5.0}), None)
    grown = load_profile("p")
    assert grown.rows is not None and grown.rows.verify["t"] == read(tmp_path, PROFILE).rows.verify["t"]
    assert grown.family_pass_ms == {"eagle3": 2.0} and set(grown.verify_ms) == {"t", "u"}
    assert grown.trees == {"t": TreeCosts({8: 9.0}, {"eagle3": {8: 3.0}})}
