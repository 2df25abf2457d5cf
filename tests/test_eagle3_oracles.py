"""EAGLE-3 against its authors' own modules, on random weights that were taught a little: logits to 1e-4 and equal
drafts over 300 rounds of each layout, rejected tokens included.

Skipped where the packages `specforge` (0.2.0) and `speculators` (0.9.0) are not installed, and without DeepSpec
(`oracles.py`); they need other versions of much that this program needs, so an environment of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

import pytest
import torch
from heads import EPS, HEAD_SIZE, HEADS, INNER, KV_HEADS, THETA, ToyHead, features_of, loaded_head, taught, toy_head
from oracles import deepspec, keep_verdict
from toys import greedy_tokens, random_ids, toy_model, weaken_attention

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.eagle3 import Eagle3Drafter, Eagle3Static
from specdec.models.eagle3_network import Eagle3Network
from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
NUM_ROUNDS, DRAFT_LEN, NUM_TOKENS = 300, 6, 30
LENGTHS = (2, 5, 17, 40)
# Of a draft: the features of its prefix but for the last token, the tokens after them, and what was drafted.
Case = tuple[torch.Tensor, list[int], list[int]]
Logits = Callable[[Case], torch.Tensor]  # of an author's module, [draft length, draft vocabulary]


def layer_settings(head: ToyHead) -> dict[str, object]:
    return {
        "hidden_size": head.size,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": 1,
        "head_dim": HEAD_SIZE,
        "rms_norm_eps": EPS,
        "vocab_size": head.vocab_size,
        "max_position_embeddings": 512,
        "rope_theta": THETA,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }


def put_in(module: torch.nn.Module, head: ToyHead, left_aside: Sequence[str] = ()) -> None:
    """The head's tensors, all of which must find a place, and no place may be left empty but those of `left_aside`."""
    found = module.load_state_dict(head.tensors, strict=False)
    assert not found.unexpected_keys
    assert not [key for key in found.missing_keys if key not in left_aside and not key.startswith("rotary")]
    module.eval()


def ahead(tokens: Sequence[int], draft: Sequence[int]) -> list[torch.Tensor]:
    """What each step of a training forward reads: the tokens after the features, one further to the left a step."""
    whole = [*tokens, *draft]
    return [torch.tensor([(whole[step:] + [0] * step)[: len(tokens)]]) for step in range(len(draft))]


def of_specforge(head: ToyHead) -> Logits:
    """Its own training steps: what stands for step k is what the draft's tokens are fed as."""
    eagle = pytest.importorskip("specforge.modeling.draft.llama3_eagle", reason="specforge is not installed")
    from transformers import LlamaConfig

    config = LlamaConfig(**layer_settings(head), draft_vocab_size=head.draft_vocab_size, **head.flags)
    config.target_hidden_size = head.target_size
    module = eagle.LlamaForCausalLMEagle3(config)
    put_in(module, head, ("t2d", "d2t"))

    def logits(case: Case) -> torch.Tensor:
        features, tokens, draft = case
        count, cache, found = len(tokens), [[], []], []
        state = module.project_hidden_states(features[None])
        mask = eagle.prepare_decoder_attention_mask(torch.ones(1, count, dtype=torch.bool), (1, count), state, 0)
        for ids in ahead(tokens, draft):
            state = module.backbone(module.embed_input_ids(ids), state, cache, mask, torch.arange(count)[None])
            found.append(module.compute_logits(state)[0, -1])
        return torch.stack(found)

    return logits


def of_speculators(head: ToyHead) -> Logits:
    """Its own forward, whose steps are given the draft's tokens; the head's logits are seen on their way out."""
    core = pytest.importorskip("speculators.models.eagle3.core", reason="speculators is not installed")
    from speculators.models.eagle3 import Eagle3SpeculatorConfig
    from transformers import LlamaConfig, Qwen3Config

    flags = {name: value for name, value in head.flags.items() if name != "qwen3"}
    kind = Qwen3Config if head.flags.get("qwen3") else LlamaConfig
    layer = kind(**layer_settings(head))
    layer._attn_implementation = "eager"
    ids = [tap + 1 for tap in head.taps]
    config = Eagle3SpeculatorConfig(
        transformer_layer_config=layer,
        draft_vocab_size=head.draft_vocab_size,
        eagle_aux_hidden_state_layer_ids=ids,
        **flags,
    )
    module = core.Eagle3DraftModel(config)
    put_in(module, head, ("verifier_norm.weight", "verifier_lm_head.weight"))
    seen: list[torch.Tensor] = []
    module.lm_head.register_forward_hook(lambda _, given, out: seen.append(out[0]))

    def logits(case: Case) -> torch.Tensor:
        features, tokens, draft = case
        seen.clear()
        last, padding = len(tokens) - 1, torch.zeros(len(draft), features.shape[1])
        ids = torch.tensor([[*tokens, *draft]])
        module(torch.cat([features, padding])[None], ids, torch.zeros_like(ids), ttt_steps=len(draft))
        return torch.stack([step[last] for step in seen])

    return logits


