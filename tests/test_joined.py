"""Joined layers give what transformers' modules gave, in whatever order passes are made; what they cannot run stays."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import transformers
from toys import VOCAB_SIZE, random_ids, sharpen, toy_model
from transformers import PreTrainedModel

from specdec.models import joined
from specdec.models.joined import JoinedBody, body_of
from specdec.models.lm import CachedLM
from specdec.models.pages import PagedLM, Row

TOLERANCE = {"atol": 1e-4, "rtol": 1e-5}  # of logits that reach 30
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True, "sliding_window": 12}
SHAPES = {
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-mixed": ("Qwen2", MIXED),
    "llama": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "mistral": ("Mistral", {"sliding_window": 12}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-mixed": ("Qwen3", {"head_dim": 24, **MIXED}),
}


@pytest.fixture(scope="module", params=SHAPES)
def modules(request: pytest.FixtureRequest, one_thread: None) -> PreTrainedModel:
    return random_shape(*SHAPES[request.param], random.Random(request.param))


@pytest.fixture
def lms(modules: PreTrainedModel) -> list[CachedLM]:
    """By transformers' modules, and by joined layers of the same weights."""
    model = copy.deepcopy(modules)
    body = body_of(model)
    assert isinstance(body, JoinedBody)
    return [CachedLM(modules), CachedLM(model, body=body)]


def random_shape(classes: str, own: dict[str, object], rng: random.Random) -> PreTrainedModel:
    """A small network of random sizes, of which no parameter is 0 or 1."""
    heads, kv_heads = rng.choice([(4, 2), (6, 2), (4, 4), (5, 1)])
    config = getattr(transformers, f"{classes}Config")(
        **{"vocab_size": VOCAB_SIZE, "hidden_size": heads * rng.choice((8, 12)), "num_hidden_layers": 2},
        **{"intermediate_size": rng.choice((48, 56)), "num_attention_heads": heads, "num_key_value_heads": kv_heads},
        **{"initializer_range": 0.2, "rms_norm_eps": rng.choice((1e-6, 1e-2)), "pad_token_id": None, **own},
    )
    torch.manual_seed(rng.randrange(1000))
    model = getattr(transformers, f"{classes}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return sharpen(model, 2.0)


@pytest.mark.parametrize("block_size", [1, 8])
def test_any_history_gives_the_modules_logits_and_taps(lms: list[CachedLM], block_size: int) -> None:
    rng = random.Random(block_size)
    for step in range(40):
        tokens = random_ids(step, rng.choice((1, 2, 7, 16, 33)))
        keep = rng.choice((None, [], [len(tokens) - 1]))
        want, got = (lm.forward(tokens, block_size=block_size, keep=keep, taps=(1, 0)) for lm in lms)
        torch.testing.assert_close(got, want, **TOLERANCE)
        num_kept, goes_back = rng.randint(0, len(tokens)), rng.random() < 0.2
        for lm in lms:
            lm.commit(num_kept)
        torch.testing.assert_close(lms[1].features, lms[0].features, **TOLERANCE)
        length = rng.randint(0, lms[0].length) if goes_back else lms[0].length
        for lm in lms:
            lm.rollback(length)


def test_part_of_a_pass_run_again_gives_the_modules_logits(lms: list[CachedLM]) -> None:
    for lm in lms:
        lm.forward(random_ids(1, 32), block_size=32)
        lm.commit(32)
        lm.forward(random_ids(2, 32), block_size=32)
    want, got = (lm.forward_within(random_ids(3, 8), 8, keep=[0, 7]) for lm in lms)
    torch.testing.assert_close(got, want, **TOLERANCE)


def test_rows_over_pages_give_the_modules_logits(lms: list[CachedLM]) -> None:
    found = []
    for lm in lms:
        paged = PagedLM(lm, 8)
        first, second = paged.add_trunk(random_ids(4, 16), keep=[15])[0]
        rows = [Row(path, tuple(random_ids(len(path), 8)), (0, 7)) for path in ((), (first,), (first, second))]
        logits = paged.forward(rows)
        [page] = paged.commit([2])
        again = paged.forward([Row((first, second, page), rows[0].tokens, (3,)), rows[1]])
        found.append(torch.cat([logits, again]))
    torch.testing.assert_close(found[1], found[0], **TOLERANCE)


def test_hidden_states_of_nothing_but_zeros_give_numbers() -> None:
    model = toy_model("llama", 1)
    with torch.no_grad():
        model.get_input_embeddings().get_parameter("weight").zero_()
    assert CachedLM(model, body=body_of(model)).forward([1, 2]).isfinite().all()


def test_a_model_keeps_working_and_its_weights_their_values(modules: PreTrainedModel) -> None:
    model = copy.deepcopy(modules)
    body_of(model)
    assert all(map(torch.equal, model.parameters(), modules.parameters()))
    ids = torch.tensor([random_ids(5, 9)])
    torch.testing.assert_close(model(ids).logits, modules(ids).logits, **TOLERANCE)


@pytest.mark.parametrize(("num_columns", "stride"), [(320, 320), (512, 528), (1024, 1040), (4096, 4112)])
def test_rows_of_weights_never_stand_a_multiple_of_2_kib_apart(num_columns: int, stride: int) -> None:
    weight_NC = torch.randn(num_columns, 3)
    columns_CN = joined.as_columns(weight_NC)
    assert columns_CN.equal(weight_NC.t()) and columns_CN.stride() == (stride, 1)


def test_what_cannot_be_joined_runs_by_its_own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [toy_model(name, 1) for name in ("phi3", "gemma3_text", "qwen3_moe")]
    half, gelu, big = toy_model("qwen2", 1).bfloat16(), toy_model("llama", 1), toy_model("llama", 1)
    gelu.config.hidden_act = "gelu"
    for model in (*others, half, gelu):
        assert body_of(model) is model.get_submodule("model")
    monkeypatch.setattr(joined, "JOINED_UP_TO", 100)
    assert body_of(big) is big.get_submodule("model")
