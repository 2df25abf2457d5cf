"""Traces on disk: what is written is read again; what is damaged, foreign or of other settings is named."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_trace
from samples import with_settings

from specdec.drafters.ar import ArDynamic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import CostAware, DllmStatic, FailFast
from specdec.drafters.plain import Plain
from specdec.errors import UserError
from specdec.records.identity import LIVE
from specdec.records.record import record_path
from specdec.traces.trace import Trace, find_traces, load_matching, load_trace, save_trace, trace_path


def same(left: Trace, right: Trace) -> bool:
    """Equal in everything; arrays compare by value and type."""
    plain = [{k: v for k, v in vars(one).items() if k != "chains"} for one in (left, right)]
    if plain[0] != plain[1] or list(left.chains) != list(right.chains):
        return False
    pairs = zip(left.chains.values(), right.chains.values(), strict=True)
    return all(a.chains == b.chains and (a.identity, a.chain_len) == (b.identity, b.chain_len) for a, b in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_round_trip(seed: int, tmp_path: Path) -> None:
    trace = made_up_trace(seed, num_tokens=20, chain_len=12, thresholds=(0.2, 0.9), block_size=8)
    path = trace_path(tmp_path, trace.identity)
    save_trace(trace, path)
    assert path == tmp_path / "traces" / "bundled" / "bundled" / str(seed) / "20.npz"
    assert same(load_trace(path), trace) and load_trace(path).chains["ar"].chains == trace.chains["ar"].chains
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_confidences_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    """A stop rule compares them: they are float32, and stay what they were as Python floats."""
    trace = made_up_trace(1)
    values = trace.chains["ar"].arrays["confidences"]
    values[0] = np.float32(0.45)
    save_trace(trace, tmp_path / "one.npz")
    assert load_trace(tmp_path / "one.npz").chains["ar"].chains[0].confidences[0] == float(np.float32(0.45)) != 0.45


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save_trace(made_up_trace(1), tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        assert all(arrays[key].dtype != object for key in arrays)


def rewritten(data: bytes, **changes: object) -> bytes:
    """The file with arrays replaced (None: removed)."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {**stored, **changes}
    out = io.BytesIO()
    np.savez(out, **{key: value for key, value in arrays.items() if value is not None})
    return out.getvalue()


def meta(data: bytes, **changes: object) -> np.ndarray:
    with np.load(io.BytesIO(data)) as stored:
        text = json.dumps(json.loads(stored["meta"].tobytes()) | changes)
    return np.frombuffer(text.encode(), np.uint8)


def test_a_trace_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It kept confidences as float32."""
    trace, path = made_up_trace(1), tmp_path / "one.npz"
    data = trace.to_bytes()
    with np.load(io.BytesIO(data)) as stored:
        narrow = {key: stored[key].astype(np.float32) for key in stored if stored[key].dtype == np.float64}
    assert len(narrow) == 2 * len(trace.chains)
    path.write_bytes(rewritten(data, meta=meta(data, version=1), **narrow))
    found = load_trace(path).chains["dllm_0.5"].chains[0]
    assert found.tokens == trace.chains["dllm_0.5"].chains[0].tokens
    assert found.recorded == [float(np.float32(one)) for one in trace.chains["dllm_0.5"].chains[0].recorded]


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-20],
    "no archive": lambda data: b"\x80\x04." + data[3:],
    "another version": lambda data: rewritten(data, meta=meta(data, version=3)),
    "no meta": lambda data: rewritten(data, meta=None),
    "an unknown part": lambda data: rewritten(data, meta=meta(data, extra=1)),
    "an array is missing": lambda data: rewritten(data, **{"0_tokens": None}),
    "an array is short": lambda data: rewritten(data, **{"0_tokens": np.zeros(1, np.int32)}),
    "an array of another type": lambda data: rewritten(data, **{"0_recorded": np.zeros(0, np.int32)}),
    "objects": lambda data: rewritten(data, gaps=np.array([print], object)),
    "one gap too few": lambda data: rewritten(data, gaps=np.zeros(1, np.float32)),
    "a pass that is not there": lambda data: rewritten(
        data, **{"0_unmasked_by": np.full_like(np.load(io.BytesIO(data))["0_unmasked_by"], 999)}
    ),
    "no tokens": lambda data: rewritten(data, meta=meta(data, prompt_ids=[])),
    "tokens after a stop": lambda data: rewritten(data, meta=meta(data, output_tokens=[1, 0, 98, 1, 1, 0])),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    save_trace(made_up_trace(1), path)
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    with pytest.raises(UserError, match=r"one\.npz is not a whole trace .*record again"):
        load_trace(path)


def test_other_settings_are_named(tmp_path: Path) -> None:
    trace, path = made_up_trace(1), tmp_path / "one.npz"
    assert load_matching(path, trace.identity) is None
    save_trace(trace, path)
    assert same(load_matching(path, trace.identity), trace)
    for key, value in (("prompt_sha256", "other"), ("target_sha256", "other"), ("dtype", "bfloat16")):
        with pytest.raises(UserError, match=f"{key}: stored .*, asked '{value}'"):
            load_matching(path, with_settings(trace.identity, {key: value}))


def test_a_trace_that_does_not_say_where_it_is_from_is_read(tmp_path: Path) -> None:
    """It is older than the word."""
    trace, path = made_up_trace(1), tmp_path / "one.npz"
    identity = trace.identity.to_builtins()
    assert identity.pop("origin") == LIVE
    data = trace.to_bytes()
    path.write_bytes(rewritten(data, meta=meta(data, identity=identity)))
    assert same(load_trace(path), trace)


def test_traces_are_found_in_the_order_of_their_questions(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        trace = made_up_trace(seed)
        save_trace(trace, trace_path(tmp_path, trace.identity))
    assert [load_trace(path).question_id for path in find_traces(tmp_path)] == [2, 9, 10]
    assert find_traces(path := trace_path(tmp_path, made_up_trace(9).identity)) == [path]
    with pytest.raises(UserError, match="holds no traces: record some with failfast.py --record"):
        find_traces(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read"):
        load_trace(tmp_path / "nowhere.npz")


def test_traces_and_records_do_not_meet(tmp_path: Path) -> None:
    identity = made_up_trace(1).identity
    assert (
        trace_path(tmp_path, identity).parts[-4:-1]
        == record_path(tmp_path, "bundled", "bundled", 1, "x", 6).parts[-5:-2]
    )
    assert tmp_path / "pickles" not in trace_path(tmp_path, identity).parents


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (Plain(), None),
        (ArDynamic(0.4, 60, 10), "ar"),
        (DllmStatic(0.9, 8), "dllm_0.9"),
        (FailFast(1.0, 0.45, 60, 10), "dllm_1.0"),
        (CostAware(0.05, 60, "Big@P"), "dllm_0.05"),
    ],
)
def test_which_chains_a_drafter_needs(spec: Spec, name: str | None) -> None:
    assert spec.chains_name == name
