"""Record a trace per question: the target's text, and what every drafter would write along it.

`failfast replay` then runs any setting on the traces, without a model.
"""

from collections.abc import Sequence

from specdec.commands.flags import StrictParser, add_flags
from specdec.commands.run import carry_out, names_of
from specdec.config import RunConfig

FLAGS = (
    *("max_new_tokens", "record_batch", "chain_len", "latency_profile"),
    *("output_dir", "overwrite", "dry_run", "log_level"),
)
EXAMPLES = (
    "failfast record --dataset_name gsm8k --num_questions 30 --output_dir results/traces",
    "failfast record --grid paper --output_dir results/traces",
)


def main(arguments: Sequence[str], program: str) -> int:
    """Exit status: 0 done, 2 a mistake of the user's, 130 or 143 interrupted."""
    parser = StrictParser(prog=program, description=__doc__, examples=EXAMPLES)
    add_flags(parser, (*names_of("questions", "models", "drafters", "sweeps", "drafting"), *FLAGS))
    parser.add_settings_flag()
    return carry_out(program, lambda: RunConfig.of(**vars(parser.parse_args(arguments)), record=True))
