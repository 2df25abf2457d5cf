"""The oracle for generate.py: block-diffusion drafting written down once more, without any cache.

A draft unfolds pass by pass, whoever predicts the tokens; when it ends is asked of what has unfolded. It shares no code
with generate.py and specdec.decoding. Predictions come from the raw Hugging Face model, one forward over the whole
sequence under an explicit block mask a pass (`of_model`; slow on purpose), or from whatever a test makes up. It counts
the passes of a fresh cache only: `prefill` is what a first call pays.

An outcome also has a `margin`: how near the closest comparison of floats was to going the other
way. Below about 1e-6 two right implementations may differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch


@dataclasses.dataclass(frozen=True)
class Rules:
    """What all three functions are told about tokens and blocks."""

    mask_id: int
    stop_ids: frozenset[int]
    threshold: float
    block_size: int = 32
    small_block_size: int = 8


@dataclasses.dataclass(frozen=True)
class Window:
    """FailFast's side: tau, N, N_max, the rule, and the tail of last round's draft."""

    first: int
    tau: float
    step: int
    maximum: int
    rule: str = "published"
    rejected: tuple[int, ...] = ()


@dataclasses.dataclass
class Outcome:
    """A finished draft; `margin` is the distance of the closest decision."""

    tokens: list[int]
    confidences: list[float]
    prefill: int
    denoise: int
    commit: int
    stop_reason: str
    margin: float
    reused: int = 0


def block_mask(length: int, block_size: int) -> torch.Tensor:
    """[1, 1, length, length], True where the row may look: own block and all earlier ones."""
    block_of = torch.arange(length) // block_size
    return (block_of[None, :] <= block_of[:, None])[None, None]


def full_logits(model: torch.nn.Module, tokens: Sequence[int], block_size: int) -> torch.Tensor:
    """[len(tokens), V] logits of the raw model over the whole sequence under the block mask, in float64."""
    length = len(tokens)
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([list(tokens)]),
            attention_mask=block_mask(length, block_size),
            position_ids=torch.arange(length)[None],
            use_cache=False,
        )
    return output.logits[0].double()


@lru_cache(maxsize=256)
def _known_logits(model: torch.nn.Module, tokens: tuple[int, ...], block_size: int) -> torch.Tensor:
    """For a case that is asked again under other stop tokens, or another tail: it unfolds alike for a while."""
    return full_logits(model, tokens, block_size)


@dataclasses.dataclass(frozen=True)
class Guess:
    """The likeliest token for a position, its probability, and by how much that exceeds the next token's."""

    token: int
    probability: float
    lead: float = 1.0


# What a predictor is shown: all positions up to the end of a block, masks among them; and the positions asked for.
Predictor = Callable[[Sequence[int], Sequence[int]], list[Guess]]


def of_model(model: torch.nn.Module, rules: Rules) -> Predictor:
    """The raw model's predictions; the mask is none of them."""

    def predict(shown: Sequence[int], positions: Sequence[int]) -> list[Guess]:
        logits = _known_logits(model, tuple(shown), rules.block_size)[[position - 1 for position in positions]]
        logits[:, rules.mask_id] = -torch.inf
        (values, tokens) = torch.softmax(logits, dim=-1).topk(2)
        rows = zip(tokens[:, 0].tolist(), values.tolist(), strict=True)
        return [Guess(token, best, best - second) for token, (best, second) in rows]

    return predict


