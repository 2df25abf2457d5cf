"""Earlier answers: what plain decoding wrote on the questions before each in a run, read from the run's own records.

The order is that of the whole run, not of a shard of it: a shard that lacks an answer is refused. No model is run.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from specdec.drafters.earlier import ONE_TURN, Earlier
from specdec.drafters.plain import PLAIN, Plain
from specdec.errors import UserError
from specdec.questions.problem import Problem
from specdec.records.identity import Identity, prompt_sha256
from specdec.records.places import load_finished, place_of
from specdec.records.record import identity_path
from specdec.runs.jobs import fitting, fitting_prompt
from specdec.runs.resume import asked_problems
from specdec.session import Session


class EarlierAnswers:
    """The questions of a run that fit the models' context, in its order, and the answers to them."""

    def __init__(self, session: Session, here: Sequence[Problem]) -> None:
        """`here`: what this process asks. Raises UserError for a run whose earlier answers are not fixed, and where one
        is neither there nor will be made here."""
        config = self._config = session.config
        _refuse(config.decoding.is_sampled, "earlier answers are greedy ones: leave out --temperature")
        _refuse(config.decoding.verify == "trace", "earlier answers are read from records: leave out --verify trace")
        problems, _ = fitting(session, asked_problems(config))
        _refuse(any(problem.later for problem in problems), ONE_TURN)
        settings = session.results_identity(Plain())
        self._identities = [
            config.identity(one.dataset, one.question_id, PLAIN, prompt_sha256(fitting_prompt(session, one)), settings)
            for one in problems
        ]
        self._known: list[list[int]] = []
        made_here = {one.question_id for one in here} if PLAIN in config.drafters.kinds else set()
        asked = [at for at, one in enumerate(problems) if one.question_id in {other.question_id for other in here}]
        for identity in self._identities[: max(asked, default=0)]:
            if identity.question_id not in made_here and place_of(self._path(identity)) is None:
                raise self._missing(identity)

    def before(self, problem: Problem) -> Earlier:
        """What was asked before a question of the run."""
        numbers = [one.question_id for one in self._identities]
        count = numbers.index(problem.question_id)
        questions = [(one.question_id, str(one.settings["prompt_sha256"])) for one in self._identities[:count]]
        return Earlier(questions, partial(self._answers, count))

    def _answers(self, count: int) -> list[list[int]]:
        for identity in self._identities[len(self._known) : count]:
            record = load_finished(self._path(identity), identity)
            if record is None:
                raise self._missing(identity)
            self._known.append(record.output_tokens)
        return self._known[:count]

    def _path(self, identity: Identity) -> Path:
        return identity_path(self._config.output.output_dir, identity)

    def _missing(self, identity: Identity) -> UserError:
        return UserError(
            f"a drafter reads the answers to earlier questions, and {self._config.output.output_dir} has none of plain "
            f"decoding to question {identity.question_id}: run plain on all questions first, without --shard"
        )


def _refuse(is_asked: bool, why: str) -> None:
    if is_asked:
        raise UserError(why)
