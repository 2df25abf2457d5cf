#!/usr/bin/env bash
# Families of drafters for one target, trained alike from the same answers, a GPU each, and measured on questions that
# none of them was trained on (the last rows of the training splits); recorded, and ranked head to head (docs/heads.md), each at
# the best length and policy by other questions. What is finished already is not done again.
#   DATA_DIR=data WORK_DIR=results/heads scripts/heads.sh
#   TARGET=smollm2 NUM_CHAT_PROMPTS=6000 NUM_CODE_PROMPTS=4000 MASK_TOKEN='<gh_stars>' scripts/heads.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-.venv/bin/python}
TARGET=${TARGET:-bundled}
DATA_DIR=${DATA_DIR:-data}         # has gsm8k/train.jsonl and math/train.jsonl
WORK_DIR=${WORK_DIR:-results/heads}
NUM_CHAT_PROMPTS=${NUM_CHAT_PROMPTS:-0} # that the target invents itself
NUM_CODE_PROMPTS=${NUM_CODE_PROMPTS:-0}
STEPS=(${STEPS:-invent answers train measure record rank pack}) # clock too: all of them by a GPU's clock
FAMILIES=(${FAMILIES:-dflash eagle3 jetspec dspark dllm ar})
VARIANTS=${VARIANTS:-}             # more trainings, a line each: NAME FAMILY FLAGS of training.make_drafters
BUDGET=(${BUDGET:---budget_seconds 300})
PROMPT_FLAGS=(${PROMPT_FLAGS:---num_variants 2 --num_mixed 3})
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-256}
MAX_ROWS=${MAX_ROWS:-4096}
NUM_DOCS=${NUM_DOCS:-128}
TRAIN_FLAGS=(${TRAIN_FLAGS:---num_begins 16 --num_looks 4 --held_back 8})
MASK_TOKEN=${MASK_TOKEN:-}
NUM_QUESTIONS=${NUM_QUESTIONS:-50} # of each data set, measured
DATASETS=(${DATASETS:-gsm8k math})  # recorded: the first NUM_QUESTIONS to be ranked on, as many after them to tune on
RECORD_FLAGS=(${RECORD_FLAGS:---dtype float32})
RANK_FLAGS=(${RANK_FLAGS:---latency_profile vLLM_A6000 --latency_target Qwen2.5-32B-Instruct Qwen2.5-7B-Instruct})
CLOCK_FLAGS=(${CLOCK_FLAGS:---dtypes bfloat16 float32})
OUT=${OUT:-$WORK_DIR/packed}
GPUS=(${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null || echo -1)}) # -1: none

# shellcheck source=scripts/invent.sh
. scripts/invent.sh

PROMPT_FILES=()
if [ "$NUM_CHAT_PROMPTS" != 0 ]; then PROMPT_FILES+=("$WORK_DIR/prompts_chat.jsonl"); fi
if [ "$NUM_CODE_PROMPTS" != 0 ]; then PROMPT_FILES+=("$WORK_DIR/prompts_code.jsonl"); fi
COMMON=(--target_dir "$TARGET" --data_dir "$DATA_DIR" ${PROMPT_FILES[0]+--prompt_file "${PROMPT_FILES[@]}"}
  "${PROMPT_FLAGS[@]}" --max_new_tokens "$MAX_NEW_TOKENS" --max_rows "$MAX_ROWS" --num_docs "$NUM_DOCS"
  ${MASK_TOKEN:+--mask_token "$MASK_TOKEN"} "${BUDGET[@]}" "${TRAIN_FLAGS[@]}")

wanted() { [[ " ${STEPS[*]} " == *" $1 "* ]]; }

# What is to be made, a line each: NAME FAMILY FLAGS
jobs_wanted() {
  local family
  for family in "${FAMILIES[@]}"; do echo "$family $family"; done
  if [ -n "$VARIANTS" ]; then echo "$VARIANTS"; fi
}

folder_of() { # NAME FAMILY
  case $2 in
    ar | dllm) echo "$WORK_DIR/$1/$2_drafter" ;;
    *) echo "$WORK_DIR/$1/$2" ;;
  esac
}

invent_all() {
  if [ "$NUM_CHAT_PROMPTS" != 0 ]; then invent "$TARGET" chat "$NUM_CHAT_PROMPTS"; fi
  if [ "$NUM_CODE_PROMPTS" != 0 ]; then invent "$TARGET" code "$NUM_CODE_PROMPTS" "${CODE_OPENINGS[@]}"; fi
}

answer() {
  "$PYTHON" -m training.make_drafters "${COMMON[@]}" --work_dir "$WORK_DIR/answers" --stop_after answers
}

train_one() { # NAME FAMILY FLAGS
  local name=$1 family=$2 file
  mkdir -p "$WORK_DIR/$name"
  for file in answers.npz answers.npz.made_from.json; do # the same answers for all
    [ -e "$WORK_DIR/$name/$file" ] || ln "$WORK_DIR/answers/$file" "$WORK_DIR/$name/$file"
  done
  "$PYTHON" -m training.make_drafters "${COMMON[@]}" --work_dir "$WORK_DIR/$name" --families "$family" "${@:3}" \
    > "$WORK_DIR/$name.log" 2>&1 || { echo "$name: failed" && tail -n 5 "$WORK_DIR/$name.log"; return 1; }
}

folder_flag() { # FAMILY FOLDER: the flag of failfast.py that takes it
  case $1 in
    ar) echo "--ar_model_name $2" ;;
    dllm) echo "--dllm_dir $2" ;;
    eagle3) echo "--eagle3_dir $2" ;;
    *) echo "--dflash_dir $2" ;;
  esac
}

