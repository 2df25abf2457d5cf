#!/usr/bin/env bash
# SmolLM2-135M-Instruct as a target: makes an AR and a block-diffusion drafter for it, then runs all drafters on four
# data sets and ranks them. A GPU is wanted; whatever is finished already is not done again.
#   DATA_DIR=data WORK_DIR=results/smollm2 scripts/smollm2.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-.venv/bin/python}
DATA_DIR=${DATA_DIR:-data}
WORK_DIR=${WORK_DIR:-results/smollm2}
DATASETS=(${DATASETS:-gsm8k math humaneval mt_bench})
NUM_QUESTIONS=${NUM_QUESTIONS:-30}
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-256}
NUM_CHAT_PROMPTS=${NUM_CHAT_PROMPTS:-6000}
NUM_CODE_PROMPTS=${NUM_CODE_PROMPTS:-4000}
AR_STEPS=${AR_STEPS:-1500}
DLLM_STEPS=${DLLM_STEPS:-4000}
NUM_DOCS=${NUM_DOCS:-32}
NUM_LAYERS=${NUM_LAYERS:-6}
ENGINE=${ENGINE:-auto}         # of the benchmark
TRAIN_FLAGS=(${TRAIN_FLAGS:-}) # of training.make_drafters: --compile, --learning_rate, ...
EVAL_FLAGS=(${EVAL_FLAGS:-})   # of failfast.py: --spec_len 8 4, --drafters plain failfast, ...
MASK_TOKEN=${MASK_TOKEN:-<gh_stars>} # an entry of the tokenizer that no answer holds

# shellcheck source=scripts/invent.sh
. scripts/invent.sh

# Hours of work begin below: what the last of them needs is looked for first.
"$PYTHON" -c 'import sys
from specdec.errors import exit_status
from specdec.questions.sets import load_problems
from training.corpus import load_examples
data_dir, num_questions, *names = sys.argv[1:]
def check():
    load_examples(data_dir)
    for name in names:
        load_problems(name, data_dir=data_dir, num_questions=int(num_questions))
sys.exit(exit_status("smollm2.sh", check))' "$DATA_DIR" "$NUM_QUESTIONS" "${DATASETS[@]}"

mkdir -p "$WORK_DIR"
invent smollm2 chat "$NUM_CHAT_PROMPTS"
invent smollm2 code "$NUM_CODE_PROMPTS" "${CODE_OPENINGS[@]}"
"$PYTHON" -m training.make_drafters --target_dir smollm2 --work_dir "$WORK_DIR/drafters" --data_dir "$DATA_DIR" \
  --prompt_file "$WORK_DIR"/prompts_{chat,code}.jsonl --max_new_tokens "$MAX_NEW_TOKENS" --mask_token "$MASK_TOKEN" \
  --num_layers "$NUM_LAYERS" --num_docs "$NUM_DOCS" --ar_drafter_steps "$AR_STEPS" --dllm_drafter_steps "$DLLM_STEPS" \
  ${TRAIN_FLAGS[@]+"${TRAIN_FLAGS[@]}"}
for dataset in "${DATASETS[@]}"; do
  "$PYTHON" failfast.py --target_model_name smollm2 --ar_model_name "$WORK_DIR/drafters/ar_drafter" \
    --dllm_dir "$WORK_DIR/drafters/dllm_drafter" --dataset_name "$dataset" --data_dir "$DATA_DIR" \
    --num_questions "$NUM_QUESTIONS" --max_new_tokens "$MAX_NEW_TOKENS" --output_dir "$WORK_DIR/results" \
    --latency_target Qwen2.5-32B-Instruct --log_level WARNING --engine "$ENGINE" ${EVAL_FLAGS[@]+"${EVAL_FLAGS[@]}"}
done
"$PYTHON" parse_log.py "$WORK_DIR/results" --json --latency_target Qwen2.5-32B-Instruct > "$WORK_DIR/ranking.json"
"$PYTHON" -m experiments.summarise_records "$WORK_DIR/results" --latency_target Qwen2.5-32B-Instruct > "$WORK_DIR/records.json"
echo "ranking: $WORK_DIR/ranking.json, records: $WORK_DIR/records.json"
