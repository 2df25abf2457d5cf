"""A DSpark head as training writes it, in DeepSpec's own reader and rounds: every tensor finds a place and no place is
left empty; along the bundled target's answers its drafts are this program's, logits and confidences to 1e-4.

Skipped without DeepSpec (`oracles.py`). FAILFAST_DSPARK_HEADS names the folders of more heads of the bundled target.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live import plain_answer
from oracles import deepspec, keep_verdict

from experiments.dflash_oracle import deepspec_drafts, features_of
from specdec import open_session
from specdec.decoding.loop import speculate
from specdec.models import dflash_parts
from specdec.models.checkpoints import BUNDLED_DIR
from specdec.models.tokens import encode_prompt
from specdec.questions.sets import load_problems
from specdec.records.rounds import Round
from specdec.session import Session
from training.batches import pack_documents
from training.drafting import Lesson
from training.heads import HeadSettings, train_head, write_head
from training.loop import LoopSettings, Place
from training.make_heads import head_training
from training.models import load_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
NUM_QUESTIONS, NUM_TOKENS, TAUGHT = 24, 64, "taught here"
NAMED = os.environ.get("FAILFAST_DSPARK_HEADS", "").split(os.pathsep)
SETTINGS = HeadSettings(
    LoopSettings(num_steps=20, num_docs=4, learning_rate=3e-3), num_layers=2, block_size=7, num_begins=4, markov_rank=8
)
COMPARED = ("backbone_logits", "markov_logits", "confidences")
Drafted = tuple[int, list[int], list[float]]  # tokens before a block, its drafts, and how sure each is
Apart = dict[str, float]  # of all that is compared
Walked = tuple[torch.Tensor, ...]  # of a block: the logits of its backbone, and with the token before; [S, V]


@pytest.fixture(scope="module")
def reader() -> Any:
    """The class that DeepSpec reads such a head with."""
    return deepspec("deepspec.modeling.dspark.qwen3").Qwen3DSparkModel


@pytest.fixture(scope="module")
def verdict() -> Iterator[dict[str, object]]:
    found: dict[str, object] = {}
    yield found
    keep_verdict(found)


def prompts_of(session: Session) -> list[list[int]]:
    return [encode_prompt(session.tokenizer, one.prompt) for one in load_problems("bundled")[:NUM_QUESTIONS]]


def taught(folder: Path) -> Path:
    """A small head of the bundled target, trained for some steps and written."""
    session = open_session(drafters=["plain"], device="cpu")
    prompts = prompts_of(session)
    docs = pack_documents(prompts, [plain_answer(session, prompt, NUM_TOKENS) for prompt in prompts], 640)
    lesson = Lesson(load_model(BUNDLED_DIR / "target"), session.tokenizer, docs)
    made = head_training("dspark", lesson, SETTINGS, session.tokenizer.mask_token_id)
    train_head("dspark", made, lesson, SETTINGS, Place(folder / "x.checkpoint.pt", lesson.device))
    write_head(made, folder / "head", {})
    return folder / "head"


def watched(network: Any, monkeypatch: pytest.MonkeyPatch) -> list[Walked]:
    """What this program's network chooses from in every block that it drafts."""
    noted, rows, walk, choose = list[Walked](), list[torch.Tensor](), network._walk, dflash_parts.most_probable

    def chosen(logits_BV: torch.Tensor) -> torch.Tensor:
        rows.append(logits_BV[0].clone())
        return choose(logits_BV)

    def walked(w: Any, hidden_BSC: torch.Tensor, logits_BSV: torch.Tensor, anchors_B: torch.Tensor) -> torch.Tensor:
        rows.clear()
        found: torch.Tensor = walk(w, hidden_BSC, logits_BSV, anchors_B)
        noted.append((logits_BSV[0].clone(), torch.stack(rows)))
        return found

    monkeypatch.setattr(dflash_parts, "most_probable", chosen)
    monkeypatch.setattr(network, "_walk", walked)
    return noted


def watched_author(head: Any) -> list[Walked]:
    """The same of DeepSpec's."""
    noted, draw = list[Walked](), head.sample_draft_tokens

    def drawn(logits_BSV: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, corrected_BSV = draw(logits_BSV, **given)
        noted.append((logits_BSV[0].clone(), corrected_BSV[0].clone()))
        return tokens, corrected_BSV

    head.sample_draft_tokens = drawn
    return noted


def far_apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, of the words that this program may draft."""
    theirs = theirs[..., : ours.shape[-1]]
    theirs = theirs.masked_fill(ours.isinf(), -torch.inf)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    return float((ours - theirs).nan_to_num(0.0).abs().max())


def compare_rounds(turns: list[Round], ours: list[Walked], drafts: list[Drafted], theirs: list[Walked]) -> Apart:
    """How far apart they were over a text; both must draft the same. `drafts` and `theirs`: after every prefix."""
    apart, first = dict.fromkeys(COMPARED, 0.0), drafts[0][0]
    for turn, own in zip([turn for turn in turns if turn.draft_len], ours, strict=True):
        number = turn.prefix_len - first
        prefix_len, tokens, sures = drafts[number]
        # Near the end of an answer no more slots are walked through than there is room for.
        assert (prefix_len, tokens[: len(own[1])]) == (turn.prefix_len, own[1].argmax(-1).tolist())
        assert tokens[: turn.draft_len] == turn.draft_tokens
        told = torch.tensor(turn.confidences), torch.tensor(sures[: turn.draft_len])
        logits = [(one, other[: len(one)]) for one, other in zip(own, theirs[number], strict=True)]
        for what, pair in zip(COMPARED, [*logits, told], strict=True):
            apart[what] = max(apart[what], far_apart(*pair))
    return apart


@pytest.mark.parametrize("name", [TAUGHT, *filter(None, NAMED)])
def test_deepspec_reads_what_training_writes_and_drafts_the_same(
    name: str, reader: Any, verdict: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = taught(tmp_path) if name == TAUGHT else Path(name)
    how = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}
    head, places = reader.from_pretrained(folder, **how)
    assert not any(places.values()), places
    size = head.eval().block_size
    session = open_session(drafters=["dflash_sf"], draft_len=(size,), dflash_dir=str(folder), device="cpu")
    drafter, target = session.drafter(session.specs[-1]), session.target()
    ours, theirs = watched(drafter.network, monkeypatch), watched_author(head)
    apart, accepted, changed = dict.fromkeys(COMPARED, 0.0), [0] * (size + 1), 0
    for prompt in prompts_of(session):
        ours.clear(), theirs.clear()
        turns = speculate(target, drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=session.stop_ids)
        text = [*prompt, *(token for turn in turns for token in turn.emitted_tokens)]
        features = features_of(target.lm.model, text, head.target_layer_ids)
        found = compare_rounds(turns, ours, deepspec_drafts(head, text, features, len(prompt) - 1), theirs)
        apart = {what: max(known, found[what]) for what, known in apart.items()}
        changed += sum(int((base.argmax(-1) != last.argmax(-1)).sum()) for base, last in ours)
        for turn in turns:
            accepted[turn.accepted_len] += turn.draft_len > 0
    assert sum(accepted) > 2 * NUM_QUESTIONS and sum(accepted[1:])
    rounds = sum(accepted)
    verdict[Path(name).name] = {
        "block_size": size,
        "tensors": len(head.state_dict()),
        "without_a_place": sum(map(len, places.values())),
    } | {
        **{"rounds": rounds, "drafts_equal": rounds, "changed_by_markov": changed},
        **{"accepted_lengths": accepted, "largest_difference": apart},
    }
