"""Taps: what a drafter is given of the target equals transformers' own hidden states of one uncached forward.

In both backends, of the committed rows alone, over rounds with rejections; and a run without taps does nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import random_ids, toy_model

from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.sampled import SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification
from specdec.errors import UserError
from specdec.models.graph import graph_lm
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.weights import unsupported
from specdec.models.lm import CachedLM

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
BACKENDS = {"eager": CachedLM, "graph": GraphLM}
TAPS = [(0,), (1,), (1, 0), (1, 1)]


@pytest.fixture(
    scope="module", params=["qwen2", "llama", "qwen2-tied", "mistral", "qwen3", "qwen3_moe", "phi3", "gemma3_text"]
)
def model(request: pytest.FixtureRequest, one_thread: None) -> torch.nn.Module:
    return toy_model(request.param.partition("-")[0], 61, scale=4.0, tie="tied" in request.param)


@pytest.fixture(params=BACKENDS)
def lm(request: pytest.FixtureRequest, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> CachedLM:
    """Toy heads have 8 values; short chunks and caches show what happens at their ends."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(graph_lm, "TOKEN_COUNTS", (1, 2, 4, 8, 16, 32))
    monkeypatch.setattr(graph_lm, "MAX_TOKENS", 32)
    monkeypatch.setattr(graph_lm, "INITIAL_CAPACITY", 32)
    if request.param == "graph" and (reason := unsupported(model.config)):
        pytest.skip(f"the graph backend does not run {reason}")
    return BACKENDS[request.param](model)


def hidden_states(model: torch.nn.Module, tokens: Sequence[int], taps: Sequence[int]) -> torch.Tensor:
    """By transformers alone: output l is its hidden state l + 1, but the last, which it gives after the final norm."""
    last = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, given: last.append(given[0][0]))
    try:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([list(tokens)]), use_cache=False, output_hidden_states=True)
    finally:
        handle.remove()
    outputs = [states[0] for states in out.hidden_states[1:-1]] + last
    return torch.cat([outputs[tap] for tap in taps], dim=-1)


class Watcher(Drafter):
    """Drafts what the target will write, wrong from a random place on, and keeps what it is given."""

    def __init__(self, taps: Sequence[int], text: Sequence[int], seed: int) -> None:
        self.taps, self.text, self.rng = taps, text, random.Random(seed)
        self.given: list[torch.Tensor | None] = []
        self.accepted: set[bool] = set()
        self.num_known: list[tuple[int, int]] = []

    def reset(self, features: torch.Tensor | None = None) -> None:
        self.given = [features]

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        self.num_known.append((len(prefix_ids), sum(len(part) for part in self.given if part is not None)))
        tokens = list(self.text[len(prefix_ids) :][: min(budget, self.rng.randint(0, 9))])
        wrong = self.rng.randint(0, 4)
        return Draft([token if at < wrong else (token + 1) % 64 for at, token in enumerate(tokens)])

    def observe(self, verification: Verification) -> None:
        self.given.append(verification.features)


@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_features_are_the_hidden_states_of_the_committed_rows(lm: CachedLM, taps: tuple[int, ...]) -> None:
    for seed, prompt_len in enumerate((1, 33, 70)):
        prompt = random_ids(seed, prompt_len)
        plain = speculate(Target(lm), Watcher((), [], 0), prompt, max_new_tokens=40, stop_ids=())
        text = [*prompt, *(token for turn in plain for token in turn.emitted_tokens)]
        drafter = Watcher(taps, text, seed)
        rounds = speculate(Target(lm), drafter, prompt, max_new_tokens=40, stop_ids=())
        assert [*prompt, *(token for turn in rounds for token in turn.emitted_tokens)] == text
        assert {0} < {turn.accepted_len for turn in rounds}
        assert any(turn.draft_len > turn.accepted_len for turn in rounds)
        assert all(known == prefix_len - 1 for prefix_len, known in drafter.num_known)
        features = torch.cat(drafter.given)
        want = hidden_states(lm.model, text, taps)[: len(features)]
        torch.testing.assert_close(features, want, **TOLERANCE)


def test_a_target_that_samples_gives_them_too(lm: CachedLM) -> None:
    drafter, prompt = Watcher((1,), random_ids(5, 60), 3), random_ids(6, 12)
    target = SampledTarget(lm, Sampler(Warp(0.8), "x"))
    rounds = speculate(target, drafter, prompt, max_new_tokens=20, stop_ids=())
    text = [*prompt, *(token for turn in rounds for token in turn.emitted_tokens)]
    features = torch.cat(drafter.given)
    torch.testing.assert_close(features, hidden_states(lm.model, text, (1,))[: len(features)], **TOLERANCE)


@pytest.mark.parametrize("taps", [(2,), (0, 7), (-1,)], ids=str)
def test_a_layer_that_is_not_there_is_one_clear_line(lm: CachedLM, taps: tuple[int, ...]) -> None:
    for prompt in ([5], [5, 6, 7]):
        with pytest.raises(
            UserError, match=r"has the layers 0 to 1, and a drafter reads the output of layer -?\d"
        ) as e:
            Target(lm).start(prompt, taps)
        assert "\n" not in str(e.value)
    assert lm.forward([3, 4]).shape[0] == 2  # and the model goes on


def test_taps_of_one_pass_are_not_the_next_ones(lm: CachedLM) -> None:
    lm.forward(random_ids(1, 5), taps=(0,))
    lm.commit(3)
    assert lm.features.shape == (3, 32)
    lm.forward(random_ids(2, 5))
    lm.commit(2)
    assert lm.features is None
    lm.predict(random_ids(3, 4), taps=(0, 1))
    lm.rollback(2)
    lm.forward(random_ids(4, 4), taps=(1,))
    lm.commit(0)
    assert lm.features.shape == (0, 32)


class Counted(TorchDispatchMode):
    """Counts operations of torch, and what of them brings numbers to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _operations(lm: CachedLM, taps: Sequence[int]) -> list[str]:
    target = Target(lm)
    target.start(random_ids(8, 9), taps)
    target.verify(Draft([1, 2, 3]))
    with Counted() as counted:
        target.verify(Draft([4, 5, 6]))
    return counted.names


def test_a_run_without_taps_makes_no_extra_work(lm: CachedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook, no buffer, and the same operations as before there were taps; with taps, a copy or two on the device."""
    hooked = []
    register = torch.nn.Module.register_forward_hook
    monkeypatch.setattr(
        torch.nn.Module, "register_forward_hook", lambda self, *a, **k: hooked.append(self) or register(self, *a, **k)
    )
    without = _operations(lm, ())
    assert not hooked and not getattr(getattr(lm, "_buffers", None), "tapped", {})
    again, tapped = _operations(lm, ()), _operations(lm, (0, 1))
    assert without == again
    computing = {"cat", "mul", "clone"}
    extra = len([name for name in tapped if name in computing]) - len([name for name in without if name in computing])
    assert extra == (1 if type(lm) is CachedLM else 3)
    to_host = {"_local_scalar_dense", "item", "_to_copy"}
    assert [name for name in tapped if name in to_host] == [name for name in without if name in to_host]


def test_a_drafter_without_taps_is_given_nothing(lm: CachedLM) -> None:
    drafter = Watcher((), [], 0)
    speculate(Target(lm), drafter, [1, 2, 3], max_new_tokens=4, stop_ids=())
    assert set(drafter.given) == {None}
