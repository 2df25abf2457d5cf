"""Sampling: how logits become the distribution that tokens are drawn from, and how a draft is judged by it.

Pure functions on rows of probabilities, many questions' rows at once if wanted, and the random numbers of a question.
No model here: `sampled.py` has the target and the drafters that use them.

Two rules accept chains without changing the target's distribution; docs/sampling.md has the argument, and why a
block-diffusion draft must not be judged by the ratio rule (`tests/test_sampling_laws.py` shows the bias).

Shape suffixes: B questions, K rows, L drafted tokens, V vocabulary.
"""

import random
from dataclasses import dataclass

import torch

from specdec.models.lm import without


@dataclass(frozen=True)
class Warp:
    """How logits become a distribution: divided by `temperature` (above 0), then the `top_k` most probable tokens
    (0: all), then the fewest of these whose probabilities add up to `top_p` (1: all). The same for target and drafter.

    Equal logits at the edge of the top k all stay.
    """

    temperature: float
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise ValueError(f"{self} is not a warp")

    def probabilities(self, logits_KV: torch.Tensor, never: int = -1) -> torch.Tensor:
        """float32 [K, V]; each row adds up to 1. The token `never` (-1: none) has no chance.

        Example: `Warp(1.0, top_k=1).probabilities(torch.tensor([[2.0, 3.0]]))` is [[0, 1]].
        """
        logits_KV = without(never, logits_KV.float())
        # The best becomes 0 before it is divided: no temperature, however low, makes it infinite.
        logits_KV = (logits_KV - logits_KV.amax(-1, keepdim=True)) / self.temperature
        if 0 < self.top_k < logits_KV.shape[-1]:
            least_K1 = logits_KV.topk(self.top_k).values[:, -1:]
            logits_KV = logits_KV.masked_fill(logits_KV < least_K1, -torch.inf)
        p_KV = logits_KV.softmax(-1)
        return p_KV if self.top_p >= 1 else nucleus(p_KV, self.top_p)


def nucleus(p_KV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Each row's fewest, most probable entries that add up to at least `top_p` (0..1), made to add up to 1."""
    # Entries of at most (1 - top_p) / V add up to at most 1 - top_p, so none of them is needed. The others are few,
    # and sorting them costs a fraction of sorting a vocabulary.
    floor = (1 - top_p) / p_KV.shape[-1]
    num_candidates = max(1, int((p_KV > floor).sum(-1).max()))
    values_KV, ids_KV = p_KV.topk(num_candidates)
    before_KV = values_KV.double().cumsum(-1) - values_KV
    kept_KV = values_KV * (before_KV < top_p)
    return torch.zeros_like(p_KV).scatter(-1, ids_KV, kept_KV / kept_KV.sum(-1, keepdim=True))


def drawn(weights_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """One index per row, with probabilities in proportion to its weights: that at the uniform's (0..1) share of their
    sum. Example: `drawn(torch.tensor([[1.0, 0.0, 3.0]]), torch.tensor([0.3]))` is [2].
    """
    sums_BV = weights_BV.double().cumsum(-1)
    found_B1 = torch.searchsorted(sums_BV, uniforms_B[:, None] * sums_BV[:, -1:], right=True)
    return found_B1[:, 0].clamp(max=weights_BV.shape[-1] - 1)


@dataclass(frozen=True)
class Judgement:
    """Per question how many tokens of its draft are kept and the target's own next one; `p_BL`: what the target gives
    each drafted token (after the first rejected one: given that it had been kept)."""

    accepted_len_B: torch.Tensor
    next_token_B: torch.Tensor
    p_BL: torch.Tensor


def judge(
    p_BKV: torch.Tensor, draft_BL: torch.Tensor, q_BLV: torch.Tensor | None, uniforms_BK: torch.Tensor
) -> Judgement:
    """Which tokens of the drafts are kept, and what follows them: a correction, or a bonus after a whole draft.

    `p_BKV`: the target's distributions after the prefix and after each drafted token (K = L + 1). `q_BLV`: what the
    tokens were drawn from, left to right (rule ratio); None: they are fixed (rule point). `uniforms_BK`: fresh random
    numbers, 0 <= u < 1, one per drafted token and one for the next token.
    """
    p_BL = _at(p_BKV[:, :-1], draft_BL)
    q_BL = torch.ones_like(p_BL) if q_BLV is None else _at(q_BLV, draft_BL)
    accepted_len_B = count_kept(uniforms_BK[:, :-1] * q_BL < p_BL)
    weights_BV = remainder(p_BKV, draft_BL, q_BLV, accepted_len_B)
    return Judgement(accepted_len_B, drawn(weights_BV, uniforms_BK[:, -1]), p_BL)


def count_kept(is_kept_BL: torch.Tensor) -> torch.Tensor:
    """How many tokens stand before each question's first rejected one. `[[True, False, True]]` gives [1]."""
    return is_kept_BL.long().cumprod(1).sum(1)


def remainder(
    p_BKV: torch.Tensor, draft_BL: torch.Tensor, q_BLV: torch.Tensor | None, accepted_len_B: torch.Tensor
) -> torch.Tensor:
    """Weights [B, V] of the token after the kept ones: max(p - q, 0) where one was rejected, else p itself."""
    each_B = torch.arange(len(p_BKV), device=p_BKV.device)
    p_BV, num_drafted = p_BKV[each_B, accepted_len_B], draft_BL.shape[1]
    if num_drafted == 0:
        return p_BV
    rejected_B = accepted_len_B.clamp(max=num_drafted - 1)
    if q_BLV is None:
        q_BV = torch.zeros_like(p_BV).scatter(1, draft_BL[each_B, rejected_B][:, None], 1.0)
    else:
        q_BV = q_BLV[each_B, rejected_B]
    is_rejected_B1 = (accepted_len_B < num_drafted)[:, None]
    weights_BV = (p_BV - q_BV * is_rejected_B1).clamp(min=0)
    # Where p and q are equal but for rounding, a rejection can leave nothing to draw from.
    return torch.where(weights_BV.sum(1, keepdim=True) > 0, weights_BV, p_BV)


def _at(rows_BLV: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
    return rows_BLV.gather(2, tokens_BL[..., None])[..., 0]


class Sampler:
    """The random numbers of one drafter on one question, for its drafts and their verification alike, and the warp.

    Drafts and verification take their numbers in turn from one stream: two streams of the same seed would propose and
    judge a token by the same number. Numbers come from Python's generator, because its seed is a whole text (torch's
    on a CPU looks at 32 bits of it) and because they are then the same on every device.
    """

    def __init__(self, warp: Warp, key: str) -> None:
        """`key` decides all numbers: whoever asks for the same ones again makes a sampler of the same key."""
        self.warp = warp
        self._random = random.Random(key)

    def uniforms(self, count: int, device: torch.device) -> torch.Tensor:
        """float64 [count], 0 <= u < 1."""
        return torch.tensor([self._random.random() for _ in range(count)], dtype=torch.float64, device=device)

    def draw(self, p_KV: torch.Tensor) -> torch.Tensor:
        """One token per row, int64 [K]."""
        return drawn(p_KV, self.uniforms(len(p_KV), p_KV.device))
