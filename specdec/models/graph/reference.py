"""The graph backend's operations in plain torch: what runs on a CPU, and what the GPU kernels are tested against.

`kernels.py` has the same functions for CUDA; neither holds weights or a cache of its own.

Shape suffixes: C hidden size, D head size, E = D / 2, G KV heads, H query heads, I MLP size, K kept
positions, M new tokens (padded), N = (H + 2G) * D, P positions of the cache, V vocabulary; of trees that grow level by
level, B nodes of a level, K candidates of a node, N nodes of the next level.
`state` is the int64 tensor [first position, number of real tokens, block size, token never predicted].
"""

import torch

from specdec.models.graph.branches import Branches, Level
from specdec.models.int8 import Int8Matrix
from specdec.models.lm import most_probable as most_probable_of


def receive(sent: torch.Tensor, inputs: torch.Tensor, embedding_VC: torch.Tensor, hidden_MC: torch.Tensor) -> None:
    """What the host sent becomes `inputs`; the embeddings of its first M ids become hidden_MC."""
    inputs.copy_(sent)
    torch.index_select(embedding_VC, 0, inputs[: len(hidden_MC)], out=hidden_MC)


def norm(
    x_MC: torch.Tensor,
    weight_C: torch.Tensor,
    eps: float,
    rows_K: torch.Tensor | None = None,
    is_after_kernel: bool = False,
) -> torch.Tensor:
    """Root-mean-square normalisation of each row (of `rows_K` alone), in float32 but for the last product.
    `is_after_kernel`: on a GPU it may begin while what comes before it ends, which is surely a kernel."""
    wide_MC = (x_MC if rows_K is None else x_MC.index_select(0, rows_K)).float()
    wide_MC = wide_MC * torch.rsqrt(wide_MC.square().mean(-1, keepdim=True) + eps)
    return wide_MC.to(x_MC.dtype) * weight_C


