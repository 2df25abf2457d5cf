# What the scripts share: settings common to all, one way to run a command, one to sweep. Sourced, from the project's
# folder, with errexit; runs nothing by itself.
set -euo pipefail

if [ -f "${FAILFAST_ENV:-scripts/env.sh}" ]; then
  # shellcheck source=/dev/null
  . "${FAILFAST_ENV:-scripts/env.sh}"
fi

# The variable NAME as an array, of its words; where it has line ends, of its lines, so that a path may have spaces:
# TARGETS=$'/my models/one\n/my models/two\n'
split() { # NAME DEFAULT
  local value=${!1:-$2}
  case $value in
    *$'\n'*) mapfile -t "$1" <<< "${value%$'\n'}" ;;
    *) read -ra "$1" <<< "$value" ;;
  esac
}

PYTHON=${PYTHON:-.venv/bin/python}
if [ -n "${SETTINGS:-}" ]; then # flags in a file; the ranking needs to know its results folder, too
  read_folder='import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb")).get("output_dir", ""))'
  OUTPUT_DIR=${OUTPUT_DIR:-$("$PYTHON" -c "$read_folder" "$SETTINGS" 2> /dev/null || true)} # failfast.py says what is wrong
fi
OUTPUT_DIR=${OUTPUT_DIR:-results/sweep}
split TARGETS bundled
DATASETS=(${DATASETS:-bundled})
NUM_QUESTIONS=${NUM_QUESTIONS:-30}
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-1024}
split LATENCY_PROFILES vLLM_A6000
split ALSO "" # more drafters beside those that a sweep is about: ar_sf, dllm_sf, ...
split EXTRA_ARGS "" # more flags of failfast.py: --data_dir, --ar_model_name, --dllm_dir, --latency_target, ...
if [ -n "${PUBLISHED:-}" ]; then # scripts have their own part of it; a flag given twice counts as given last
  EXTRA_ARGS=(--prompt_style published --pass_accounting published ${EXTRA_ARGS[@]+"${EXTRA_ARGS[@]}"})
fi

# Run a command, pass a SIGTERM of the cluster on to it, and return its status when it has ended its round.
run() {
  local status=0
  "$@" &
  local child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM
  trap : INT # the terminal has sent it to the command as well
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a trap ends `wait` before the command has ended
    status=0
    wait "$child" || status=$?
  done
  trap - TERM INT
  return "$status"
}

# failfast.py with the given flags on every target and data set; in a job array, on this task's part of the questions.
sweep() {
  local target dataset
  for target in "${TARGETS[@]}"; do
    for dataset in "${DATASETS[@]}"; do
      run "$PYTHON" failfast.py ${SETTINGS:+--settings "$SETTINGS"} --target_model_name "$target" --dataset_name "$dataset" \
        --num_questions "$NUM_QUESTIONS" --max_new_tokens "$MAX_NEW_TOKENS" --output_dir "$OUTPUT_DIR" \
        --latency_profile "${LATENCY_PROFILES[@]}" --shard slurm "$@" ${EXTRA_ARGS[@]+"${EXTRA_ARGS[@]}"}
    done
  done
}

# The block-diffusion drafter over THRESHOLDS x SPEC_LENS.
sweep_static() {
  sweep --drafters plain dllm_sf ${ALSO[@]+"${ALSO[@]}"} --drafter_thresholds "${THRESHOLDS[@]}" \
    --spec_len "${SPEC_LENS[@]}"
}

# FailFast over THRESHOLDS x TAUS x MAX_SPEC_LENS x INCR_LENS.
sweep_failfast() {
  sweep --drafters plain failfast ${ALSO[@]+"${ALSO[@]}"} --drafter_thresholds "${THRESHOLDS[@]}" \
    --sweep_lowconf_threshold "${TAUS[@]}" --sweep_max_spec_len "${MAX_SPEC_LENS[@]}" \
    --sweep_incr_len "${INCR_LENS[@]}"
}

# One of the profilers on every target, with the given flags.
profile() { # MODULE [FLAG ...]
  local module=$1 target
  shift
  for target in "${TARGETS[@]}"; do
    run "$PYTHON" -m "profiling.$module" --target_model_name "$target" "$@" ${EXTRA_ARGS[@]+"${EXTRA_ARGS[@]}"}
  done
}
