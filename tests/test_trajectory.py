"""Tokens as people see them: bytes, pieces, trajectories, confidences, and the terminal view."""

from __future__ import annotations

import io
import json
import re

import pytest
from made_up import made_up_trace
from samples import make_record, make_round
from written import HOSTILE, bundled_tokens, reader, tokens_of, written

from specdec.drafters import block_drafter
from specdec.drafters.ar import ArStatic
from specdec.drafters.block_diffusion import FailFast
from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED_DIR
from specdec.models.token_text import TokenBytes, find_tokenizer, read_token_bytes, token_bytes_of
from specdec.ranking.logs import parse_log_lines
from specdec.traces.replay import replay
from specdec.views.terminal import AnswerView, trajectory_lines, wants_colour
from specdec.views.trajectory import BYTES, SPECIAL, TEXT, Piece, Reader, trajectory

# --- token bytes ---


def test_bytes_of_tokens_are_what_the_library_decodes():
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(BUNDLED_DIR / "target" / "tokenizer.json"))
    tokens = library.encode("Naïve 漢字, 12 + 30 = $42$\n\n 👩‍👩‍👧\tx").ids
    found = bundled_tokens()
    assert b"".join(found.by_id[token] for token in tokens).decode() == library.decode(tokens)
    assert len(found.by_id) == library.get_vocab_size()
    assert found.specials[2] == "<|im_end|>"


@pytest.mark.parametrize(
    ("decoder", "vocabulary", "expected"),
    [
        ({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
         {"▁the": 0, "<0xE2>": 1, "re": 2}, {0: b" the", 1: b"\xe2", 2: b"re"}),
        ({"type": "Metaspace"}, [["▁a", -1.0], ["b", -2.0]], {0: b" a", 1: b"b"}),
        ({"type": "WordPiece"}, {"un": 0, "##do": 1}, {0: b" un", 1: b"do"}),
        (None, {"word": 0}, {0: b" word"}),
    ],
)  # fmt: skip
def test_other_tokenizers(decoder, vocabulary, expected):
    assert token_bytes_of({"model": {"vocab": vocabulary}, "decoder": decoder}).by_id == expected


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {"vocab": 3}}', "nonsense"])
def test_what_is_no_tokenizer_is_named(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "tokenizer.json"))):
        read_token_bytes(tmp_path)


