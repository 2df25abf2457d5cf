"""EAGLE-2's dynamic tree against its authors' own code: random heads, and every tree of random depth, width and size.

    python -m experiments.eagle_tree_oracle --checkout FOLDER --num_cases 200

FOLDER holds SafeAILab's EAGLE, whose module `eagle.model.cnets` draws a tree. Its probabilities after each path come
from the same module, one token after the other and without any tree; this program's builder makes its own tree of them.
The authors' depth counts the levels after the first, and their total the last known token. The last line on stdout is
JSON.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from profiling.common import parser_of, run_command
from specdec.decoding.tree_rules import growing_tree
from specdec.decoding.trees import Candidates, depths
from specdec.errors import UserError

WORDS, DRAFT_WORDS, SIZE = 60, 40, 32
CONFIG = {
    **{"vocab_size": WORDS, "hidden_size": SIZE, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0},
    **{"intermediate_size": 48, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 256},
    **{"rope_scaling": None, "rope_theta": 10000.0, "pretraining_tp": 1},
}
Path = tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.eagle_tree_oracle", __doc__, ())
    parser.add_argument("--checkout", required=True, help="the folder of SafeAILab's EAGLE")
    parser.add_argument("--num_cases", type=int, default=200, help="trees to compare")
    return run_command(parser, measure, arguments)


def measure(flags: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    sys.path.append(flags.checkout)
    try:
        module = importlib.import_module("eagle.model.cnets")
    except ImportError as error:
        raise UserError(f"eagle.model.cnets is not in {flags.checkout} ({error})") from error
    cases = [compare(module, seed) for seed in range(flags.num_cases)]
    return {
        "versions": {"torch": torch.__version__},
        "cases": len(cases),
        "equal": sum(case["is_equal"] for case in cases),
        "nodes": sum(case["nodes"] for case in cases),
        "most_nodes": max(case["nodes"] for case in cases),
        "deepest": max(case["deepest"] for case in cases),
        "chains": sum(case["is_chain"] for case in cases),
        "different": [case for case in cases if not case["is_equal"]][:10],
    }


def compare(module: Any, seed: int) -> dict[str, Any]:
    """One tree of theirs and of ours, by the paths of their nodes."""
    draw = random.Random(seed)
    depth, top_k = draw.randint(1, 8), draw.randint(1, 10)
    scored = top_k + (depth - 1) * top_k**2
    num_nodes = min(draw.choice((4, 16, 60)), scored)
    head, prompt_len = made_head(module, seed, num_nodes, depth, top_k), draw.randint(2, 20)
    torch.manual_seed(2000 + seed)
    features_1LF, ids_1L = torch.randn(1, prompt_len, 3 * SIZE), torch.randint(0, WORDS, (1, prompt_len + 1))
    theirs = their_paths(head, features_1LF, ids_1L)
    ours = growing_tree(Chains(head, features_1LF, ids_1L, top_k).expand, depth, top_k, num_nodes)
    levels = sorted(depths(ours.parents))
    return {
        **{"seed": seed, "depth": depth, "top_k": top_k, "nodes": num_nodes, "deepest": levels[-1]},
        "is_equal": theirs == paths_of(ours.tokens, ours.parents) and len(theirs) == num_nodes,
        "is_chain": levels == [*range(1, len(levels) + 1)],
    }


def made_head(module: Any, seed: int, num_nodes: int, depth: int, top_k: int) -> Any:
    """The authors' module with random weights that are sure now and then."""
    torch.manual_seed(seed)
    config = SimpleNamespace(**CONFIG, draft_vocab_size=WORDS if seed % 2 else DRAFT_WORDS)
    head = module.Model(config, total_tokens=num_nodes + 1, depth=depth - 1, top_k=top_k).float().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * (parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1.0))
        head.lm_head.weight.mul_(1.0 + 2.0 * (seed % 5))
        head.embed_tokens.weight.mul_(SIZE**0.5)
        if config.draft_vocab_size < WORDS:
            head.d2t.copy_(torch.randperm(WORDS)[:DRAFT_WORDS].sort().values - torch.arange(DRAFT_WORDS))
    head.init_tree()
    return head


def their_paths(head: Any, features_1LF: torch.Tensor, ids_1L: torch.Tensor) -> set[Path]:
    """The paths of their nodes, read from their tree's mask: a node sees its ancestors and itself."""
    tokens_1N, _, mask_11NN, depths_N = head.topK_genrate(features_1LF, ids_1L, None, None)
    tokens, levels = tokens_1N[0].tolist(), depths_N.tolist()
    seen = [row.nonzero().flatten().tolist() for row in mask_11NN[0, 0]]
    return {tuple(tokens[at] for at in sorted(row[1:], key=levels.__getitem__)) for row in seen[1:]}


def paths_of(tokens: Sequence[int], parents: Sequence[int]) -> set[Path]:
    found: dict[int, Path] = {-1: ()}
    for node, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
        found[node] = (*found[parent], token)
    return {path for path in found.values() if path}


class Chains:
    """What their module gives after each path, one pass a token, with keys and values of that path alone."""

    def __init__(self, head: Any, features_1LF: torch.Tensor, ids_1L: torch.Tensor, top_k: int) -> None:
        self.head, self.top_k, self.start = head, top_k, ids_1L.shape[1] - 1
        head.reset()
        with torch.no_grad():
            out_1LC, kept = head(features_1LF, input_ids=ids_1L[:, 1:], use_cache=True)
        self._states: dict[Path, tuple[torch.Tensor, Any]] = {(): (out_1LC[:, -1:], kept)}

    @torch.no_grad()
    def expand(self, paths: Sequence[Path]) -> Candidates:
        logits_PV = torch.cat([self.head.lm_head(self.head.norm(self._state(path)[0]))[0] for path in paths])
        best = self.head.logsoftmax(logits_PV).topk(self.top_k)
        tokens_PK = best.indices
        if self.head.config.draft_vocab_size < WORDS:
            tokens_PK = tokens_PK + self.head.d2t[tokens_PK]
        return Candidates.of(tokens_PK.tolist(), best.values.tolist())

    def _state(self, path: Path) -> tuple[torch.Tensor, Any]:
        if path not in self._states:
            before_11C, kept = self._states[path[:-1]]
            place = torch.tensor([[self.start + len(path) - 1]])
            ids_11 = torch.tensor([path[-1:]])
            self._states[path] = self.head(
                before_11C, input_ids=ids_11, past_key_values=kept, position_ids=place, use_cache=True
            )
        return self._states[path]


if __name__ == "__main__":
    sys.exit(main())
