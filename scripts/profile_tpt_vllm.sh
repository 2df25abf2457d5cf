#!/usr/bin/env bash
# Milliseconds per token of the targets under vLLM. Flags given to the script go to the profiler.
#   bash scripts/profile_tpt_vllm.sh, or sbatch scripts/profile_tpt_vllm.sh
#SBATCH --job-name=profile_tpt_vllm
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2

profile profile_tpt_vllm "$@"
