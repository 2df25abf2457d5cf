"""Ms per token of a model under vLLM, plain decoding, measured from outside.

    python -m profiling.profile_tpt_vllm --target_model_name Qwen/Qwen2.5-7B-Instruct --dataset_name gsm8k

Start the server first (docs/servers.md).

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

import sys
from collections.abc import Sequence

from profiling.serving.asking import NEUTRAL, Engine
from profiling.serving.server_profile import run_command

# Usage in every chunk says how many tokens the first one holds.
EXTRA = {**NEUTRAL, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
VLLM = Engine(
    "profiling.profile_tpt_vllm", "vLLM", "http://127.0.0.1:8000/v1", "/version", speculates=False, extra=EXTRA
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(VLLM, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
