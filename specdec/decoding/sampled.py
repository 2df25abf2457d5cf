"""Sampled: the target and the models of drafters where tokens are drawn instead of taken for the most probable.

They ask a model through `CachedLM.forward`, which every engine has; the mathematics, and why it is lossless, is
`sampling.py`'s. Greedy decoding goes nowhere near this file.

Shape suffixes: K kept positions, L drafted tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from specdec.decoding.sampling import Sampler, judge
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification, accepted_path, own_next, parents_of_rows
from specdec.models.lm import CachedLM


class SampledTarget(Target):
    """A target whose text is a sample of its warped distribution, whatever is drafted."""

    def __init__(self, lm: CachedLM, sampler: Sampler) -> None:
        super().__init__(lm)
        self.sampler = sampler

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        logits_KV = self.lm.forward(tokens, parents=parents_of_rows(draft), taps=self.taps)
        p_KV = _reaching(self.sampler.warp.probabilities(logits_KV), draft.tokens)
        return self._judge_chain(p_KV, draft) if draft.parents is None else self._judge_tree(p_KV, draft.parents, draft)

    def _judge_tree(self, p_KV: torch.Tensor, parents: list[int], draft: Draft) -> Verification:
        """A token is drawn after every node, and looked up among what was drafted there: whatever that is, and however
        it was chosen, the text is a sample of the target's own distribution."""
        own_K = self.sampler.draw(p_KV)
        rows = torch.tensor([1 + parent for parent in parents], device=p_KV.device)
        p_L = p_KV[rows, torch.tensor(draft.tokens, device=p_KV.device)]
        packed = torch.cat([own_K.double(), p_L.double(), p_KV.sum()[None].double()]).tolist()  # one transfer for all
        own, probabilities = [int(token) for token in packed[: len(p_KV)]], packed[len(p_KV) : -1]
        self.lm.require_numbers(packed[-1:])
        path = accepted_path(draft, own)
        return Verification(path, own_next(path, own), probabilities)

    def _judge_chain(self, p_KV: torch.Tensor, draft: Draft) -> Verification:
        device, num_drafted = p_KV.device, len(draft.tokens)
        draft_1L = torch.tensor([draft.tokens], dtype=torch.long, device=device)
        q_1LV = None
        if draft.drawn_from is not None:  # tokens that the drafter's table lacks had no chance
            q_1LV = pad(draft.drawn_from.to(device), (0, p_KV.shape[1] - draft.drawn_from.shape[1]))[None]
        uniforms_1K = self.sampler.uniforms(num_drafted + 1, device)[None]
        found = judge(p_KV[None], draft_1L, q_1LV, uniforms_1K)
        parts = (found.accepted_len_B, found.next_token_B, p_KV.sum()[None], found.p_BL[0])
        # One transfer for all: token ids are exact in float64.
        accepted_len, next_token, total, *probabilities = torch.cat([part.double() for part in parts]).tolist()
        self.lm.require_numbers([total])
        return Verification(range(int(accepted_len)), int(next_token), probabilities)


def _reaching(p_KV: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """The same with an entry for each of these tokens: of what is copied from a prompt some may be none that the target
    predicts. These have no chance."""
    num_missing = 1 + max(tokens, default=-1) - p_KV.shape[1]
    return pad(p_KV, (0, num_missing)) if num_missing > 0 else p_KV  # a padding by nothing is a copy


class SampledLM:
    """A drafter's model whose predictions are drawn: the part of `CachedLM` that drafters use, with `predict` changed.

    Attributes:
        drawn_from: the distributions [K, V] of the last `predict`.
    """

    def __init__(self, lm: CachedLM, sampler: Sampler) -> None:
        self.lm, self.sampler = lm, sampler
        self.drawn_from: torch.Tensor | None = None

    @property
    def length(self) -> int:
        return self.lm.length

    @property
    def predictions(self) -> dict[int, tuple[int, float]]:
        return self.lm.predictions

    def predict(
        self, tokens: Sequence[int], *, block_size: int = 1, keep: Sequence[int] | None = None, never: int | None = None
    ) -> tuple[list[int], list[float]]:
        """A token drawn after each kept position, with its probability in the warped distribution."""
        return self._drawn(self.lm.forward(tokens, block_size=block_size, keep=keep), never)

    def predict_within(
        self, tokens: Sequence[int], at: int, *, keep: Sequence[int], never: int | None = None
    ) -> tuple[list[int], list[float]]:
        return self._drawn(self.lm.forward_within(tokens, at, keep), never)

    def _drawn(self, logits_KV: torch.Tensor, never: int | None) -> tuple[list[int], list[float]]:
        q_KV = self.sampler.warp.probabilities(logits_KV, -1 if never is None else never)
        drawn_K = self.sampler.draw(q_KV)
        self.drawn_from = q_KV
        # Where logits are not numbers, the chosen token's probability may still be one: not so the sum.
        q_K = torch.where(q_KV.sum(-1).isfinite(), q_KV.gather(1, drawn_K[:, None])[:, 0], torch.nan)
        return self.lm.on_host(torch.stack((drawn_K.double(), q_K.double()), dim=-1))

    def commit(self, num_tokens: int) -> None:
        self.lm.commit(num_tokens)

    def rollback(self, length: int) -> None:
        self.lm.rollback(length)

    def reuse(self, prefix_ids: Sequence[int], block_size: int = 1) -> int:
        return self.lm.reuse(prefix_ids, block_size)
