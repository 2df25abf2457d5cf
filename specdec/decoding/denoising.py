"""Denoising: how a block-diffusion model of the Fast-dLLM v2 kind fills blocks of masks, pass by pass.

When a draft ends it does not decide (`stopping.py`), and it verifies nothing. Live blocks run on a `CachedLM`, whose
committed blocks they reuse and extend; other blocks are filled by whoever knows the outcome of a pass.

Source: Fast-dLLM v2 (arXiv 2509.26328) for the block mask, the token shift, sub-blocks and threshold unmasking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specdec.decoding.stopping import Passes

MAX_BLOCK = 2**16  # positions


class DraftLM(Protocol):
    """What drafters ask of a model, in the words of `specdec.models.lm.CachedLM`."""

    @property
    def predictions(self) -> dict[int, tuple[int, float]]: ...
    @property
    def length(self) -> int: ...
    def predict(
        self, tokens: Sequence[int], *, block_size: int = 1, keep: Sequence[int] | None = None, never: int | None = None
    ) -> tuple[list[int], list[float]]: ...
    def predict_within(
        self, tokens: Sequence[int], at: int, *, keep: Sequence[int], never: int | None = None
    ) -> tuple[list[int], list[float]]: ...
    def commit(self, num_tokens: int) -> None: ...
    def rollback(self, length: int) -> None: ...
    def reuse(self, prefix_ids: Sequence[int], block_size: int = 1) -> int: ...


def are_blocks(block_size: object, small_block_size: object) -> bool:
    """Whether blocks can have this size and sub-blocks that: `are_blocks(32, 8) and not are_blocks(32, 5)`."""
    if type(block_size) is not int or type(small_block_size) is not int:
        return False
    return 2 <= block_size <= MAX_BLOCK and small_block_size >= 1 and block_size % small_block_size == 0


@dataclass(frozen=True)
class Denoising:
    """How blocks are filled. `use_block_cache`: passes after a sub-block's first run that sub-block alone, next to the
    keys and values that the rest of the block had then (approximate, as in Fast-dLLM v2)."""

    threshold: float
    block_size: int
    small_block_size: int
    mask_id: int
    stop_ids: frozenset[int]
    use_block_cache: bool = False

    def __post_init__(self) -> None:
        if not are_blocks(self.block_size, self.small_block_size):
            raise ValueError(f"no blocks of {self.block_size} in sub-blocks of {self.small_block_size} positions")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is outside 0..1")


class Blocks:
    """The text so far: the prefix and the masked block after it, filled pass by pass. Runs nothing.

    `ids` covers positions 0 .. the end of the current block, None where masked. The current block starts at `start`;
    its first token is always known: `first` predicts it where the prefix does not hold it.
    """

    def __init__(
        self, prefix_ids: Sequence[int], how: Denoising, start: int, first: tuple[int, float] | None = None
    ) -> None:
        self.how = how
        self.passes = Passes()
        self.pass_confidences: list[float] = []
        self.prefix_len = len(prefix_ids)
        self.ids: list[int | None] = list(prefix_ids)
        self.confidence: dict[int, float] = {}
        self.num_known = 0
        self.stop_len: int | None = None
        self._open_block(start, first)

    def tokens(self, count: int) -> list[int]:
        """The first `count` tokens after the prefix. Raises ValueError unless they are known."""
        return all_known(self.ids[self.prefix_len : self.prefix_len + count])

    def confidences(self, count: int) -> list[float]:
        """Each token's probability at the moment it was unmasked."""
        return [self.confidence[self.prefix_len + i] for i in range(count)]

    @property
    def block(self) -> list[int | None]:
        """The current block, None where masked."""
        return self.ids[self.start :]

    def denoised(self, masked: Sequence[int], tokens: Sequence[int], confidences: Sequence[float]) -> None:
        """A denoising pass has predicted `tokens` at `masked`; those it is sure of become known."""
        self.passes.denoise += 1
        self.pass_confidences += confidences
        must = confidences.index(max(confidences))
        for index, (token, confidence) in enumerate(zip(tokens, confidences, strict=True)):
            if confidence > self.how.threshold or index == must:
                self._unmask(self.start + masked[index], token, confidence)
        self._extend_known_run()

    def committed(self, token: int, confidence: float) -> None:
        """A clean pass over the block has predicted `token` after it."""
        self.passes.commit += 1
        self._open_block(self.start + self.how.block_size, (token, confidence))

    def _open_block(self, start: int, first: tuple[int, float] | None) -> None:
        """Mask the rest of the block at `start`; its first token needs no pass."""
        self.start = start
        self.ids += [None] * (start + self.how.block_size - len(self.ids))
        if self.ids[start] is None:
            if first is None:
                raise ValueError(f"nothing predicts the first token of the block at {start}")
            self._unmask(start, *first)
        self._extend_known_run()

    def _unmask(self, position: int, token: int, confidence: float) -> None:
        self.ids[position] = token
        self.confidence[position] = confidence

    def _extend_known_run(self) -> None:
        for token in self.ids[self.prefix_len + self.num_known :]:
            if token is None:
                return
            self.num_known += 1
            if self.stop_len is None and token in self.how.stop_ids:
                self.stop_len = self.num_known


