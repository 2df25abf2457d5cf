"""Problem: one question as text, whatever data set it is from. It neither tokenises nor grades."""

from dataclasses import dataclass, replace

from specdec.records.turns import STRIDE, row_of, turn_of

Message = tuple[str, str]  # who speaks (system, user or assistant), and what
SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Problem:
    """One question: one turn of a conversation, mostly its only one.

    `question_id` is the row's index in its split, from 0 (published mt_bench: from row 60), and a million more for each
    turn before this one (`records/turns.py`). `prompt` is the user turn, without a chat template. `reference` is the
    answer as a model would box it (gsm8k and aime: a number without thousands separators or leading zeros; math: as
    the data set has it; gpqa and mmlu: a letter), the canonical solution for code, None where there is none.
    `row` is the data set's row as plain builtins (gpqa: plus "option_order").
    `before`: what was said before the prompt. `later`: the turns after this one, each a prompt and a reference.
    `place`: the file and line of a question of one's own, for messages.
    """

    dataset: str
    question_id: int
    prompt: str
    reference: str | None
    row: dict
    before: tuple[Message, ...] = ()
    later: tuple[tuple[str, str | None], ...] = ()
    place: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """What a chat template is given: all that was said, the prompt last."""
        return [{"role": role, "content": content} for role, content in (*self.before, (USER, self.prompt))]

    @property
    def title(self) -> str:
        """What messages call it: "question 3, turn 2 (traffic.jsonl, line 4)"."""
        turn = turn_of(self.question_id)
        return (
            f"question {row_of(self.question_id)}"
            + (f", turn {turn + 1}" if turn else "")
            + (f" ({self.place})" if self.place else "")
        )

    def alone(self) -> "Problem":
        """This turn without those after it."""
        return replace(self, later=())

    def following(self, answer: str) -> "Problem | None":
        """The next turn, after `answer` to this one; None after the last."""
        if not self.later:
            return None
        (prompt, reference), *rest = self.later
        before = (*self.before, (USER, self.prompt), (ASSISTANT, answer))
        number = self.question_id + STRIDE
        return replace(self, question_id=number, prompt=prompt, reference=reference, before=before, later=tuple(rest))

    @property
    def turns(self) -> list["Problem"]:
        """This turn and those after it, as if all answers were empty: their number, prompts and references."""
        found, following = [self], self.following("")
        while following is not None:
            found.append(following)
            following = following.following("")
        return found
