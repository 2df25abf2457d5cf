#!/usr/bin/env bash
# The block-diffusion drafter at one length over the threshold at which it unmasks.
#   bash scripts/concavity_motivation.sh                       here
#   scripts/submit.sh scripts/concavity_motivation.sh 8        on a cluster: an array of 8 tasks, then a ranking
#SBATCH --job-name=concavity_motivation
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

# PUBLISHED=1: the settings of the published script, where the environment says none.
[ -z "${PUBLISHED:-}" ] || : "${TARGETS:=Qwen/Qwen2.5-32B-Instruct}" \
  "${DATASETS:=math}"

THRESHOLDS=(${THRESHOLDS:-0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.55 0.6 0.65 0.7 0.75 0.8 0.85 0.9 0.95})
SPEC_LENS=(${SPEC_LENS:-8})

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
sweep_static
