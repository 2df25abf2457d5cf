"""Recording a block-diffusion drafter: its chains from every prefix of a text, many rows at a time.

Nothing is run twice: chains that see the same block after the same pages go the same way from there, whichever prefix
and unmask threshold they started from. The denoising itself is `denoising.Blocks`, as in a live draft.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import torch

from specdec.decoding.chain_blocks import Answer, ChainBlocks, State
from specdec.decoding.chains import Chain, Text
from specdec.decoding.denoising import Denoising, all_known, masked_positions, pass_input, prefill
from specdec.models.lm import most_probable, without
from specdec.models.pages import PagedLM, Row, in_groups

CLOSE = 1e-5  # batched and single passes differ by about 2e-6 in a probability, in float32


@dataclass
class DllmRecorder:
    """Records a block-diffusion drafter along one text, at any number of unmask thresholds at once; what it has run it
    remembers. `batch`: rows of a single pass."""

    paged: PagedLM
    text: Text
    batch: int
    _thresholds: tuple[float, ...] = ()
    _answers: dict[State, Answer] = field(default_factory=dict)
    _page_tokens: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _pages: list[int] = field(default_factory=list)
    _firsts: dict[int, tuple[int, float]] = field(default_factory=dict)

    def record(self, lengths: dict[float, int], how: Denoising) -> dict[float, list[Chain]]:
        """For each unmask threshold of `lengths` one chain per prefix, of at least the given number of tokens, or up to
        a stop token, where every draft ends."""
        self._thresholds = tuple(lengths)
        self._run_text(how)
        made = {
            threshold: [self._open(at, replace(how, threshold=threshold)) for at in self.text.prefix_lens]
            for threshold in lengths
        }
        pending = [(blocks, lengths[threshold]) for threshold, chains in made.items() for blocks in chains]
        while pending := [one for one in pending if _is_open(*one)]:
            states = [blocks.state for blocks, _ in pending]
            self._run([state for state in dict.fromkeys(states) if state not in self._answers], how)
            for (blocks, _), state in zip(pending, states, strict=True):
                blocks.take(self._answers[state])
        return {threshold: [blocks.chain() for blocks in chains] for threshold, chains in made.items()}

    def _run_text(self, how: Denoising) -> None:
        """One pass over the text itself: its whole blocks, and what is predicted after each."""
        self.paged.clear()
        self._answers.clear()
        size, ids = self.paged.block_size, self.text.ids
        ends = range(size, len(ids) + 1, size)
        if not ends:
            return
        self._pages, logits_KV = self.paged.add_trunk(ids[: ends[-1]], keep=[end - 1 for end in ends])
        tokens, confidences = self.paged.lm.on_host(most_probable(logits_KV, how.mask_id))
        for index, is_unsettled in enumerate(is_close(logits_KV, how.mask_id)):
            block = tuple(ids[index * size : ends[index]])
            state = (tuple(self._pages[:index]), block)
            self._remember(state, Answer([], [tokens[index]], [confidences[index]], self._pages[index]))
            if is_unsettled:
                self._settle(state, Row(state[0], block, (size - 1,)), how)
            answer = self._answers[state]
            self._firsts[ends[index]] = (answer.tokens[0], answer.confidences[0])

    def _open(self, prefix_len: int, how: Denoising) -> ChainBlocks:
        whole = prefix_len // self.paged.block_size
        first = self._firsts.get(whole * self.paged.block_size)
        return ChainBlocks(self.text.ids[:prefix_len], how, tuple(self._pages[:whole]), first)

    def _run(self, states: list[State], how: Denoising) -> None:
        """One pass over each state, `batch` at a time, paths of like length together."""
        for group in in_groups(sorted(states, key=lambda state: len(state[0])), self.batch):
            masked = [masked_positions(block, how.small_block_size) for _, block in group]
            rows = [
                Row(path, *map(tuple, pass_input(block, wanted, how.mask_id)))
                for (path, block), wanted in zip(group, masked, strict=True)
            ]
            logits_KV = self.paged.forward(rows)
            tokens, confidences = self.paged.lm.on_host(most_probable(logits_KV, how.mask_id))
            commits = [index for index, wanted in enumerate(masked) if not wanted]
            pages = dict(zip(commits, self.paged.commit(commits), strict=True)) if commits else {}
            close = is_close(logits_KV, how.mask_id, self._thresholds)
            spans = pairwise(accumulate((len(row.keep) for row in rows), initial=0))
            for index, (begin, end) in enumerate(spans):
                answer = Answer(masked[index], tokens[begin:end], confidences[begin:end], pages.get(index))
                self._remember(group[index], answer)
                if any(close[begin:end]) or is_level(answer.confidences):
                    self._settle(group[index], rows[index], how)

    def _remember(self, state: State, answer: Answer) -> None:
        self._answers[state] = answer
        if answer.page is not None:
            self._page_tokens[answer.page] = tuple(all_known(state[1]))

    def _settle(self, state: State, row: Row, how: Denoising) -> None:
        """Run a state once more as a live draft would, block by block: its rounding is then the live one's too."""
        lm = self.paged.lm
        clean = [token for page in state[0] for token in self._page_tokens[page]]
        if clean:
            prefill(lm, clean, how)
        else:
            lm.rollback(0)
        tokens, confidences = lm.predict(row.tokens, block_size=how.block_size, keep=row.keep, never=how.mask_id)
        self._answers[state] = replace(self._answers[state], tokens=tokens, confidences=confidences)


def _is_open(blocks: ChainBlocks, length: int) -> bool:
    return blocks.stop_len is None and blocks.num_known < length


def is_close(logits_KV: torch.Tensor, mask_id: int, thresholds: Sequence[float] = ()) -> list[bool]:
    """Whether rounding might decide an output: two tokens as probable, or a probability at one of the thresholds or at
    a hundredth, where a tau may be (at 0 and 1 none could be crossed)."""
    best_K, second_K = without(mask_id, logits_KV.float()).softmax(-1).topk(2).values.unbind(1)
    is_close_K = best_K - second_K < CLOSE
    hundredths_K = (100 * best_K).round() / 100
    edges: list[torch.Tensor | float] = [hundredths_K.clamp(0.01, 0.99), *thresholds]
    for edge in edges:
        is_close_K |= (best_K - edge).abs() < CLOSE
    return is_close_K.tolist()


def is_level(confidences: Sequence[float]) -> bool:
    """Whether rounding might decide which position is the surest."""
    *_, second, best = (0.0, 0.0, *sorted(confidences))
    return best - second < CLOSE
