"""Tiny random models and a toy tokenizer for the tests; nothing here is trained, and nothing here is under test.

The models have the shapes that matter (two layers, grouped-query attention, tied or untied embeddings) and weights big
enough that their outputs depend on every token they see. All of them are float32, in eval mode and fixed by a seed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache

import torch
import transformers
from transformers import PreTrainedTokenizerFast

EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
# How transformers' classes begin, and what shows in each architecture: windows that a short text crosses.
ARCHITECTURES = {
    "qwen2": ("Qwen2", {}),
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": 12}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3_moe": ("Qwen3Moe", {"head_dim": 16, **EXPERTS}),
    "phi3": ("Phi3", {"sliding_window": 12, "partial_rotary_factor": 0.75}),
    "gemma3_text": ("Gemma3Text", {"head_dim": 16, "sliding_window": 12, "sliding_window_pattern": 2}),
}
VOCAB_SIZE = 64
MASK_ID = VOCAB_SIZE - 3
TOO_CLOSE = 1e-4  # logits nearer than this may swap in float32
MAX_POSITIONS = 2048


def toy_model(
    architecture: str,
    seed: int,
    *,
    scale: float = 1.0,
    hidden_size: int = 32,
    vocab_size: int = VOCAB_SIZE,
    tie: bool = False,
    num_layers: int = 2,
) -> torch.nn.Module:
    """A random causal LM of `architecture` (a key of ARCHITECTURES), its logits multiplied by `scale`."""
    classes, own = ARCHITECTURES[architecture]
    config = getattr(transformers, f"{classes}Config")(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.2,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0 if architecture == "phi3" else None,  # Phi-3's own is beyond this table
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{classes.removesuffix('Text')}ForCausalLM")(config)
        _randomise_the_constant_parameters(model)
    return sharpen(model.float().eval(), scale)


def _randomise_the_constant_parameters(model: torch.nn.Module) -> None:
    """Fresh models have zero biases and unit norms, which would hide a bias or a norm that is left out."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))


def sharpen(model: torch.nn.Module, scale: float) -> torch.nn.Module:
    """Multiplies all logits by `scale`, in place, so that the confidences of a random model spread over 0..1.

    With tied embeddings the factor is put into the last norm, because the head is the embedding too.
    """
    with torch.no_grad():
        weight = model.model.norm.weight if model.config.tie_word_embeddings else model.lm_head.weight
        weight.mul_(scale)
    return model


def weaken_attention(model: torch.nn.Module, factor: float) -> torch.nn.Module:
    """Scales what attention adds, in place: then the last token says most about the next, masked neighbours or not.

    Without it a random block-diffusion drafter agrees with a random causal target by chance only.
    """
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(factor)
    return model


def perturbed(model: torch.nn.Module, seed: int, strength: float) -> torch.nn.Module:
    """A copy whose head differs by relative noise `strength`: it often, but not always, predicts as `model` does."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = twin.model.norm.weight if twin.config.tie_word_embeddings else twin.lm_head.weight
        noise = torch.randn(weight.shape, generator=generator)
        weight.add_(strength * weight.std() * noise)
    return twin


def toy_pair(architecture: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A target and a drafter's model that often agree; the Qwen2 pair has tied embeddings, as small real ones have."""
    torch.set_num_threads(1)
    target = weaken_attention(toy_model(architecture, 31, scale=4.0, tie=architecture == "qwen2"), 0.3)
    return target, perturbed(target, 32, 0.2)


def run_twice(graphs: object, key: object, function: Callable[[], object]) -> object:
    """What `Graphs.run` does on a GPU at first use: it runs a function some times before it records it."""
    with torch.inference_mode():
        function()
        return function()


def random_ids(seed: int, length: int, *, exclude: Sequence[int] = (), vocab_size: int = VOCAB_SIZE) -> list[int]:
    """`length` uniform token ids, none of them in `exclude`."""
    allowed = torch.tensor([token for token in range(vocab_size) if token not in exclude])
    generator = torch.Generator().manual_seed(seed)
    return allowed[torch.randint(len(allowed), (length,), generator=generator)].tolist()


