"""EAGLE-3 under vLLM: ms per token, acceptance length and what each position accepts, measured from outside.

    python -m profiling.profile_tpt_vllm_eagle3 --target_model_name NAME --vanilla vanilla.json > eagle3.json
    python parse_log.py results/mine --also eagle3.json

`vanilla.json` is what profile_tpt_vllm printed of the same server without speculation. Any other speculative method of
vLLM is measured in the same way.

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

import sys
from collections.abc import Sequence

from profiling.profile_tpt_vllm import VLLM
from profiling.serving.asking import Engine
from profiling.serving.server_profile import run_command

NAME, URL, VERSION = "profiling.profile_tpt_vllm_eagle3", VLLM.base_url, VLLM.version_url
EAGLE3 = Engine(NAME, VLLM.name, URL, VERSION, speculates=True, extra=VLLM.extra)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(EAGLE3, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
