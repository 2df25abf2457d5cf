"""The graph engine on a GPU: recorded graphs against the eager engine, and the whole program on the bundled family.

`make test-gpu` runs these (and test_kernels*.py, on the GPU); without a GPU they are skipped.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import dflash_heads
import heads
import pytest
import test_dflash
import test_eagle3
import torch
from dflash_heads import loaded_dflash, toy_dflash
from heads import loaded_head, toy_head
from planned import run_by_plans
from test_eagle3_levels import launched, tree_of
from test_tree_verification import path_to
from toys import MASK_ID, random_ids, toy_model, weaken_attention

from profiling import check_lossless
from specdec.commands import run as failfast
from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.target import Target
from specdec.decoding.trees import Tree, depths
from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.base import Setup
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.drafters.dflash import DflashDrafter, DflashStatic
from specdec.drafters.eagle3 import Eagle3Drafter, Eagle3Static
from specdec.models import dflash_network, eagle3_network
from specdec.models.checkpoints import TARGET, find_model
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.plans import BackendOptions, Plan
from specdec.models.lm import CachedLM
from specdec.models.load import load_hf_model
from specdec.models.tokens import encode_prompt, load_tokenizer
from specdec.questions.sets import load_problems
from specdec.records.record import find_records, load_record
from specdec.records.rounds import Round

__all__ = ["launched"]  # a fixture
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LOGITS_ERROR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
OPTIONS = {
    "library": BackendOptions(fused_up_to=0),
    "fused": BackendOptions(fused_up_to=64),
}


ROLES = {role.title: role for role in (TARGET, AR_DRAFTER, DLLM_DRAFTER)}
TOYS = {"llama": ("llama", 64), "qwen2 untied": ("qwen2", 128), "qwen3": ("qwen3", 64), "mistral": ("mistral", 64)}
HEADS = [("EAGLE-3", one) for one in test_eagle3.VARIANTS] + [("DFlash", one) for one in test_dflash.VARIANTS]


@pytest.fixture(scope="module")
def text() -> list[int]:
    """The bundled questions, one after the other, in the bundled family's tokens."""
    tokenizer = load_tokenizer(find_model(TARGET, "bundled"))
    return [token for problem in load_problems("bundled") for token in encode_prompt(tokenizer, problem.prompt)]


def _model(name: str, dtype: torch.dtype) -> torch.nn.Module:
    if name in ROLES:
        return load_hf_model(find_model(ROLES[name], "bundled"), dtype).to("cuda")
    architecture, hidden_size = TOYS[name]
    return toy_model(architecture, 5, scale=2.0, hidden_size=hidden_size).to("cuda", dtype)


