"""Block-diffusion decoding with Fast-dLLM v2 models: the published functions, over `specdec/decoding/denoising.py`.

`generate` writes a whole answer, `generate_draft_tokens` a draft of fixed length and
`generate_draft_tokens_arbitrary_length` a draft whose length FailFast's rule decides; for other rules there is
`LiveBlocks` under `specdec.decoding.stopping.finish_draft`. Their parameters have the published names. This file
verifies no draft and knows no tokenizer, model library or configuration.
"""

from collections.abc import Collection, Sequence

from specdec.decoding.denoising import Denoising, DraftLM, LiveBlocks, drawing
from specdec.decoding.stopping import Draft, FailFastWindow, FixedWindow, Rule, finish_draft


def generate(
    lm: DraftLM,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    threshold: float = 0.9,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
    temperature: float = 0.0,
    top_p: float = 0.95,
    seed: int = 0,
    use_block_cache: bool = False,
) -> Draft:
    """Write an answer with the dLLM alone: up to `max_new_tokens` tokens, cut after a stop token.

    A position is unmasked when its probability exceeds `threshold` (0..1); the most probable one
    always is. Above a `temperature` of 0 tokens are drawn, from the fewest whose probabilities add up to `top_p`, and
    their probabilities are those there; a block's first token is the most probable one all the same. `seed` decides
    what is drawn. `use_block_cache`: see `Denoising`. Raises ValueError for an empty prompt, a threshold
    outside 0..1, lengths below 1 and a small_block_size that does not divide block_size (at least 2), as the other two
    do, and for a temperature below 0 or a top_p outside 0..1.
    """
    sizes = block_size, small_block_size
    how = Denoising(threshold, *sizes, mask_id, frozenset(stop_ids), use_block_cache)
    denoiser = drawing(lm, temperature, top_p, seed) if temperature else lm
    return finish_draft(LiveBlocks(lm, prompt_ids, how, denoiser), FixedWindow(max_new_tokens))


def generate_draft_tokens(
    lm: DraftLM,
    prefix_ids: Sequence[int],
    *,
    spec_len: int,
    threshold: float,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
    use_block_cache: bool = False,
) -> Draft:
    """Draft the `spec_len` tokens that follow `prefix_ids`; fewer if a stop token is among them."""
    sizes = block_size, small_block_size
    how = Denoising(threshold, *sizes, mask_id, frozenset(stop_ids), use_block_cache)
    return finish_draft(LiveBlocks(lm, prefix_ids, how), FixedWindow(spec_len))


def generate_draft_tokens_arbitrary_length(
    lm: DraftLM,
    prefix_ids: Sequence[int],
    *,
    spec_len: int,
    threshold: float,
    lowconf_threshold: float,
    incr_len: int,
    max_spec_len: int,
    rule: Rule = "published",
    last_round_rejected: Sequence[int] | None = None,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
    use_block_cache: bool = False,
) -> Draft:
    """Draft by FailFast's rule: grow the window while the drafter is sure of itself.

    The window starts at `spec_len` tokens. After every denoising pass: once it is all known, stop if a recorded
    confidence is below `lowconf_threshold` (tau) or `max_spec_len` (N_max) is reached, else grow by `incr_len` (N).
    `last_round_rejected`: last round's draft after its rejected token; after a low-confidence stop a draft that ends
    like a part of it is continued from it at no pass (None: off).
    """
    sizes = block_size, small_block_size
    how = Denoising(threshold, *sizes, mask_id, frozenset(stop_ids), use_block_cache)
    window = FailFastWindow(spec_len, lowconf_threshold, incr_len, max_spec_len, rule)
    blocks = LiveBlocks(lm, prefix_ids, how)
    return finish_draft(blocks, window, last_round_rejected=last_round_rejected or (), stop_ids=how.stop_ids)
