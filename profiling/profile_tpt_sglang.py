"""Ms per token of a model under SGLang, plain or (with --vanilla) with EAGLE-3, measured from outside.

    python -m profiling.profile_tpt_sglang --target_model_name NAME > vanilla.json
    python -m profiling.profile_tpt_sglang --target_model_name NAME --vanilla vanilla.json > eagle3.json

Start the server first (docs/servers.md).

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

import sys
from collections.abc import Sequence

from profiling.profile_tpt_vllm import VLLM
from profiling.serving.asking import Engine
from profiling.serving.server_profile import run_command

URL, VERSION = "http://127.0.0.1:30000/v1", "/get_server_info"
METHOD = "speculative_algorithm"
SGLANG = Engine(
    "profiling.profile_tpt_sglang", "SGLang", URL, VERSION, speculates=None, extra=VLLM.extra, says_method=METHOD
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(SGLANG, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
