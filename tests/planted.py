"""A made-up block-diffusion model without a network: what it predicts, and how surely, is planted by a seed.

Not tests; test_failfast_rule.py uses it. It answers the same whenever it is shown the same, as a network does, with
confidences that often stand exactly on a threshold, or are level.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from reference import Guess

MASK_ID = 99
STEPS = 20  # planted confidences are whole numbers of 1 / STEPS where they are not any number


class PlantedModel:
    """`stop_ids` turn up with a chance of `stop_rate` a token; `ease` (0..1): how often it is sure of itself."""

    def __init__(self, seed: int, *, stop_ids: Sequence[int] = (), stop_rate: float = 0.05, ease: float = 0.7) -> None:
        self.seed, self.stop_ids, self.stop_rate, self.ease = seed, list(stop_ids), stop_rate, ease

    def __call__(self, shown: Sequence[int], positions: Sequence[int]) -> list[Guess]:
        """The oracle's `Predictor`."""
        sight = tuple(shown)
        return [self._guess(random.Random(hash((self.seed, sight, at)))) for at in positions]

    def _guess(self, rng: random.Random) -> Guess:
        is_stop = bool(self.stop_ids) and rng.random() < self.stop_rate
        token = rng.choice(self.stop_ids) if is_stop else rng.randrange(8)
        least = 0.5 if rng.random() < self.ease else 0.0
        sure = least + (1 - least) * rng.random()
        return Guess(token, round(sure * STEPS) / STEPS if rng.random() < 0.5 else sure)


class PlantedLM:
    """The planted model in the words of `specdec.decoding.denoising.DraftLM`."""

    def __init__(self, model: PlantedModel) -> None:
        self.model = model
        self.tokens: list[int] = []
        self.predictions: dict[int, tuple[int, float]] = {}
        self._pending: list[int] = []

    @property
    def length(self) -> int:
        return len(self.tokens)

    def predict(
        self, tokens: Sequence[int], *, block_size: int = 1, keep: Sequence[int] | None = None, never: int | None = None
    ) -> tuple[list[int], list[float]]:
        self._pending = list(tokens)
        kept = range(len(tokens)) if keep is None else keep
        guesses = self.model([*self.tokens, *tokens], [self.length + index + 1 for index in kept])
        return [guess.token for guess in guesses], [guess.probability for guess in guesses]

    def commit(self, num_tokens: int) -> None:
        self.tokens += self._pending[:num_tokens]

    def rollback(self, length: int) -> None:
        del self.tokens[length:]
        self.predictions = {at: known for at, known in self.predictions.items() if at <= length}

    def reuse(self, prefix_ids: Sequence[int], block_size: int = 1) -> int:
        shared = min(len(self.tokens), len(prefix_ids))
        while self.tokens[:shared] != list(prefix_ids[:shared]):
            shared -= 1
        self.rollback(shared // block_size * block_size)
        return self.length
