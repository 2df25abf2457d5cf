"""The oracle for generate.py: block-diffusion drafting written down once more, without any cache.

Every pass is one forward of the raw Hugging Face model over the whole sequence, under an explicit
block mask; nothing is carried from pass to pass but the tokens. It shares no code with generate.py
and specdec.models.lm, and it is slow on purpose. It counts the passes of a fresh cache only: `prefill` is
what a first call pays.

An outcome also has a `margin`: how near the closest comparison of floats was to going the other
way. Below about 1e-6 two right implementations may differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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


class _Canvas:
    """The sequence as far as it is known, the passes so far, and everything that was recorded on the way."""

    def __init__(self, model: torch.nn.Module, prefix: Sequence[int], rules: Rules) -> None:
        self.model, self.rules, self.start = model, rules, len(prefix)
        self.known: dict[int, int] = dict(enumerate(prefix))  # position -> token
        self.moment: dict[int, float] = {}  # position -> probability when it was chosen
        self.seen: list[float] = []  # every confidence looked at, pass by pass
        self.prefill = self.denoise = self.commit = 0
        self.margin = float("inf")
        self.block = len(prefix) // rules.block_size  # the block being filled
        if self.block > 0:
            self.prefill = 1
            if len(prefix) % rules.block_size == 0:
                self._predict_first_of_block()

    # ---- what is known -------------------------------------------------------------------------------------

    def run(self, window: int) -> list[int]:
        """The known tokens after the prefix, up to the first gap, at most `window`."""
        tokens: list[int] = []
        while len(tokens) < window and self.start + len(tokens) in self.known:
            tokens.append(self.known[self.start + len(tokens)])
        return tokens

    def up_to_stop(self, window: int) -> list[int] | None:
        """The draft if a stop token ends it inside the window, else None."""
        run = self.run(window)
        hits = [index for index, token in enumerate(run) if token in self.rules.stop_ids]
        return run[: hits[0] + 1] if hits else None

    def moments(self, count: int) -> list[float]:
        return [self.moment[self.start + index] for index in range(count)]

    # ---- passes --------------------------------------------------------------------------------------------

    def one_pass(self) -> None:
        """Denoise the current block, or commit it when there is nothing left to denoise."""
        first = self.block * self.rules.block_size
        holes = [p for p in range(first, first + self.rules.block_size) if p not in self.known]
        if holes:
            self._denoise(first, holes)
        else:
            self.block += 1
            self.commit += 1
            self._predict_first_of_block()

    def _predict_first_of_block(self) -> None:
        """The last output of the clean sequence before the block predicts the block's first token."""
        first = self.block * self.rules.block_size
        clean = [self.known[position] for position in range(first)]
        self._write(first, full_logits(self.model, clean, self.rules.block_size)[-1])

    def _denoise(self, first: int, holes: list[int]) -> None:
        rules = self.rules
        self.denoise += 1
        noisy = [self.known.get(p, rules.mask_id) for p in range(first + rules.block_size)]
        logits = full_logits(self.model, noisy, rules.block_size)
        current = (holes[0] - first) // rules.small_block_size
        here = [p for p in holes if (p - first) // rules.small_block_size == current]
        probabilities = [float(self._distribution(logits[p - 1]).max()) for p in here]
        self.seen += probabilities
        self._note_margins(probabilities)
        surest = here[probabilities.index(max(probabilities))]
        for p, probability in zip(here, probabilities, strict=True):
            if p == surest or probability > rules.threshold:
                self._write(p, logits[p - 1])

    def _distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """[V] probabilities, nothing of them on the mask."""
        allowed = logits.clone()
        allowed[self.rules.mask_id] = -torch.inf
        return torch.softmax(allowed, dim=-1)

    def _write(self, position: int, logits: torch.Tensor) -> None:
        """The likeliest token goes to `position`, for good."""
        (best, second), (token, _) = (part.tolist() for part in self._distribution(logits).topk(2))
        self.note(best - second)
        self.known[position], self.moment[position] = token, best

    def _note_margins(self, probabilities: list[float]) -> None:
        """How near a position came to crossing the threshold, or (if none crossed) to being the surest."""
        threshold = self.rules.threshold
        if 0 < threshold < 1:  # nothing can be above one, or not above zero
            self.note(min(abs(p - threshold) for p in probabilities))
        if len(probabilities) > 1 and max(probabilities) <= threshold:
            first, second = sorted(probabilities, reverse=True)[:2]
            self.note(first - second)

    def note(self, distance: float) -> None:
        self.margin = min(self.margin, distance)

    def outcome(self, tokens: list[int], confidences: list[float], reason: str) -> Outcome:
        return Outcome(tokens, confidences, self.prefill, self.denoise, self.commit, reason, self.margin)


def static_draft(model: torch.nn.Module, prefix: Sequence[int], num_tokens: int, rules: Rules) -> Outcome:
    """Drafts until the next `num_tokens` tokens are known; `generate` is this with all tokens at once."""
    canvas = _Canvas(model, prefix, rules)
    while True:
        stopped = canvas.up_to_stop(num_tokens)
        if stopped is not None:
            return canvas.outcome(stopped, canvas.moments(len(stopped)), "stop_token")
        if len(canvas.run(num_tokens)) == num_tokens:
            return canvas.outcome(canvas.run(num_tokens), canvas.moments(num_tokens), "length")
        canvas.one_pass()


def failfast_draft(model: torch.nn.Module, prefix: Sequence[int], window: Window, rules: Rules) -> Outcome:
    """Algorithm 1 of arXiv 2512.20573, as published or with the strict rule, and the reuse of its Appendix E."""
    canvas = _Canvas(model, prefix, rules)
    is_strict = window.rule == "strict"
    size = min(window.first, window.maximum) if is_strict else window.first

    def recorded(count: int) -> list[float]:
        return canvas.moments(count) if is_strict else list(canvas.seen)

    stopped = canvas.up_to_stop(size)
    while stopped is None:
        canvas.one_pass()
        stopped = canvas.up_to_stop(size)
        if stopped is not None or len(canvas.run(size)) < size:
            continue
        confidences = recorded(size)
        if window.tau > 0:  # nothing can be below zero
            canvas.note(min((abs(confidence - window.tau) for confidence in confidences), default=1.0))
        if any(confidence < window.tau for confidence in confidences):
            outcome = canvas.outcome(canvas.run(size), confidences, "low_confidence")
            return _with_reuse(outcome, window.rejected, rules.stop_ids)
        if (size if is_strict else len(confidences)) >= window.maximum:
            return canvas.outcome(canvas.run(size), confidences, "max_len")
        size = min(size + window.step, window.maximum) if is_strict else size + window.step
        stopped = canvas.up_to_stop(size)
    return canvas.outcome(stopped, recorded(len(stopped)), "stop_token")


def _with_reuse(outcome: Outcome, rejected: Sequence[int], stop_ids: frozenset[int]) -> Outcome:
    """Appends what followed the longest possible end of the draft in `rejected`, up to a stop token."""
    draft, tail = outcome.tokens, list(rejected)
    places = (
        (length, at)
        for length in range(len(draft), 1, -1)
        for at in range(len(tail) - length + 1)
        if tail[at : at + length] == draft[-length:]
    )
    length, at = next(places, (0, len(tail)))
    for token in tail[at + length :]:
        outcome.tokens.append(token)
        outcome.reused += 1
        if token in stop_ids:
            break
    return outcome