def of_deepspec(head: ToyHead) -> Logits:
    """Its evaluator's round: the cache extended by the prefix in two parts, then a step a token."""
    from transformers import DynamicCache, Qwen3Config

    config = Qwen3Config(**layer_settings(head), attention_bias=False)
    config._attn_implementation = "sdpa"
    config.target_layer_ids, config.ttt_length, config.step_loss_decay = list(head.taps), 7, 1.0
    module = deepspec("deepspec.modeling.eagle3.qwen3.modeling").Qwen3Eagle3Model(config)
    put_in(module, head)

    def logits(case: Case) -> torch.Tensor:
        features, tokens, draft = case
        cache, positions, half = DynamicCache(), torch.arange(len(tokens) + len(draft))[None], len(tokens) // 2
        for part in (slice(0, half), slice(half, len(tokens))):
            if tokens[part]:
                out = module.extend_draft_cache(
                    features[None, part], torch.tensor([tokens[part]]), positions[:, part], cache
                )
        found = [module.compute_logits(out)[0, -1]]
        for step, token in enumerate(draft[:-1]):
            at = len(tokens) + step
            out = module(out, torch.tensor([[token]]), positions[:, at : at + 1], past_key_values=cache, use_cache=True)
            found.append(module.compute_logits(out)[0, -1])
        return torch.stack(found)

    return logits


CASES = {
    "specforge": (of_specforge, "safeailab", {}, "specforge"),
    "specforge, own words, fc_norm": (
        of_specforge,
        "safeailab",
        {"draft_vocab_size": 40, "fc_norm": True},
        "specforge",
    ),
    "speculators": (of_speculators, "speculators", {"draft_vocab_size": 50}, "speculators"),
    "speculators, norms": (
        of_speculators,
        "speculators",
        {"norm_before_residual": True, "norm_before_fc": True, "norm_output": True},
        "speculators",
    ),
    "speculators, Qwen3": (
        of_speculators,
        "speculators",
        {"draft_vocab_size": 50, "qwen3": True, "fc_norm": True},
        "speculators",
    ),
    "deepspec": (of_deepspec, "deepspec", {"taps": (0, 1, 1, 0, 1)}, None),
}


@pytest.fixture(scope="module")
def verdict() -> Iterator[dict[str, object]]:
    found: dict[str, object] = {}
    yield found
    keep_verdict(found)


def rounds_of(head: ToyHead, target: torch.nn.Module, network: Eagle3Network) -> Iterator[tuple[Case, int]]:
    """Drafts of live rounds, and how much of each was accepted."""
    for number in range(100):
        prompt = random_ids(number, LENGTHS[number % len(LENGTHS)])
        drafter = Eagle3Drafter(network, Eagle3Static(DRAFT_LEN), ())
        rounds = speculate(Target(CachedLM(target)), drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
        text = [*prompt, *(token for turn in rounds for token in turn.emitted_tokens)]
        features = features_of(target, text, head.taps)
        for turn in rounds:
            if turn.draft_len and turn.next_token is not None:
                at = turn.prefix_len
                yield (features[: at - 1], text[1:at], turn.draft_tokens), turn.accepted_len


@pytest.mark.parametrize("name", CASES)
def test_logits_and_drafts_are_the_authors(
    name: str, verdict: dict[str, object], one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, layout, how, package = CASES[name]
    target = weaken_attention(toy_model("llama", 31, scale=4.0), 0.3)
    known = [random_ids(number, LENGTHS[number % len(LENGTHS)]) for number in range(0, 8, 2)]
    texts = [[*ids, *greedy_tokens(target, ids, max_new_tokens=NUM_TOKENS, stop_ids=())[0]] for ids in known]
    head = taught(toy_head(layout, target, 5, **how), target, texts * 3)
    author, lm = make(head), CachedLM(target)
    network, noted = loaded_head(head, lm), list[torch.Tensor]()
    monkeypatch.setattr("specdec.models.eagle3_network.most_probable", _noting(noted))
    (worst, largest), accepted = (0.0, 0.0), [0] * (DRAFT_LEN + 1)
    # They would compile some of it, which takes minutes.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for case, accepted_len in rounds_of(head, target, network):
            features, tokens, draft = case
            logits, tokens_V = author(case), network._tokens_V
            assert tokens_V[logits.argmax(-1)].tolist() == draft
            noted.clear()
            network.clear()
            network.extend(features, tokens)
            for _ in draft[1:]:
                network.step()
            torch.testing.assert_close(torch.stack(noted), logits, atol=1e-4, rtol=1e-4)
            worst = max(worst, float((torch.stack(noted) - logits).abs().max()))
            largest = max(largest, float(logits.abs().max()))
            accepted[accepted_len] += 1
            if sum(accepted) == NUM_ROUNDS:
                break
    count = sum(accepted)
    assert count == NUM_ROUNDS and sum(number > 0 for number in accepted) >= 3
    where = "a checkout" if package is None else version(package)
    verdict[name] = {
        "version": where,
        "rounds": count,
        "drafts_equal": count,
        "largest_difference_of_logits": worst,
        "largest_logit": largest,
        "accepted_lengths": accepted,
    }


def _noting(noted: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`most_probable`, which notes the row that it looks at."""
    from specdec.models.lm import most_probable

    def look(logits_KV: torch.Tensor, never: int = -1) -> torch.Tensor:
        noted.append(logits_KV[0].clone())
        return most_probable(logits_KV, never)

    return look