@pytest.mark.parametrize("name", [*ROLES, *TOYS])
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_logits_agree_with_the_eager_engine(text, name: str, dtype: torch.dtype, options: str) -> None:
    """Random passes, commits and rewinds; the argmax is the same wherever the two best logits lie clearly apart."""
    model = _model(name, dtype)
    # Random weights and tokens make any two orders of summation in bfloat16 differ by more.
    bound = LOGITS_ERROR[dtype] * (1 if name in ROLES else 2)
    rng, eager, graph = random.Random(4), CachedLM(model), GraphLM(model, options=OPTIONS[options])
    errors, sizes = [], []
    for step in range(40):
        block_size = rng.choice((1, 32))
        assert eager.reuse(eager.tokens, block_size) == graph.reuse(graph.tokens, block_size)
        count = rng.choice((1, 2, 5, 9, 31, 32, 33, 64, 70, 96, 130, 600))
        tokens = text[eager.length :][:count] if name in ROLES else random_ids(step, count)
        keep = sorted(rng.sample(range(len(tokens)), rng.randint(1, min(9, len(tokens))))) if step % 2 else None
        ours, theirs = (lm.forward(tokens, block_size=block_size, keep=keep).float() for lm in (graph, eager))
        errors.append((ours - theirs).norm().item())
        sizes.append(theirs.norm().item())
        assert errors[-1] < 2.5 * bound * sizes[-1], f"step {step}: {len(tokens)} tokens at {eager.length}"
        best = theirs.topk(2).values
        is_clear = best[:, 0] - best[:, 1] > 4 * bound * theirs.abs().amax(-1)
        assert torch.equal(ours.argmax(-1)[is_clear], theirs.argmax(-1)[is_clear])
        _check_predictions(graph, ours, (tokens, block_size, keep))
        for lm in (eager, graph):
            lm.commit(len(tokens) // 32 * 32 if block_size == 32 else len(tokens) // 2)
            if lm.length > 2500:
                lm.rollback(64)
    assert math.hypot(*errors) / math.hypot(*sizes) < bound


@pytest.mark.parametrize("name", [TARGET.title, *TOYS])
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
@pytest.mark.parametrize("options", [*OPTIONS, "by plans"])
def test_trees_agree_with_the_eager_engine(text, monkeypatch, name: str, dtype: torch.dtype, options: str) -> None:
    """Every recorded size of a tree's pass, with the accepted path committed, and chains between them; taps as well."""
    model, rng = _model(name, dtype), random.Random(7)
    bound = LOGITS_ERROR[dtype] * (1 if name in ROLES else 2)
    eager, graph, errors, sizes = CachedLM(model), GraphLM(model, options=OPTIONS.get(options)), [], []
    if options == "by plans":
        run_by_plans(monkeypatch, graph)
    for step, num_rows in enumerate([1, 2, 16, 17, 33, 65, 129, 257, 20, 65, 3, 257, 40]):
        chain = text[step : step + 30] if name in ROLES else random_ids(step, 30)
        tokens = (text if name in ROLES else random_ids(100 + step, 300))[step:][:num_rows]
        parents = [rng.randint(max(-1, row - rng.choice((1, 8, 300))), row - 1) for row in range(num_rows)]
        ours, theirs = (lm.forward(tokens, parents=parents, taps=(1, 0)).float() for lm in (graph, eager))
        errors.append((ours - theirs).norm().item())
        sizes.append(theirs.norm().item())
        assert errors[-1] < 2.5 * bound * sizes[-1], f"{num_rows} rows at {eager.length}"
        chosen, _ = graph.predict(tokens, parents=parents, taps=(1, 0))
        assert chosen == ours.argmax(-1).tolist()
        for lm in (eager, graph):
            lm.commit(path_to(num_rows - 1, parents))
        error = (graph.features.float() - eager.features.float()).norm()
        assert graph.tokens == eager.tokens and error < 2.5 * bound * eager.features.float().norm()
        ours, theirs = (lm.forward(chain).float() for lm in (graph, eager))
        assert (ours - theirs).norm() < 2.5 * bound * theirs.norm()
        for lm in (eager, graph):
            lm.commit(len(chain))
    assert math.hypot(*errors) / math.hypot(*sizes) < bound


def _check_predictions(graph: GraphLM, logits_KV: torch.Tensor, asked: tuple) -> None:
    """What the device chooses is what the logits say, with one token left out."""
    tokens, block_size, keep = asked
    chosen, sure = graph.predict(tokens, block_size=block_size, keep=keep, never=MASK_ID)
    logits_KV = logits_KV.clone()
    logits_KV[:, MASK_ID] = -torch.inf
    assert chosen == logits_KV.argmax(-1).tolist()
    assert sure == pytest.approx(logits_KV.softmax(-1).max(-1).values.tolist(), abs=1e-4)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0), reason="kernels overlap from Hopper on"
)
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
@pytest.mark.parametrize(("limit", "splits"), [(0, None), (64, None), (64, 3), (64, "by plans")])
def test_kernels_that_overlap_change_no_bit(
    text, monkeypatch, dtype: torch.dtype, limit: int, splits: int | str | None
) -> None:
    """A kernel that did not wait would read what is not there yet; with splits also what they leave each other."""
    if isinstance(splits, int):
        monkeypatch.setattr("specdec.models.graph.tiles.plan_product", lambda *_: Plan(64, 32, splits))
    model = _model("target", dtype)
    one, other = (GraphLM(model, options=BackendOptions(limit, overlaps=overlaps)) for overlaps in (True, False))
    if splits == "by plans":
        run_by_plans(monkeypatch, one, other)
    for step in range(60):
        count = (1, 8, 32, 64, 5, 96)[step % 6]
        tokens, block_size = text[one.length :][:count], (1, 32)[step % 2]
        if step % 7 == 3:
            trees = (lm.forward(tokens, parents=[row // 3 - 1 for row in range(count)]) for lm in (one, other))
            assert torch.equal(*trees)
        ours, theirs = (lm.forward(tokens, block_size=block_size) for lm in (one, other))
        assert torch.equal(ours, theirs), f"pass {step}, {count} tokens at {one.length}"
        for lm in (one, other):
            lm.commit(count // 32 * 32)
            if lm.length > 1500:
                lm.rollback(64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_divergence_from_plain_decoding_is_a_tie(dtype: str, capsys) -> None:
    arguments = ["--num_questions", "6", "--max_new_tokens", "128", "--engine", "graph", "--dtype", dtype]
    assert check_lossless.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["engine"] == "graph" and result["grades"]["exact"] > 0


def test_the_graph_engines_records_say_so(tmp_path: Path) -> None:
    arguments = ["--engine", "graph", "--num_questions", "1", "--max_new_tokens", "32", "--output_dir", str(tmp_path)]
    assert failfast.main(arguments) == 0
    assert {load_record(path).identity.settings["backend"] for path in find_records(tmp_path)} == {"graph"}


@pytest.mark.parametrize(("family", "variant"), HEADS)
def test_a_heads_recorded_passes_draft_what_plain_ones_on_a_cpu_do(
    family: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round for round, over prompts that are read in pieces and caches that grow; of sizes that the kernels take."""
    for module in (heads, dflash_heads):
        monkeypatch.setattr(module, "HEAD_SIZE", 16)
        monkeypatch.setattr(module, "INNER", 64)
    monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", 64)
    monkeypatch.setattr(dflash_network, "INITIAL_CAPACITY", 64)
    target = weaken_attention(toy_model("qwen3", 31, scale=4.0, hidden_size=64, num_layers=3), 0.3)
    plain = _head_rounds(_head_drafter(family, variant, CachedLM(target), "eager", tmp_path))
    recorded = _head_rounds(_head_drafter(family, variant, GraphLM(target.to("cuda")), "graph", tmp_path))
    assert [(turn.draft_tokens, turn.emitted_tokens) for turn in recorded] == [
        (turn.draft_tokens, turn.emitted_tokens) for turn in plain
    ]
    sure = [[one for turn in rounds for one in turn.confidences] for rounds in (recorded, plain)]
    assert sure[0] == pytest.approx(sure[1], abs=1e-3)


@pytest.mark.parametrize("variant", [one for one in test_dflash.VARIANTS if one.startswith("DSpark")])
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
def test_a_markov_heads_recorded_walk_is_torchs(
    variant: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block for block from the same logits, up to where two words are equal but for rounding; and what is drafted where
    fewer slots are asked for is the same to the last bit."""
    monkeypatch.setattr(dflash_heads, "HEAD_SIZE", 16)
    architecture, how = test_dflash.VARIANTS[variant]
    target = toy_model("qwen3", 31, scale=4.0, hidden_size=64, num_layers=3).to("cuda", dtype)
    head = toy_dflash(architecture, target, 5, **{**how, "block_size": 16})
    network = loaded_dflash(tmp_path, head, GraphLM(target), "graph")
    features = torch.randn(200, network._features_NF.shape[1], device="cuda", dtype=dtype)
    drafts, num_equal = list[list[torch.Tensor]](), 0
    for walk in (network._walk_of_one, network._walk):
        network._walk_of_one = walk
        network._graphs.clear()
        network.warm_up()
        drafts.append([])
        for length, anchor in enumerate(random_ids(3, 200), start=1):
            network.read(features[length - 1 : length])
            drafts[-1].append(network.draft([anchor], [length])[0].cpu())
            for count in (1, 5, 12):
                part = network.draft([anchor], [length], count)[0].cpu()
                assert len(part) >= count and torch.equal(part, drafts[-1][-1][: len(part)])
    for ours, theirs in zip(*drafts, strict=True):
        same = int((ours[:, 0] == theirs[:, 0]).long().cumprod(0).sum())
        assert (ours[:same, 1] - theirs[:same, 1]).abs().sum() < (0.05 if dtype == torch.bfloat16 else 1e-4) * 16
        num_equal += same
    assert num_equal > (0.8 if dtype == torch.bfloat16 else 0.99) * 16 * len(drafts[0])


@pytest.mark.parametrize("variant", test_eagle3.VARIANTS)
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
def test_a_heads_recorded_levels_score_what_the_eager_networks_do(
    launched: list[int], variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAGLE-3's trees, over a text that grows and caches that do; and what the device chooses, ties in bfloat16
    included, is what the host asks for: no level runs twice."""
    monkeypatch.setattr(heads, "HEAD_SIZE", 16)
    monkeypatch.setattr(heads, "INNER", 64)
    monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", 64)
    layout, how = test_eagle3.VARIANTS[variant]
    target = weaken_attention(toy_model("qwen3", 31, scale=4.0, hidden_size=64, num_layers=3), 0.3)
    head = toy_head(layout, target, 5, **how)
    target.to("cuda", dtype)
    eager, graph = loaded_head(head, CachedLM(target)), loaded_head(head, GraphLM(target), "graph")
    text, pairs, num_paths, num_clear = random_ids(8, 700), list[tuple[float, float]](), 0, 0
    for depth, top_k in ((2, 1), (5, 4), (8, 10), (3, 40)):
        graph.prepare(top_k, depth, (3, 9))
        eager.clear()
        known = 0
        for length in (2, 9, 60, 64, 130, 700):
            launched.clear()
            asked = {"stop_ids": (3, 9), "known": known}
            ours, theirs = (tree_of(one, text[:length], depth, top_k, **asked) for one in (graph, eager))
            assert launched == list(range(depth))
            got, want = _paths(ours), _paths(theirs)
            if dtype == torch.float32 and _is_clear(theirs, top_k):
                assert got.keys() == want.keys()
                num_clear += 1
            pairs += [(got[path], want[path]) for path in got.keys() & want.keys()]
            num_paths += len(want)
            known = length - 1
    assert dtype != torch.float32 or num_clear > 12
    of_graph, of_eager = torch.tensor(pairs).unbind(1)
    assert len(pairs) > num_paths / 2
    assert (of_graph - of_eager).norm() < 2.5 * LOGITS_ERROR[dtype] * of_eager.norm()


def _paths(tree: Tree) -> dict[tuple[int, ...], float]:
    """The log-probability of each path of tokens."""
    made: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        made.append((*(made[parent] if parent >= 0 else ()), token))
    return dict(zip(made, tree.log_probs, strict=True))


def _is_clear(tree: Tree, top_k: int) -> bool:
    """Whether of no level the last that goes on and the first that does not are nearly equal."""
    levels = depths(tree.parents)
    for level in set(levels):
        own = sorted((one for one, at in zip(tree.log_probs, levels, strict=True) if at == level), reverse=True)
        if len(own) > top_k and own[top_k - 1] - own[top_k] < 1e-3:
            return False
    return True


def _head_drafter(family: str, variant: str, lm: CachedLM, backend: str, folder: Path) -> tuple[Target, Drafter]:
    if family == "EAGLE-3":
        layout, how = test_eagle3.VARIANTS[variant]
        network = loaded_head(toy_head(layout, lm.model, 5, **how), lm, backend)
        return Target(lm), Eagle3Drafter(network, Eagle3Static(5), ())
    architecture, how = test_dflash.VARIANTS[variant]
    block = loaded_dflash(folder, toy_dflash(architecture, lm.model, 5, **how), lm, backend)
    return Target(lm), DflashDrafter(block, DflashStatic(5), Setup(()))


def _head_rounds(pair: tuple[Target, Drafter]) -> list[Round]:
    prompts = [random_ids(length, length) for length in (1, 2, 9, 30, 300, 700)]
    asked = {"max_new_tokens": 24, "stop_ids": ()}
    return [turn for prompt in prompts for turn in speculate(*pair, prompt, **asked)]
