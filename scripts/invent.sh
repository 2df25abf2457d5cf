# How prompts are invented for a target: sourced, from the project's folder, with PYTHON and WORK_DIR set; runs nothing.
CODE_OPENINGS=('Complete this Python function.
```python
def ' 'Complete this Python function.
```python
from typing import List


def ' 'Write a Python function')

# Prompts that a chat model writes itself, in WORK_DIR/prompts_NAME.jsonl.
invent() { # TARGET NAME NUMBER [OPENING ...]
  local out=$WORK_DIR/prompts_$2.jsonl
  "$PYTHON" -m training.invent_prompts --target_dir "$1" --num_prompts "$3" --out "$out" \
    ${4+--opening "${@:4}"}
}
