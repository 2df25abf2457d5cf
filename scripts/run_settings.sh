#!/usr/bin/env bash
# One run whose settings are a file, every flag of failfast.py by its name (docs/cluster.md).
#   SETTINGS=sweep.toml bash scripts/run_settings.sh                       here
#   SETTINGS=sweep.toml scripts/submit.sh scripts/run_settings.sh 8        on a cluster: 8 tasks, then a ranking
#SBATCH --job-name=run_settings
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2
[ -n "${SETTINGS:-}" ] || { echo "give SETTINGS=FILE.toml" >&2; exit 2; }
run "$PYTHON" failfast.py --settings "$SETTINGS" --output_dir "$OUTPUT_DIR" --shard slurm \
  ${EXTRA_ARGS[@]+"${EXTRA_ARGS[@]}"}
