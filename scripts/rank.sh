#!/usr/bin/env bash
# Ranks what a sweep has left in OUTPUT_DIR, per target and data set, and says what is missing. Exit status 1 if a
# ranking could not be made.
#   bash scripts/rank.sh, or as a job that depends on a sweep (scripts/submit.sh)
#SBATCH --job-name=rank
#SBATCH --output=%x-%j.out

cd "${FAILFAST_DIR:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}" # sbatch runs a copy of this file
. scripts/lib.sh || exit 2

status=0
run "$PYTHON" failfast.py --status "$OUTPUT_DIR" || status=1
for folder in "$OUTPUT_DIR"/pickles/*/*/; do
  [ -d "$folder" ] || continue
  name=$(basename "$(dirname "$folder")")-$(basename "$folder")
  # A failed task leaves configurations with fewer questions: the common ones are ranked, and the ranking says so.
  arguments=("$folder" --latency_profile "${LATENCY_PROFILES[@]}" --allow_unequal ${RANK_ARGS:-})
  if run "$PYTHON" parse_log.py "${arguments[@]}" --json > "$OUTPUT_DIR/.ranking-$name.json"; then
    mv "$OUTPUT_DIR/.ranking-$name.json" "$OUTPUT_DIR/ranking-$name.json"
    echo
    run "$PYTHON" parse_log.py "${arguments[@]}"
    echo "ranking: $OUTPUT_DIR/ranking-$name.json"
  else
    rm -f "$OUTPUT_DIR/.ranking-$name.json"
    status=1
  fi
done
exit "$status"