class Unfolding:
    """What is known of a draft after each of its passes: iterate to make the next one, whose kind is yielded; the first
    is "start", before any but a prefill. Never ends by itself."""

    def __init__(self, predict: Predictor, prefix: Sequence[int], rules: Rules) -> None:
        self.predict, self.rules, self.prefix_len = predict, rules, len(prefix)
        self.text: list[int | None] = list(prefix)  # None: still a mask
        self.moments: dict[int, float] = {}  # position -> probability when its token was chosen
        self.seen: list[float] = []  # every confidence of every denoising pass
        self.passes = {"prefill": 0, "denoise": 0, "commit": 0}
        self.margin = float("inf")

    def __iter__(self) -> Iterator[str]:
        size = self.rules.block_size
        if self.prefix_len >= size:
            self.passes["prefill"] += 1
        if self.prefix_len % size == 0:
            self._begin_block()
        self._fill_up_with_masks()
        yield "start"
        while True:
            kind = "denoise" if None in self.text else "commit"
            self.passes[kind] += 1
            self._denoise() if kind == "denoise" else self._begin_block()
            self._fill_up_with_masks()
            yield kind

    def run(self) -> list[int]:
        """The tokens known in a row after the prefix."""
        after = self.text[self.prefix_len :]
        return after[: after.index(None)] if None in after else after

    def note(self, distance: float) -> None:
        self.margin = min(self.margin, distance)

    def _fill_up_with_masks(self) -> None:
        self.text += [None] * (-len(self.text) % self.rules.block_size)

    def _begin_block(self) -> None:
        """The clean text so far predicts the token after it: no threshold, and it is not among the confidences."""
        (guess,) = self.predict(self.text, [len(self.text)])
        self.text.append(None)
        self._choose(len(self.text) - 1, guess)

    def _denoise(self) -> None:
        """One pass over the block: the leftmost sub-block with a mask gets what is sure, and at least the surest."""
        rules, sub = self.rules, self.rules.small_block_size
        leftmost = self.text.index(None)
        end = leftmost + sub - (leftmost % rules.block_size) % sub
        holes = [at for at in range(leftmost, end) if self.text[at] is None]
        guesses = self.predict([rules.mask_id if token is None else token for token in self.text], holes)
        sure = [guess.probability for guess in guesses]
        self.seen += sure
        if 0 < rules.threshold < 1:  # nothing can be above one, or not above zero
            self.note(min(abs(probability - rules.threshold) for probability in sure))
        if len(sure) > 1 and max(sure) <= rules.threshold:
            first, second = sorted(sure, reverse=True)[:2]
            self.note(first - second)
        for index, (at, guess) in enumerate(zip(holes, guesses, strict=True)):
            if guess.probability > rules.threshold or index == sure.index(max(sure)):
                self._choose(at, guess)

    def _choose(self, at: int, guess: Guess) -> None:
        self.note(guess.lead)
        self.text[at], self.moments[at] = guess.token, guess.probability

    def outcome(self, draft: list[int], confidences: list[float], reason: str) -> Outcome:
        return Outcome(draft, confidences, *self.passes.values(), reason, self.margin)

    def moments_of(self, count: int) -> list[float]:
        return [self.moments[self.prefix_len + index] for index in range(count)]


def static_draft(model: torch.nn.Module | Predictor, prefix: Sequence[int], num_tokens: int, rules: Rules) -> Outcome:
    """Drafts until the next `num_tokens` tokens are known; `generate` is this with all tokens at once."""
    unfolding = Unfolding(_predictor(model, rules), prefix, rules)
    for _ in unfolding:
        run = unfolding.run()[:num_tokens]
        draft = _to_stop(run, rules.stop_ids)
        if draft and draft[-1] in rules.stop_ids:
            return unfolding.outcome(draft, unfolding.moments_of(len(draft)), "stop_token")
        if len(run) == num_tokens:
            return unfolding.outcome(run, unfolding.moments_of(num_tokens), "length")
    raise AssertionError("an unfolding has no end")


def failfast_draft(model: torch.nn.Module | Predictor, prefix: Sequence[int], window: Window, rules: Rules) -> Outcome:
    """Algorithm 1 of arXiv 2512.20573, as published or with the strict rule, and the reuse of its Appendix E."""
    unfolding = Unfolding(_predictor(model, rules), prefix, rules)
    is_strict = window.rule == "strict"
    longest = window.maximum if is_strict else 10**9
    size = min(window.first, longest)
    for kind in unfolding:
        run, reason = unfolding.run(), None
        if kind == "denoise" and len(run) >= size:
            tested = unfolding.moments_of(size) if is_strict else list(unfolding.seen)
            if window.tau > 0:  # nothing can be below zero
                unfolding.note(min(abs(confidence - window.tau) for confidence in tested))
            if min(tested) < window.tau:
                reason = "low_confidence"
            elif len(tested) >= window.maximum:
                reason = "max_len"
            else:
                size = min(size + window.step, longest)
        if reason is None and any(token in rules.stop_ids for token in run):
            reason = "stop_token"
        if reason is not None:
            draft = _to_stop(run[:size], rules.stop_ids)
            kept = unfolding.moments_of(len(draft)) if is_strict else list(unfolding.seen)
            outcome = unfolding.outcome(draft, kept, reason)
            return _with_reuse(outcome, window.rejected, rules) if reason == "low_confidence" else outcome
    raise AssertionError("an unfolding has no end")


def _predictor(model: torch.nn.Module | Predictor, rules: Rules) -> Predictor:
    return of_model(model, rules) if isinstance(model, torch.nn.Module) else model


def _to_stop(tokens: list[int], stop_ids: frozenset[int]) -> list[int]:
    """The first stop token is the last that is kept."""
    stops = [index for index, token in enumerate(tokens) if token in stop_ids]
    return tokens[: stops[0] + 1] if stops else tokens


def _with_reuse(outcome: Outcome, rejected: Sequence[int], rules: Rules) -> Outcome:
    """Appends what followed the longest possible end of the draft in `rejected`, up to a stop token."""
    draft, tail = outcome.tokens, list(rejected)
    places = (
        (length, at)
        for length in range(len(draft), 1, -1)
        for at in range(len(tail) - length + 1)
        if tail[at : at + length] == draft[-length:]
    )
    length, at = next(places, (0, len(tail)))
    outcome.tokens = _to_stop(draft + tail[at + length :], rules.stop_ids)
    outcome.reused = len(outcome.tokens) - len(draft)
    return outcome
