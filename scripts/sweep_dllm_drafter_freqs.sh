#!/usr/bin/env bash
# The block-diffusion drafter over static draft lengths.
#   bash scripts/sweep_dllm_drafter_freqs.sh                       here
#   scripts/submit.sh scripts/sweep_dllm_drafter_freqs.sh 8        on a cluster: an array of 8 tasks, then a ranking
#SBATCH --job-name=sweep_dllm_drafter_freqs
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

# PUBLISHED=1: the settings of the published script, where the environment says none.
[ -z "${PUBLISHED:-}" ] || : "${TARGETS:=Qwen/Qwen2.5-14B-Instruct}" \
  "${DATASETS:=gpqa}" \
  "${THRESHOLDS:=0.9}" \
  "${SPEC_LENS:=3 4 5 6 7 8 9 10 11 12 13 14 15 16}"

SPEC_LENS=(${SPEC_LENS:-2 3 4 5 6 7 8 9 10 12 15 20 25})
THRESHOLDS=(${THRESHOLDS:-0.05})

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
sweep_static
