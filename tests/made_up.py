"""Made-up traces: random texts and drafters without any network, whose chains are real ones all the same.

A block drafter's "model" is a hash of what it would see, so that equal states give equal passes; it guesses the text
with a given skill.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from specdec.decoding.chain_blocks import Answer, ChainBlocks
from specdec.decoding.chains import Chain, Chains
from specdec.decoding.denoising import Denoising, masked_positions
from specdec.decoding.offers import Levels, Slots
from specdec.decoding.trees import Candidates, scored_tree
from specdec.drafters.token_drafter import token_chain
from specdec.records.identity import Identity
from specdec.traces.trace import Trace, num_prefixes

MASK_ID = 99
STOP_ID = 98


def made_up_trace(
    seed: int,
    *,
    num_tokens: int = 6,
    chain_len: int = 5,
    skill: float = 0.7,
    vocab_size: int = 3,
    block_size: int = 4,
    max_new_tokens: int | None = None,
    thresholds: tuple[float, ...] = (0.5,),
) -> Trace:
    """A trace of `num_tokens` tokens; the text ends with a stop token if the budget is larger."""
    rng = random.Random(f"trace {seed}")
    prompt = [rng.randrange(vocab_size) for _ in range(rng.randint(1, 2 * block_size))]
    text = [rng.randrange(vocab_size) for _ in range(num_tokens)]
    budget = num_tokens if max_new_tokens is None else max_new_tokens
    if budget > num_tokens:
        text[-1] = STOP_ID
    model = _Model(seed, prompt + text, skill, vocab_size)
    made = {"ar": Chains.pack("ar", {"drafter_sha256": "a"}, chain_len, _ar(model, prompt, text, budget, chain_len))}
    for threshold in thresholds:
        how = Denoising(threshold, block_size, 2, MASK_ID, frozenset({STOP_ID}))
        prefixes = range(len(prompt), len(prompt) + num_prefixes(len(text), budget))
        chains = [_block_chain(model, (prompt + text)[:at], how, chain_len) for at in prefixes]
        identity = {"drafter_sha256": "d", "mask_id": MASK_ID, "block_size": block_size, "small_block_size": 2}
        name = f"dllm_{threshold}"
        made[name] = Chains.pack(name, identity, chain_len, chains)
    settings = {"prompt_sha256": f"p{seed}", "stop_ids": [STOP_ID], "dtype": "float32", "device": "cpu"}
    identity = Identity("bundled", "bundled", seed, "plain", budget, settings)
    return Trace(identity, {"made": "up"}, {"question": "?"}, prompt, text, [1.0] * len(text), "text", made)


def made_up_candidates(rng: np.random.Generator, truth: Sequence[int], num_slots: int, top_k: int) -> Candidates:
    """Slots over a vocabulary of `top_k` + 4 tokens in which the true token is probable now and then."""
    vocab = top_k + 4
    probs = rng.dirichlet([0.3] * vocab, num_slots)
    for slot, token in enumerate(truth[:num_slots]):
        if rng.random() < 0.7 and token < vocab:
            probs[slot] = 0.4 * probs[slot]
            probs[slot, token] += 0.6
    tokens = np.argsort(-probs, axis=1, kind="stable")[:, :top_k]
    return Candidates.of(tokens, np.log(np.maximum(np.take_along_axis(probs, tokens, 1), 1e-9)))


def with_slots(trace: Trace, name: str, *, num_slots: int = 5, top_k: int = 4) -> Trace:
    """The same trace with the candidates of slots after every prefix."""
    rng, text = np.random.default_rng(trace.question_id), trace.output_tokens
    made = [made_up_candidates(rng, text[at:], num_slots, top_k) for at in range(trace.num_prefixes)]
    return replace(trace, offers=trace.offers | {name: Slots.pack(name, {"drafter_sha256": "s"}, made)})


def with_levels(trace: Trace, name: str, *, depth: int = 4, top_k: int = 3) -> Trace:
    """The same trace with trees that grew level by level after every prefix."""
    rng, text = np.random.default_rng(trace.question_id + 1), trace.output_tokens
    made = []
    for at in range(trace.num_prefixes):

        def expand(paths: Sequence[tuple[int, ...]], at: int = at) -> Candidates:
            rows = [made_up_candidates(rng, text[at + len(path) :], 1, top_k) for path in paths]
            return Candidates(*(np.concatenate([getattr(row, key) for row in rows]) for key in vars(rows[0])))

        made.append(scored_tree(expand, depth, top_k, stop_ids=trace.stop_ids))
    return replace(trace, offers=trace.offers | {name: Levels.pack(name, {"drafter_sha256": "l"}, depth, made)})


def ended(chain: Chain, stop_ids: frozenset[int]) -> Chain:
    """A chain up to the pass that shows a stop token, where every draft ends."""
    last = next((at for at, known in enumerate(chain.known) if stop_ids.intersection(chain.tokens[:known])), None)
    if last is None:
        return chain
    length, end = chain.known[last], chain.recorded_ends[last]
    of_tokens = chain.tokens[:length], chain.confidences[:length], chain.unmasked_by[:length]
    return Chain(*of_tokens, chain.is_commit[:last], chain.num_recorded[:last], chain.recorded[:end])


class _Model:
    """Predicts the text's own token with probability `skill`, else any; the same again for the same sight."""

    def __init__(self, seed: int, text: list[int], skill: float, vocab_size: int) -> None:
        self.seed, self.text, self.skill, self.vocab_size = seed, text, skill, vocab_size

    def predict(self, position: int, sight: object) -> tuple[int, float]:
        rng = random.Random(f"{self.seed} {position} {sight}")
        is_right = rng.random() < self.skill and position < len(self.text)
        token = self.text[position] if is_right else rng.randrange(self.vocab_size)
        spread = rng.random()
        return token, round(0.3 + 0.7 * spread if is_right else spread, 3)


def _ar(model: _Model, prompt: list[int], text: list[int], budget: int, chain_len: int) -> list[Chain]:
    chains = []
    for emitted in range(num_prefixes(len(text), budget)):
        ids, confidences = prompt + text[:emitted], []
        begin = len(ids)
        while len(confidences) < chain_len and not (confidences and ids[-1] == STOP_ID):
            token, confidence = model.predict(len(ids), tuple(ids))
            ids.append(token)
            confidences.append(confidence)
        chains.append(token_chain(ids[begin:], confidences))
    return chains


def _block_chain(model: _Model, prefix: list[int], how: Denoising, chain_len: int) -> Chain:
    whole = len(prefix) // how.block_size * how.block_size
    path = tuple(range(whole // how.block_size))
    blocks = ChainBlocks(prefix, how, path, model.predict(whole, tuple(prefix[:whole])))
    while blocks.num_known < chain_len:
        start, masked = len(blocks.path) * how.block_size, masked_positions(blocks.block, how.small_block_size)
        sight = tuple(blocks.ids)
        if masked:
            guesses = [model.predict(start + i, sight) for i in masked]
            blocks.take(Answer(masked, [token for token, _ in guesses], [c for _, c in guesses]))
        else:
            token, confidence = model.predict(start + how.block_size, sight)
            blocks.take(Answer([], [token], [confidence], page=len(blocks.path)))
    return blocks.chain()
