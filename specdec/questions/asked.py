"""Asked: which questions a run is to ask, as a small dataclass of settings with their flags. It reads no question."""

from argparse import ArgumentTypeError
from dataclasses import dataclass

from specdec.drafters.flags import index, positive_int, seed_number, setting
from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED
from specdec.questions.own import is_own
from specdec.questions.sets import ALL, DATASETS, FIRST, SHORT, STYLES, TURNS, dataset_name

NUM_QUESTIONS = 30
THINKING = ("on", "off")


def known_dataset(given: str) -> str:
    """For the flag: as it was given, if it is a data set."""
    try:
        dataset_name(given)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None
    return given


@dataclass(frozen=True)
class QuestionConfig:
    """Which questions."""

    dataset_name: str = setting(
        f"question set: {', '.join(DATASETS)}; or questions of your own: a .jsonl file with a prompt, messages or "
        "turns a line, or a folder of such files",
        BUNDLED,
        type=known_dataset,
    )
    data_dir: str | None = setting("read DIR/NAME/SPLIT.jsonl instead of the hub", None)
    num_questions: int | None = setting(
        f"the first N questions (default: {NUM_QUESTIONS}; of your own, all)", None, type=positive_int
    )
    question_ids: tuple[int, ...] | None = setting("these questions (indices)", None, nargs="+", type=index)
    shard: str | None = setting(
        "work on part i (from 0) of n of the questions: i/n, or 'slurm' for the place in the job array", None
    )
    turns: str | None = setting(
        "of questions with several turns (default: all; of mt_bench, first)", None, choices=TURNS
    )
    seed: int = setting("orders the options of gpqa, and decides what is sampled", 0, type=seed_number)
    prompt_style: str = setting(
        "'short': the question and a sentence; 'published': FailFast's own prompts, with mt_bench from row 60 on, "
        "gpqa's right answer first, mmlu's validation split",
        SHORT,
        choices=STYLES,
    )
    thinking: str | None = setting(
        "whether the target thinks before it answers, for chat templates that know enable_thinking, as Qwen3's "
        "(default: the template's own)",
        None,
        choices=THINKING,
    )

    @property
    def dataset(self) -> str:
        """The data set's name in paths and tables. Raises UserError for one that is not known."""
        return dataset_name(self.dataset_name)

    @property
    def limit(self) -> int | None:
        """How many questions from the first on; None: all."""
        if self.num_questions is None:
            return None if is_own(self.dataset) else NUM_QUESTIONS
        return self.num_questions

    @property
    def asks_all_turns(self) -> bool:
        """Whether later turns of a question are asked."""
        known = DATASETS.get(self.dataset)
        return (self.turns or (ALL if known is None else known.turns)) != FIRST
