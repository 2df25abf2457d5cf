#!/usr/bin/env bash
# FailFast over N_max, the length that no draft exceeds.
#   bash scripts/microbenchmark_maxlen.sh                       here
#   scripts/submit.sh scripts/microbenchmark_maxlen.sh 8        on a cluster: an array of 8 tasks, then a ranking
#SBATCH --job-name=microbenchmark_maxlen
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

# PUBLISHED=1: the settings of the published script, where the environment says none.
[ -z "${PUBLISHED:-}" ] || : "${TARGETS:=Qwen/Qwen2.5-32B-Instruct}" \
  "${DATASETS:=math}" \
  "${MAX_SPEC_LENS:=10}" \
  "${ALSO:=ar_sf}"

MAX_SPEC_LENS=(${MAX_SPEC_LENS:-10 20 30 40 50 60 70})
TAUS=(${TAUS:-0.45})
INCR_LENS=(${INCR_LENS:-10})
THRESHOLDS=(${THRESHOLDS:-0.05})

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
sweep_failfast