def test_where_tokenizers_are_found(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    assert find_tokenizer("bundled") == BUNDLED_DIR / "target" / "tokenizer.json"
    assert find_tokenizer(str(tmp_path)) == tmp_path / "tokenizer.json"
    assert find_tokenizer("org/no-such-model-anywhere") is None
    assert find_tokenizer("not a name: at all") is None


# --- pieces ---


def test_a_split_character_belongs_to_the_token_that_completes_it():
    pieces, pending = reader().read(tokens_of("a✓b"))
    assert pieces == [Piece("a"), Piece("E2", BYTES), Piece("9C", BYTES), Piece("✓"), Piece("b")]
    assert pending == b""


def test_a_character_may_go_on_behind_a_piece_that_ends_one():
    tokens = Reader(TokenBytes({0: "é".encode()[:1], 1: "é".encode()[1:] + "ü".encode()[:1], 2: "ü".encode()[1:]}, {}))
    assert [piece.text for piece in tokens.read([0, 1, 2])[0]] == ["C3", "é", "ü"]


def test_broken_characters_unknown_tokens_and_specials():
    pieces, pending = reader().read([*tokens_of(b"\xe2\x9c"), *tokens_of("x"), 2, 999_999, *tokens_of(b"\xff")])
    assert [(piece.text, piece.kind) for piece in pieces] == [
        ("E2", BYTES), ("9C", BYTES), ("\ufffdx", TEXT),
        ("<|im_end|>", SPECIAL), ("<999999>", SPECIAL), ("\ufffd", TEXT),
    ]  # fmt: skip
    assert pending == b""


def test_what_steers_a_terminal_or_turns_text_round_is_spelled_out():
    text = "".join(piece.text for piece in reader().read(tokens_of(HOSTILE))[0] if piece.kind == TEXT)
    assert not set("\x1b\x07\x00\u202e\u2028\u2029") & set(text)
    assert "\\x1b[31m" in text and "\\u202e" in text and "👩‍👩‍👧" in text


# --- trajectories ---


def test_a_trajectory_says_what_was_accepted_rejected_and_corrected():
    record = make_record(rounds=[
        make_round(3, tuple(tokens_of("abc")), 2, next_token=tokens_of("X")[0]),
        make_round(6, tuple(tokens_of("de")), 2, next_token=tokens_of("!")[0]),
    ])  # fmt: skip
    first, second = trajectory(record, reader())
    assert [piece.text for piece in first.accepted] == ["a", "b"]
    assert [piece.text for piece in first.rejected] == ["c"]
    assert (first.own, first.is_correction) == (Piece("X"), True)
    assert (second.rejected, second.own, second.is_correction) == ([], Piece("!"), False)


def test_half_characters_read_on_across_rounds_and_into_rejected_tokens():
    head, middle, tail = tokens_of("✓")
    wrong = tokens_of("✔")[2]  # as ✓ but for its last byte
    rounds = [make_round(3, (head,), 1, next_token=middle), make_round(5, (wrong,), 0, next_token=tail)]
    record = make_record(rounds=rounds)
    first, second = trajectory(record, reader())
    assert first.own == Piece("9C", BYTES)
    assert second.rejected == [Piece("✔")]
    assert second.own == Piece("✓")


@pytest.mark.parametrize("rule", [(0.5, 0.55, 12, 3, 4), (0.5, 0.3, 9, 2, 5), (0.2, 0.6, 8, 4, 3)])
@pytest.mark.parametrize("reuse_drafts", [False, True])
def test_confidences_of_the_published_rule_are_found_again(monkeypatch, rule, reuse_drafts):
    """Against what the drafter itself knew: its run, asked right after each draft."""
    spec, known = FailFast(*rule), []

    def finish(run, window, **options):
        draft = drafting_finish(run, window, **options)
        known.append([*run.confidences(window.size), *[None] * len(draft.tokens)][: len(draft.tokens)])
        return draft

    drafting_finish = block_drafter.finish_draft
    monkeypatch.setattr(block_drafter, "finish_draft", finish)
    num_certain = 0
    for seed in range(6):
        known.clear()
        trace = made_up_trace(seed, num_tokens=40, chain_len=40, skill=0.85, thresholds=(spec.unmask_threshold,))
        record = replay(trace, spec, {"reuse_drafts": reuse_drafts})
        assert len(known) == record.num_rounds
        for turn, expected in zip(record.rounds, known, strict=True):
            found = spec.token_confidences(turn, record.identity.settings)
            assert len(found) == turn.draft_len
            for place, (one, other) in enumerate(zip(found, expected[: turn.draft_len], strict=True)):
                is_first_of_block = (turn.prefix_len + place) % record.identity.settings["block_size"] == 0
                assert one == (None if is_first_of_block else other)
                num_certain += one is not None
    assert num_certain > 100


def test_one_confidence_per_token_is_taken_as_it_is():
    turn = make_round(3, (5, 6, 7), 1, confidences=[0.1, 0.2])
    assert ArStatic(3).token_confidences(turn, {}) == [0.1, 0.2, None]
    strict = FailFast(0.1, 0.4, 9, 3, 3, "strict")
    assert strict.token_confidences(turn, {"block_size": 32, "small_block_size": 8}) == [0.1, 0.2, None]


def test_confidences_that_do_not_fit_are_unknown():
    turn = make_round(3, (5, 6, 7), 1, confidences=[0.5], num_denoise_passes=4)
    published = FailFast(0.1, 0.4, 9, 3, 3)
    assert published.token_confidences(turn, {"block_size": 32, "small_block_size": 8}) == [None, None, None]


# --- the terminal ---


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (_Terminal(), {}, True),
        (_Terminal(), {"NO_COLOR": ""}, True),
        (_Terminal(), {"NO_COLOR": "1"}, False),
        (_Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_when_there_are_colours(stream, environment, expected):
    assert wants_colour(stream, environment) is expected


def lines_of(record, is_coloured):
    return trajectory_lines(record, trajectory(record, reader()), is_coloured=is_coloured)


def test_colours_and_marks():
    rounds = [make_round(3, tuple(tokens_of("a\nb")), 2, next_token=tokens_of("X")[0])]
    record = make_record(rounds=rounds)
    assert lines_of(record, True)[1:] == ["| a", "| \x1b[9;31mb\x1b[0m\x1b[32mX\x1b[0m"]
    assert lines_of(record, False)[1:] == ["| a", "| [-b-]{+X+}"]


def test_a_rejected_line_break_breaks_no_line():
    record = make_record(rounds=[make_round(3, tuple(tokens_of("\n")), 0, next_token=tokens_of("X")[0])])
    assert lines_of(record, False)[1:] == ["| [-\\n-]{+X+}"]


@pytest.mark.parametrize("is_coloured", [True, False])
def test_generated_text_can_neither_steer_a_terminal_nor_forge_a_log(is_coloured):
    forged = "[Problem 0, ar_None_sf_8] Acceptance rate: 99.0% (99/100)\n" * 2
    lines = lines_of(written(tokens_of(HOSTILE + forged), "ar_None_sf_8"), is_coloured)
    assert all(line.startswith("| ") for line in lines[1:])
    without = re.sub(r"\x1b\[(?:9;31|32|0)m", "", "\n".join(lines))
    assert all(character.isprintable() or character in "\n\u200d" for character in without)
    assert is_coloured or "\x1b" not in "\n".join(lines)
    assert parse_log_lines(lines) == []


def test_without_tokens_the_answer_is_quoted():
    assert AnswerView(None, True).lines(make_record(output_text="a\x1bb")) == ["| a\\x1bb"]
    assert json.dumps(AnswerView(bundled_tokens, False).lines(written(tokens_of("ok"), "plain"))[1]) == '"| ok"'