def silu_product(gate_up_M2I: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, of the two halves of each row."""
    gate_MI, up_MI = gate_up_M2I.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate_MI) * up_MI


def rotate_and_store(
    qkv_MN: torch.Tensor,
    rotary_2PE: torch.Tensor,
    cache_2GPD: torch.Tensor,
    state: torch.Tensor,
    norms_2D: torch.Tensor | None = None,
    eps: float = 0.0,
    depths_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rotate queries and keys to their positions; real tokens' keys and values go to the cache. Returns q_MHD.

    `norms_2D`: their heads are normalised before, as rows are by `norm`. `depths_M`: of a tree (`Branches`)."""
    _, num_kv_heads, capacity, head_size = cache_2GPD.shape
    first, num_tokens = state[:2].tolist()
    heads = qkv_MN.unflatten(1, (-1, head_size))
    q_MHD, k_MGD, v_MGD = heads.split([heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1)
    if norms_2D is not None:
        q_MHD, k_MGD = norm(q_MHD, norms_2D[0], eps), norm(k_MGD, norms_2D[1], eps)
    after_M = torch.arange(len(qkv_MN)) if depths_M is None else depths_M
    positions_M = (first + after_M).clamp(max=capacity - 1)
    cos_ME, sin_ME = rotary_2PE[:, positions_M]
    stored = slice(first, first + num_tokens)
    cache_2GPD[0, :, stored] = rotated(k_MGD, cos_ME, sin_ME)[:num_tokens].transpose(0, 1)
    cache_2GPD[1, :, stored] = v_MGD[:num_tokens].transpose(0, 1)
    return rotated(q_MHD, cos_ME, sin_ME)


def rotated(heads_MHD: torch.Tensor, cos_ME: torch.Tensor, sin_ME: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the pairs (i, i + D/2), in float32."""
    left, right = heads_MHD.float().chunk(2, dim=-1)
    cos, sin = cos_ME[:, None], sin_ME[:, None]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1).to(heads_MHD.dtype)


def attend(
    q_MHD: torch.Tensor,
    cache_2GPD: torch.Tensor,
    state: torch.Tensor,
    window: int | None = None,
    tree: Branches | None = None,
) -> torch.Tensor:
    """Attention of M new queries over the cache's live positions under the block mask, or a tree's; [M, H * D].

    Position q sees k iff k // block <= q // block, and q - k < `window` where there is one. Rows of padding attend to
    something, for nobody.
    """
    first, num_tokens, block_size, _ = state.tolist()
    num_tokens_padded, num_heads, _ = q_MHD.shape
    live = first + num_tokens
    if tree is None:
        positions_M = first + torch.arange(num_tokens_padded)
        visible_ML = torch.arange(live) // block_size <= positions_M[:, None] // block_size
        if window is not None:
            visible_ML &= torch.arange(live) > (positions_M[:, None] - window).clamp(max=live - 2)
    else:
        visible_ML = _visible_in_tree(first, num_tokens, window, tree)
    keys, values = (part.repeat_interleave(num_heads // len(part), dim=0) for part in cache_2GPD[:, :, :live])
    attended_HMD = torch.nn.functional.scaled_dot_product_attention(
        q_MHD.transpose(0, 1)[None], keys[None], values[None], attn_mask=visible_ML
    )[0]
    return attended_HMD.transpose(0, 1).flatten(1)


def _visible_in_tree(first: int, num_tokens: int, window: int | None, tree: Branches) -> torch.Tensor:
    """[M, L]: all positions before the tree, and of its own rows those that each sees."""
    of_past = torch.ones(len(tree.depths_M), first, dtype=torch.bool)
    visible_ML = torch.cat([of_past, tree.sees(num_tokens)], dim=1)
    if window is None:
        return visible_ML
    positions_L = torch.cat([torch.arange(first), first + tree.depths_M[:num_tokens]])
    return visible_ML & (first + tree.depths_M[:, None] - positions_L < window)


def scaled_product(x_MK: torch.Tensor, w: Int8Matrix, bias_N: torch.Tensor | None = None) -> torch.Tensor:
    """x w^T + bias of weights in 8 bits."""
    return w.product(x_MK, bias_N)


def most_probable(logits_KV: torch.Tensor, state: torch.Tensor, found_K2: torch.Tensor) -> None:
    """Into found_K2: each row's argmax token and its softmax probability, float64; see `models.lm.most_probable`."""
    found_K2.copy_(most_probable_of(logits_KV, int(state[3])))


def few_most_probable(
    logits_BV: torch.Tensor, tokens_V: torch.Tensor, found_BK2: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """After each row the K most probable tokens, the most probable first and equals by their ids, and their
    log-probabilities in float32. `tokens_V`: what token each logit is of. Both also into found_BK2, float64.

    Which of equals are left out is not said."""
    best = logits_BV.float().log_softmax(-1).topk(found_BK2.shape[1])
    tokens_BK, by_id_BK = tokens_V[best.indices].sort(-1)
    log_probs_BK, order_BK = best.values.gather(1, by_id_BK).sort(dim=-1, descending=True, stable=True)
    tokens_BK = tokens_BK.gather(1, order_BK)
    found_BK2.copy_(torch.stack([tokens_BK.double(), log_probs_BK.double()], dim=-1))
    return tokens_BK, log_probs_BK


def go_on(
    found: tuple[torch.Tensor, torch.Tensor], stops: torch.Tensor, level: Level, after: Level, told_N2: torch.Tensor
) -> None:
    """Of all that `few_most_probable` found after a level the most probable paths, which do not end in one of `stops`,
    become the next one; their tokens and parents also told_N2. Of equals the first; what has no probability comes last,
    in any order."""
    tokens_BK, log_probs_BK = found
    scores_BK = level.scores_N[:, None] + log_probs_BK
    scores = scores_BK.masked_fill(torch.isin(tokens_BK, stops), -torch.inf).flatten()
    best = scores.sort(descending=True, stable=True)
    chosen_N = best.indices[: len(after.ids_N)]
    after.ids_N.copy_(tokens_BK.flatten()[chosen_N])
    after.parents_N.copy_(chosen_N // tokens_BK.shape[1])
    after.scores_N.copy_(best.values[: len(after.ids_N)])
    after.stand_after(level)
    told_N2.copy_(torch.stack([after.ids_N, after.parents_N], dim=-1))
