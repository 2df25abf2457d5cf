#!/usr/bin/env bash
# FailFast over the taus around its best, N_max and N.
#   bash scripts/sweep_dynamic_freqs.sh                       here
#   scripts/submit.sh scripts/sweep_dynamic_freqs.sh 8        on a cluster: an array of 8 tasks, then a ranking
#SBATCH --job-name=sweep_dynamic_freqs
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

# PUBLISHED=1: the settings of the published script, where the environment says none.
[ -z "${PUBLISHED:-}" ] || : "${TARGETS:=Qwen/Qwen2.5-7B-Instruct}" \
  "${DATASETS:=mt_bench}" \
  "${NUM_QUESTIONS:=5}" \
  "${TAUS:=0.5}" \
  "${ALSO:=ar_sf dllm_sf}"

TAUS=(${TAUS:-0.2 0.25 0.3 0.35 0.4 0.45 0.5})
MAX_SPEC_LENS=(${MAX_SPEC_LENS:-60})
INCR_LENS=(${INCR_LENS:-10})
THRESHOLDS=(${THRESHOLDS:-0.05})

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
sweep_failfast
