#!/usr/bin/env bash
# A load study of one recording (failfast record): every setting replayed from it, then served at every load by the bounds
# of a GPU, with the passes of heads among them. The result is as docs/results keeps it.
#   RECORDED=results/mine OUT=load.json scripts/load_study.sh
#   RECORDED=results/mine OUT=load.json WHAT="GSM8K, of my target" TARGET=Qwen3-8B CONTEXT=4096 scripts/load_study.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-$PWD/.venv/bin/python} # an absolute path
RECORDED=${RECORDED:?the folder of the recording, which has traces/}
OUT=${OUT:?the file to write}
WORK_DIR=${WORK_DIR:-$RECORDED/load} # replayed records, the profile
WHAT=${WHAT:-} # what the records are, in words
GPU=${GPU:-H100}
TARGET=${TARGET:-Qwen3-8B} # as if for this one, whose heads are as big as published ones
CONTEXT=${CONTEXT:-1024}
LOADS=(${LOADS:-1 8 16 32 64 128 256})
SETTINGS=(${SETTINGS:---drafters plain failfast ar_sf ar_df dllm_sf dflash_sf dflash_df eagle3_sf lookup suffix --spec_len 2 3 4 6 8})
POLICIES=(${POLICIES:-fixed scheduled clairvoyant})

"$PYTHON" -m specdec.replay "$RECORDED" "${SETTINGS[@]}" --latency_profile none \
  --output_dir "$WORK_DIR/replayed"
(cd "$WORK_DIR" && PYTHONPATH=$OLDPWD "$PYTHON" -m profiling.roofline --gpu "$GPU" --targets "$TARGET" \
  --contexts 512 --heads --write_profile "${GPU}_heads_bound" > /dev/null)
"$PYTHON" -m experiments.load_study "$WORK_DIR/replayed" --trace_dir "$RECORDED" --without_degenerate \
  --latency_profile "$WORK_DIR/latency/${GPU}_heads_bound.json" --latency_target "$TARGET" --context "$CONTEXT" \
  --concurrency "${LOADS[@]}" --policies "${POLICIES[@]}" --what "$WHAT" > "$OUT.part"
mv "$OUT.part" "$OUT"
echo "$OUT: failfast plot load draws it"