class LiveBlocks(Blocks):
    """Blocks that a model fills: they start where its cache ends.

    `denoiser`: what predicts in denoising passes, over the same cache, if not `lm`. `num_within`: how many of the
    denoising passes ran a sub-block alone.
    """

    def __init__(self, lm: DraftLM, prefix_ids: Sequence[int], how: Denoising, denoiser: DraftLM | None = None) -> None:
        if not prefix_ids:
            raise ValueError("drafting needs a prefix of at least one token")
        self.lm, self.denoiser = lm, denoiser or lm
        self.num_within = 0
        self._was_run = -1  # the start of the last block that a denoising pass ran whole
        num_prefills = prefill(lm, prefix_ids, how)
        super().__init__(prefix_ids, how, lm.length, lm.predictions.get(lm.length))
        self.passes.prefill = num_prefills

    def step(self) -> None:
        """One pass: denoise the current sub-block or, when the block is all known, commit it."""
        block, how = self.block, self.how
        masked = masked_positions(block, how.small_block_size)
        if not masked:
            self.committed(*clean_pass(self.lm, all_known(block), how))
            return
        self.denoised(masked, *self._predicted(block, masked))

    def _predicted(self, block: Sequence[int | None], masked: Sequence[int]) -> tuple[list[int], list[float]]:
        how, begin = self.how, masked[0] // self.how.small_block_size * self.how.small_block_size
        tokens, keep = pass_input(block, masked, how.mask_id)
        # What predicts a sub-block's first token is not in the sub-block.
        if not how.use_block_cache or self._was_run != self.start or masked[0] == begin:
            self._was_run = self.start
            return self.denoiser.predict(tokens, block_size=how.block_size, keep=keep, never=how.mask_id)
        self.num_within += 1
        own = tokens[begin : begin + how.small_block_size]
        return self.denoiser.predict_within(own, begin, keep=[at - begin for at in keep], never=how.mask_id)


def drawing(lm: DraftLM, temperature: float, top_p: float, seed: int) -> DraftLM:
    """What draws a dLLM's tokens at a temperature above 0, over the cache of `lm`, a CachedLM. Raises ValueError for
    another model, and for parameters that make no distribution."""
    from specdec.decoding.sampled import SampledLM
    from specdec.decoding.sampling import Sampler, Warp
    from specdec.models.lm import CachedLM

    if not isinstance(lm, CachedLM):
        raise ValueError("a temperature needs a CachedLM, which hands out its logits")
    return SampledLM(lm, Sampler(Warp(temperature, top_p=top_p), f"generate {seed}"))


def all_known(tokens: Sequence[int | None]) -> list[int]:
    """The tokens themselves. Raises ValueError where one is masked (None)."""
    known = [token for token in tokens if token is not None]
    if len(known) < len(tokens):
        raise ValueError("a token is still masked")
    return known


def masked_positions(block: Sequence[int | None], small_block_size: int) -> list[int]:
    """The positions of a block that the next pass predicts: those masked in the first sub-block that has any.

    None: the block is all known, to be committed. Example: `masked_positions([5, None, 7, None], 2) == [1]`.
    """
    if None not in block:
        return []
    first = block.index(None)
    end = (first // small_block_size + 1) * small_block_size
    return [i for i in range(first, end) if block[i] is None]


def pass_input(block: Sequence[int | None], masked: Sequence[int], mask_id: int) -> tuple[list[int], list[int]]:
    """What the next pass over a block runs, and the outputs that it needs.

    Token shift: position i is predicted by the output at i - 1, the token after a known block by its last.
    """
    tokens = [mask_id if token is None else token for token in block]
    return tokens, [i - 1 for i in masked] or [len(block) - 1]


def prefill(lm: DraftLM, prefix_ids: Sequence[int], how: Denoising) -> int:
    """Bring the prefix's whole blocks into the cache, and what is predicted to follow them; the passes it took."""
    whole = len(prefix_ids) // how.block_size * how.block_size
    lm.reuse(prefix_ids[:whole], block_size=how.block_size)
    if lm.length == len(prefix_ids) and whole not in lm.predictions:
        lm.rollback(whole - how.block_size)
    if lm.length == whole:
        return 0
    clean_pass(lm, prefix_ids[lm.length : whole], how)
    return 1


def clean_pass(lm: DraftLM, tokens: Sequence[int], how: Denoising) -> tuple[int, float]:
    """Commit whole known blocks; their last output predicts the token after them, with its probability."""
    (token,), (confidence,) = lm.predict(tokens, block_size=how.block_size, keep=[len(tokens) - 1], never=how.mask_id)
    lm.commit(len(tokens))
    lm.predictions[lm.length] = (token, confidence)
    return token, confidence
