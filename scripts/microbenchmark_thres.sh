#!/usr/bin/env bash
# FailFast over all of tau, the confidence below which a draft ends, as plotting/microbenchmark_thresholds.py shows it.
#   bash scripts/microbenchmark_thres.sh                       here
#   scripts/submit.sh scripts/microbenchmark_thres.sh 8        on a cluster: an array of 8 tasks, then a ranking
#SBATCH --job-name=microbenchmark_thres
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

# PUBLISHED=1: the settings of the published script, where the environment says none.
[ -z "${PUBLISHED:-}" ] || : "${TARGETS:=Qwen/Qwen2.5-32B-Instruct}" \
  "${DATASETS:=math}" \
  "${TAUS:=0.05 0.1 0.75 0.8 0.85 0.9 0.95}" \
  "${ALSO:=ar_sf}"

TAUS=(${TAUS:-0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.55 0.6 0.65 0.7 0.75 0.8 0.85 0.9 0.95})
MAX_SPEC_LENS=(${MAX_SPEC_LENS:-60})
INCR_LENS=(${INCR_LENS:-10})
THRESHOLDS=(${THRESHOLDS:-0.05})

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
sweep_failfast