def causal_logits(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """[len(tokens), V] logits of a single uncached forward of the raw model with ordinary causal attention."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]


def greedy_tokens(
    model: torch.nn.Module, prompt_ids: Sequence[int], *, max_new_tokens: int, stop_ids: Sequence[int]
) -> tuple[list[int], float]:
    """Plain greedy decoding without any cache, the stop token included.

    Returns the new tokens and the smallest gap between the best and the second logit met on the way: where it is
    about as small as float32 noise, another order of summation may rightly choose another token.
    """
    tokens, smallest_gap = list(prompt_ids), float("inf")
    for _ in range(max_new_tokens):
        (best, second), (token, _) = (part.tolist() for part in causal_logits(model, tokens)[-1].topk(2))
        smallest_gap = min(smallest_gap, best - second)
        tokens.append(token)
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt_ids) :], smallest_gap


def greedy_answers(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[tuple[list[int], float]]:
    """`greedy_tokens` of many prompts at once, without stop tokens: padded on the right, where causal rows see nothing
    of it."""
    texts, gaps = [list(prompt) for prompt in prompts], [float("inf")] * len(prompts)
    for _ in range(max_new_tokens):
        longest = max(map(len, texts))
        padded = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        with torch.inference_mode():
            logits = model(input_ids=padded, use_cache=False).logits
        last = logits[torch.arange(len(texts)), torch.tensor([len(text) - 1 for text in texts])].topk(2)
        for index, ((best, second), (token, _)) in enumerate(zip(*(part.tolist() for part in last), strict=True)):
            gaps[index] = min(gaps[index], best - second)
            texts[index].append(token)
    return [(text[len(prompt) :], gap) for prompt, text, gap in zip(prompts, texts, gaps, strict=True)]


def clear_answers(
    model: torch.nn.Module, prompts: Sequence[list[int]], count: int, max_new_tokens: int
) -> list[tuple[list[int], list[int]]]:
    """The first `count` prompts whose greedy continuation has no close call, each with it."""
    answered = zip(prompts, greedy_answers(model, prompts, max_new_tokens), strict=True)
    return [(prompt, greedy) for prompt, (greedy, gap) in answered if gap > TOO_CLOSE][:count]


def next_of_each(model: torch.nn.Module, prompt_ids: Sequence[int], answer: Sequence[int]) -> tuple[list[int], float]:
    """What the model writes greedily at each place of an answer, given what stands before; and the smallest gap.

    One uncached forward. Where it equals the answer, the answer is what greedy decoding writes, token after token.
    """
    values, tokens = causal_logits(model, [*prompt_ids, *answer])[len(prompt_ids) - 1 : -1].topk(2)
    return tokens[:, 0].tolist(), float((values[:, 0] - values[:, 1]).min())


def clear_prompt(model: torch.nn.Module, length: int, max_new_tokens: int) -> tuple[list[int], list[int]]:
    """A random prompt whose greedy continuation never has a close call, and that continuation (without stop token)."""
    prompt, greedy = _clear_prompt(model, length, max_new_tokens)
    return list(prompt), list(greedy)


@cache
def _clear_prompt(model: torch.nn.Module, length: int, max_new_tokens: int) -> tuple[list[int], list[int]]:
    """Looked for once a model, which nobody changes afterwards."""
    for seed in range(1000 * length, 1000 * length + 20):
        prompt = random_ids(seed, length)
        greedy, gap = greedy_tokens(model, prompt, max_new_tokens=max_new_tokens, stop_ids=())
        if gap > TOO_CLOSE:
            return prompt, greedy
    raise AssertionError("no clear prompt among 20")


def toy_tokenizer(words: Sequence[str], *, unknown: str = "<unk>", stop: str = "<end>") -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `words` (split at whitespace), with an unknown and an end-of-text token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([unknown, stop, *words]))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, eos_token=stop)
