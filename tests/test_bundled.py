"""The models and questions that come along: small, complete, and lossless under every drafter."""

from __future__ import annotations

import pytest
from live import plain_answer

from specdec.config import RunConfig
from specdec.decoding.chains import Chains, Text
from specdec.decoding.loop import speculate
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import DLLM_DRAFTER, DllmDrafter, DllmStatic, FailFast
from specdec.drafters.dflash import DflashStatic
from specdec.drafters.eagle3 import Eagle3Static
from specdec.drafters.plain import Plain
from specdec.models.checkpoints import BUNDLED_DIR
from specdec.models.tokens import encode_prompt
from specdec.questions.sets import load_problems
from specdec.runs import recording
from specdec.session import Session, open_session

pytestmark = pytest.mark.slow
BUDGET = 34  # from 31 tokens on, two ends of a block of 32 are passed
MEGABYTE = 10**6
SPECS: tuple[Spec, ...] = (
    Plain(),
    ArStatic(6),
    ArDynamic(0.4, 30, 5),
    DllmStatic(0.05, 8),
    DllmStatic(0.9, 11),
    FailFast(0.05, 0.45, 60, 10),
    FailFast(0.05, 0.2, 60, 10),
    FailFast(0.9, 0.3, 24, 7, first_window=5, rule="strict"),
    Eagle3Static(6),
    DflashStatic(7),
)


@pytest.fixture(scope="module")
def sessions(one_thread: None) -> list[Session]:
    """The bundled family with KV and draft reuse as by default, and the other way round."""
    asked = {"device": "cpu", "drafters": ["plain", "ar_sf", "dllm_sf", "eagle3_sf", "dflash_sf"]}
    usual = open_session(RunConfig.of(**asked))
    other = open_session(RunConfig.of(**asked, disable_reusing_drafter_kvs=True, reuse_drafts=True))
    other.models = usual.models
    return [usual, other]


@pytest.mark.parametrize(("turn", "prompt_len"), list(enumerate([31, 32, 33, None])))
def test_every_drafter_writes_what_the_target_alone_writes(
    sessions: list[Session], turn: int, prompt_len: int | None
) -> None:
    """Each drafter in either session by turns, so that it meets two of the lengths in each."""
    usual = sessions[0]
    problem = load_problems("bundled", question_ids=[2])[0]
    prompt_ids = encode_prompt(usual.tokenizer, problem.prompt)[:prompt_len]
    expected = plain_answer(usual, prompt_ids, BUDGET)
    for index, spec in enumerate(SPECS):
        session = sessions[(index + turn) % 2]
        rounds = speculate(
            session.target(), session.drafter(spec), prompt_ids, max_new_tokens=BUDGET, stop_ids=session.stop_ids
        )
        assert [token for made in rounds for token in made.emitted_tokens] == expected, spec.name


def test_the_drafters_are_of_use(sessions: list[Session]) -> None:
    """Every drafter gets tokens accepted, and the dLLM drafts a round in fewer passes than the AR drafter."""
    session = sessions[0]
    prompts = [encode_prompt(session.tokenizer, problem.prompt) for problem in load_problems("bundled")[:3]]
    passes = {}
    for spec in (*SPECS[1:6], *SPECS[-2:]):
        rounds = [
            turn
            for ids in prompts
            for turn in speculate(
                session.target(), session.drafter(spec), ids, max_new_tokens=BUDGET, stop_ids=session.stop_ids
            )
        ]
        assert sum(turn.accepted_len for turn in rounds) > len(rounds), spec.name
        passes[spec] = sum(turn.num_forward_passes for turn in rounds) / len(rounds)
    assert passes[SPECS[3]] < 0.5 * passes[SPECS[1]]
    assert passes[SPECS[-1]] == 1


def test_networks_record_side_by_side_what_they_record_in_turn(
    sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions, so that what a network kept from the first is in its way."""
    session = sessions[0]
    ids = [session.encode(problem.prompt)[:40] for problem in load_problems("bundled")[:2]]
    texts = [Text(one, len(one) - 6, 7) for one in ids]
    made = []
    for num in (1, 2, 8):
        monkeypatch.setattr(recording, "num_cores", lambda num=num: num)
        found = [recording.record_chains(session, text, recording.wanted_chains(session)) for text in texts]
        made.append([{one.name: one.chains for one in of_text if isinstance(one, Chains)} for of_text in found])
    assert list(made[0][0]) == ["ar", "dllm_0.05", "dflash", "eagle3"]
    assert made[1] == made[0] == made[2]


def test_the_family_is_small_and_has_its_cards() -> None:
    files = [path for path in BUNDLED_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 44 * MEGABYTE
    assert max(path.stat().st_size for path in files) <= 16 * MEGABYTE
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md"}
    for folder in ("target", "ar_drafter", "dllm_drafter", "eagle3_head", "dflash_head"):
        card = (BUNDLED_DIR / folder / "README.md").read_text(encoding="utf-8")
        assert all(word in card for word in ("GSM8K", "MIT", "steps", "arithmetic is wrong"))


def test_the_mask_comes_from_the_checkpoint(sessions: list[Session]) -> None:
    session = sessions[0]
    mask_id = session.mask_ids[DLLM_DRAFTER]
    assert isinstance(session.drafter(SPECS[3]), DllmDrafter)
    assert mask_id == session.sources[DLLM_DRAFTER].config["mask_token_id"]
    assert session.tokenizer.convert_ids_to_tokens(mask_id) == "<|mask|>"
