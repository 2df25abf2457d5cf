"""Figure: how sure to be before a token is unmasked, question by question: speedup, acceptance and passes over the
unmask threshold of a static dLLM drafter, a column per question. `threshold_insights_dataset` is over all of them.

    python -m plotting.threshold_insights_problem results --question_ids 3 13 --out threshold.pdf
"""

from argparse import Namespace

from matplotlib.figure import Figure

from plotting.cli import TABLES, Command, asked
from plotting.inputs import read_question_tables, under_one_engine
from plotting.threshold_insights_dataset import SWEEP
from specdec.errors import UserError

MAX_QUESTIONS = 4


def build(options: Namespace) -> Figure:
    """UserError for more questions than fit."""
    tables = under_one_engine(read_question_tables(options.inputs, asked(options)), options.engine)
    if len(tables) > MAX_QUESTIONS:
        raise UserError(f"{len(tables)} questions do not fit: choose {MAX_QUESTIONS} by --question_ids")
    return SWEEP.figure(tables, [])


main = Command("threshold_insights_problem", __doc__, build, TABLES)

if __name__ == "__main__":
    raise SystemExit(main())
