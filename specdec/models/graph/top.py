"""Top: the most probable tokens of rows of logits, and their log-probabilities, in few passes over whole rows.

Shape suffixes: C chosen tokens, J pieces of a row, K rows, P tokens of a piece, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

PIECE = 128  # tokens; a row of 151,936 has 1,187 pieces


def most_probable_of(logits_KV: Tensor, count: int) -> Tensor:
    """The `count` most probable tokens of each row (all, of fewer) and their log-probabilities, in falling order,
    float64 [K, C, 2]: one tensor, so that both cross to the host at once."""
    values_KC, tokens_KC = _largest(logits_KV, min(count, logits_KV.shape[1]))
    best_K1 = values_KC[:, :1].float()
    log_total_K1 = (logits_KV - best_K1).exp_().sum(-1, keepdim=True).log_()
    return torch.stack([tokens_KC.double(), (values_KC - best_K1 - log_total_K1).double()], dim=-1)


def _largest(logits_KV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and tokens. Sorting long rows takes a GPU many kernels; they stand in as many pieces as tokens are wanted,
    those with the greatest values."""
    vocabulary = logits_KV.shape[1]
    if vocabulary < 2 * count * PIECE:
        values_KC, tokens_KC = logits_KV.topk(count, dim=-1)
        return values_KC, tokens_KC
    pieces_KJP = pad(logits_KV, (0, -vocabulary % PIECE), value=-torch.inf).unflatten(1, (-1, PIECE))
    # In their own order: of equals, those with the smaller ids come first then, as of a whole row.
    best_KC = pieces_KJP.amax(-1).topk(count, dim=-1, sorted=False).indices.sort(-1).values
    kept_KCP = pieces_KJP.gather(1, best_KC[:, :, None].expand(-1, -1, PIECE))
    values_KC, at_KC = kept_KCP.flatten(1).topk(count, dim=-1)
    return values_KC, best_KC.gather(1, at_KC // PIECE) * PIECE + at_KC % PIECE