measure_one() { # NAME FAMILY FLAGS
  local name=$1 family=$2 folder dataset
  folder=$(folder_of "$name" "$family")
  local -A drafters=(
    [ar]="--drafters plain ar_sf --spec_len 4 6 8"
    [dllm]="--drafters plain dllm_sf failfast --spec_len 8 12"
    [eagle3]="--drafters plain eagle3_sf --spec_len 3 5 7"
  )
  local given=${drafters[$family]:-"--drafters plain dflash_sf --spec_len $(drafts_of "$folder")"}
  given="$(folder_flag "$family" "$folder") $given"
  for dataset in gsm8k math; do
    # shellcheck disable=SC2086 # flags are words
    "$PYTHON" failfast.py --target_model_name "$TARGET" --dataset_name "$dataset" --data_dir "$WORK_DIR/held_back" \
      --num_questions "$NUM_QUESTIONS" --max_new_tokens "$MAX_NEW_TOKENS" --output_dir "$WORK_DIR/measured/$name" \
      --latency_target Qwen2.5-32B-Instruct --log_level WARNING --no_report $given > "$WORK_DIR/$name.measured.log" 2>&1
  done
  "$PYTHON" parse_log.py "$WORK_DIR/measured/$name" --json --latency_target Qwen2.5-32B-Instruct \
    > "$WORK_DIR/$name.measured.json"
}

record_one() { # NAME FAMILY FLAGS
  local name=$1 family=$2 folder dataset where
  folder=$(folder_of "$name" "$family")
  local -A drafters=(
    [ar]="--drafters plain ar_None_sf_16"
    [dllm]="--drafters plain dllm_sf --drafter_thresholds 0.05 --spec_len 8 --chain_len 71"
    [eagle3]="--drafters plain eagle3_sf_16"
  )
  local given=${drafters[$family]:-"--drafters plain dflash_sf_$(drafts_of "$folder")"}
  given="$(folder_flag "$family" "$folder") $given"
  for where in tuning held_out; do
    for dataset in "${DATASETS[@]}"; do
      # shellcheck disable=SC2046,SC2086 # flags and numbers are words
      "$PYTHON" failfast.py --record --target_model_name "$TARGET" --dataset_name "$dataset" --data_dir "$DATA_DIR" \
        --question_ids $(questions_of "$where") --max_new_tokens "$MAX_NEW_TOKENS" --log_level WARNING \
        --output_dir "$WORK_DIR/traces/$where/$name" "${RECORD_FLAGS[@]}" $given > "$WORK_DIR/$name.recorded.log" 2>&1 ||
        { echo "$name: not recorded" && tail -n 5 "$WORK_DIR/$name.recorded.log"; return 1; }
    done
  done
}

questions_of() { # tuning or held_out
  if [ "$1" = tuning ]; then seq "$NUM_QUESTIONS" $((2 * NUM_QUESTIONS - 1)); else seq 0 $((NUM_QUESTIONS - 1)); fi
}

rank() { # all of them against each other
  "$PYTHON" -m experiments.heads_table "$WORK_DIR/traces/tuning" "$WORK_DIR/traces/held_out" --work_dir "$WORK_DIR" \
    "${RANK_FLAGS[@]}" > "$WORK_DIR/heads.json"
}

clock() { # lengths and rules chosen by the clock on some questions, told of others
  "$PYTHON" -m experiments.heads_clock "$WORK_DIR" --target "$TARGET" --data_dir "$DATA_DIR" \
    --max_new_tokens "$MAX_NEW_TOKENS" "${CLOCK_FLAGS[@]}" | tail -n 1 > "$WORK_DIR/clock.json"
}

drafts_of() { # FOLDER: the tokens that a block head drafts
  "$PYTHON" -c 'import json, sys
config = json.load(open(sys.argv[1] + "/config.json"))
print(config["block_size"] - ("dflash_config" in config))' "$1"
}

# Every job by one of the GPUs, in turn; each does its own one after the other.
on_gpus() { # FUNCTION
  local count=${#GPUS[@]} index gpu
  for index in "${!GPUS[@]}"; do
    gpu=${GPUS[$index]}
    (
      status=0 line=0
      if [ "$gpu" != -1 ]; then export CUDA_VISIBLE_DEVICES=$gpu; fi
      while read -ra job; do
        if [ $((line++ % count)) -eq "$index" ]; then "$1" "${job[@]}" < /dev/null || status=1; fi
      done < <(jobs_wanted)
      exit "$status"
    ) &
  done
  local failed=0 child
  for child in $(jobs -p); do wait "$child" || failed=1; done
  return "$failed"
}

hold_back() { # the last 100 rows of each training split, as questions
  local dataset
  for dataset in gsm8k math; do
    mkdir -p "$WORK_DIR/held_back/$dataset"
    tail -n 100 "$DATA_DIR/$dataset/train.jsonl" > "$WORK_DIR/held_back/$dataset/test.jsonl"
  done
}

pack() {
  mkdir -p "$OUT"
  (cd "$WORK_DIR" && tar -cf - --exclude='answers.npz*' --exclude='*.checkpoint.pt' --exclude='*.look' --exclude=measured \
    --exclude=held_back --exclude=packed --exclude=traces --exclude=clock --exclude='./answers' \
    --exclude='prompts_*' .) | split -b 15M - "$OUT/heads.tar."
}

mkdir -p "$WORK_DIR"
status=0
if wanted invent; then invent_all; fi
if wanted answers; then answer; fi
if wanted train; then on_gpus train_one || status=1; fi
if wanted measure; then hold_back && { on_gpus measure_one || status=1; }; fi
if wanted record; then on_gpus record_one || status=1; fi
if wanted rank; then rank || status=1; fi
if wanted clock; then clock || status=1; fi
if wanted pack; then pack; fi
exit "$status"
