#!/usr/bin/env bash
# Submits a sweep as a job array, and a job that ranks when the array has ended, also if some of its tasks failed.
# Prints the two job ids, and to stderr where the logs go. Again, with the same settings, it does what is left.
#   scripts/submit.sh scripts/sweep_dynamic_freqs.sh 8 [OPTION OF SBATCH ...]
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh || exit 2

if [ $# -lt 2 ] || [ ! -f "$1" ] || ! [[ $2 =~ ^[1-9][0-9]{0,5}$ ]]; then
  echo "usage: scripts/submit.sh SCRIPT NUMBER_OF_TASKS [OPTION OF SBATCH ...]" >&2
  exit 2
fi
command -v sbatch > /dev/null || { echo "sbatch is not here: run 'bash $1' instead" >&2; exit 2; }
script=$1 num_tasks=$2
shift 2
array=$(sbatch --parsable --array="0-$((num_tasks - 1))" "$@" "$script")
ranking=$(sbatch --parsable --dependency="afterany:${array%%;*}" scripts/rank.sh)
echo "array ${array%%;*} ranking ${ranking%%;*}"
name=$(basename "$script" .sh)
echo "logs (unless --output says otherwise): $PWD/$name-${array%%;*}_TASK.out and $PWD/rank-${ranking%%;*}.out" >&2
