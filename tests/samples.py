"""Records for tests: a small fixed one, and Hypothesis strategies for consistent rounds and records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from specdec.records.identity import Identity
from specdec.records.record import Record, record_path, save_record
from specdec.records.rounds import Round

AR, FAILFAST = "ar_None_sf_3", "dllm_0.05_df_0.45_60_10"
tokens = st.integers(min_value=0, max_value=151_935)
milliseconds = st.floats(min_value=0.001, max_value=1e6, allow_nan=False)
confidences = st.lists(st.floats(min_value=0, max_value=1), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def make_round(prefix_len: int = 3, draft: tuple[int, ...] = (5, 6, 7), accepted: int = 2, **changes: Any) -> Round:
    """A static round of `draft` with a correction or bonus; `changes` replace fields."""
    values = {
        "prefix_len": prefix_len,
        "draft_tokens": list(draft),
        "confidences": [0.5] * len(draft),
        "num_prefill_passes": 0,
        "num_denoise_passes": len(draft),
        "num_commit_passes": 0,
        "stop_reason": "length" if draft else "none",
        "accepted_len": accepted,
        "next_token": 9,
        "draft_ms": 2.0 * len(draft),
        "verify_ms": 10.0,
    }
    return Round(**(values | changes))


def make_record(question_id: int = 0, drafter: str = AR, rounds: list[Round] | None = None, **changes: Any) -> Record:
    """A record of the bundled target; the default has two rounds and 5 output tokens."""
    identity = Identity("bundled", "gsm8k", question_id, drafter, 64, {"seed": 0, "dtype": "float32"})
    values = {
        "identity": identity,
        "provenance": {"python": "3.11"},
        "prompt_ids": [1, 2, 3],
        "raw_data": {"question": "What is 1 + 1?", "answer": None},
        "output_text": "two",
        "prefill_ms": 4.0,
        "rounds": [make_round(3), make_round(6, (8,), 1)] if rounds is None else rounds,
    }
    return Record(**(values | changes))


def with_settings(identity: Identity, settings: dict[str, Any]) -> Identity:
    """The same with these settings added."""
    return replace(identity, settings={**identity.settings, **settings})


def of_question(record: Record, **changes: Any) -> Record:
    """The same record of another target, dataset or question."""
    return replace(record, identity=replace(record.identity, **changes))


def make_plain(question_id: int = 0, num_tokens: int = 5, verify_ms: float = 10.0, **changes: Any) -> Record:
    """Plain decoding: every round emits one token."""
    rounds = [make_round(3 + i, (), 0, verify_ms=verify_ms, draft_ms=0.0) for i in range(num_tokens)]
    return make_record(question_id, "plain", rounds, **changes)


@st.composite
def rounds_after(draw: st.DrawFn, prefix_len: int) -> Round:
    draft = draw(st.lists(tokens, max_size=6))
    accepted = draw(st.integers(0, len(draft)))
    is_cut = accepted > 0 and draw(st.booleans())
    draft = draft[:accepted] if is_cut else draft
    return Round(
        prefix_len=prefix_len,
        draft_tokens=draft,
        asked_len=draw(st.integers(0, 9)),
        confidences=draw(confidences),
        num_prefill_passes=draw(st.integers(0, 1)),
        num_denoise_passes=draw(st.integers(0, 9)),
        num_commit_passes=draw(st.integers(0, 2)),
        stop_reason=draw(st.sampled_from(["length", "low_confidence", "max_len", "stop_token", "none"])),
        accepted_len=accepted,
        next_token=None if is_cut else draw(tokens.filter(lambda token: [token] != draft[accepted : accepted + 1])),
        draft_ms=draw(milliseconds),
        verify_ms=draw(milliseconds),
    )


@st.composite
def records(draw: st.DrawFn, question_id: int | None = None, drafter: str | None = None) -> Record:
    prompt = draw(st.lists(tokens, min_size=1, max_size=5))
    rounds: list[Round] = []
    length = len(prompt)
    for _ in range(draw(st.integers(1, 4))):
        rounds.append(draw(rounds_after(length)))
        length += len(rounds[-1].emitted_tokens)
    question_id = draw(st.integers(0, 3)) if question_id is None else question_id
    names = st.sampled_from(["plain", "ar_None_sf_8", "dllm_0.9_sf_8", FAILFAST])
    base = make_record(question_id, draw(names) if drafter is None else drafter, rounds)
    return Record(
        identity=with_settings(base.identity, draw(st.dictionaries(st.sampled_from(["seed", "note"]), scalars))),
        provenance=draw(st.dictionaries(st.text(max_size=5), trees, max_size=3)),
        prompt_ids=prompt,
        raw_data=draw(st.dictionaries(st.text(max_size=5), trees, max_size=3)),
        output_text=draw(st.text(max_size=30)),
        prefill_ms=draw(milliseconds),
        rounds=rounds,
    )


def saved(tmp_path: Path) -> tuple[Record, Path]:
    """A record in a results folder, and where it is."""
    record = make_record()
    path = record_path(tmp_path, "bundled", "gsm8k", 0, record.drafter_name, 64)
    save_record(record, path, "the text\n")
    return record, path
