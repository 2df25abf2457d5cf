"""The model cards of the bundled family, written from the numbers of the runs that made the models."""

TITLES = {
    "target": "Bundled target",
    "ar_drafter": "Bundled autoregressive drafter",
    "dllm_drafter": "Bundled block-diffusion drafter",
}
HEAD_TITLES = {"eagle3_head": "Bundled EAGLE-3 head", "dflash_head": "Bundled DFlash head"}
_PURPOSE = {
    "target": (
        "A tiny Qwen2 language model that plays the big model in the benchmark of drafting strategies. It lets every "
        "drafter run end to end on a laptop. It learnt from the greedy answers of a teacher of its own size, which had "
        "learnt from another teacher's, and that one from the data sets' worked answers: text that small models write "
        "is more regular than people's, and so can be drafted by still smaller ones."
    ),
    "ar_drafter": (
        "A small Qwen2 cut from the bundled target and trained on the target's own greedy answers (cross-entropy "
        "and the target's distributions). It proposes tokens one by one."
    ),
    "dllm_drafter": (
        "A block-diffusion drafter cut from the bundled target (even choice of layers, embeddings too) and trained on "
        "the target's own greedy answers: masked blocks of 32 tokens, block attention mask, token shift, most masks "
        "'known head, unknown tail' with the loss weighted by the distance from the head. Its weights are plain "
        "Qwen2; config.json adds `mask_token_id`, `block_size` and `drafter_kind`. Decode it block by block only: as "
        "an ordinary causal model it writes nonsense."
    ),
}
_HEAD_PURPOSE = {
    "eagle3_head": (
        "A head of one layer over the bundled target: it reads the outputs of the target's layers {taps} (counted from "
        "0) and writes a draft token by token; {words} of the target's {vocab_size} words. In SafeAILab's layout "
        "(EAGLE-3, arXiv 2503.01840)."
    ),
    "dflash_head": (
        "A head of {num_layers} layers over the bundled target: it reads the outputs of the target's layers {taps} "
        "(counted from 0) and fills a block of {block_size} tokens in one pass. Of the DFlash kind, with the layout "
        "and the parts of {architecture}."
    ),
}
_DATA = """## Data and licences

Trained on the training splits of GSM8K (MIT, Copyright (c) 2021 OpenAI) and MATH (MIT, Copyright (c) 2021 Dan
Hendrycks){own}. The test splits were not used, nor the last 100 rows of each
training split. The weights are made by this project and come under its licence.
"""
_LIMITS = """## Limits

**Its arithmetic is wrong.** The answers look like worked solutions and their results are mostly false. It knows
nothing but school mathematics in English, and on hard questions the family may repeat itself without end. It is for
measuring and demonstrating speculative decoding; do not use its answers.
"""


def _loss_table(report: dict) -> str:
    losses = report["losses"]
    chosen = losses[:: max(1, len(losses) // 10)]
    if chosen[-1] != losses[-1]:
        chosen = [*chosen, losses[-1]]
    lines = ["| step | training loss |", "|---|---|", *(f"| {step} | {loss:.3f} |" for step, loss in chosen)]
    return "\n".join(lines)


def _training(report: dict) -> str:
    """How it was trained, and its losses."""
    settings = ", ".join(f"{key} {value}" for key, value in report.get("settings", {}).items())
    return (
        f"## Training\n\n{report['steps']} steps, {report['tokens'] / 1e6:.1f} M tokens, {report['seconds']:.0f} s on "
        f"{report.get('device', 'one device')}. First and last loss: {report['first_loss']:.3f}, "
        f"{report['last_loss']:.3f} (losses of different models are not comparable).\n"
        + (f"Settings: {settings}.\n" if settings else "")
        + f"\n{_loss_table(report)}\n"
    )


def model_card(kind: str, report: dict, config: dict, answers: dict, command: str, num_mixed: int = 0) -> str:
    """The README.md of a model; kind is target, ar_drafter or dllm_drafter, the dicts are the run's own JSON.

    `num_mixed`: of the copies that the target answered, see FamilySettings.
    """
    author = "a teacher's" if kind == "target" else "the target's own"
    is_mixed = kind != "target" and num_mixed > 0
    mixed = ",\nand to others with a sentence of another question" if is_mixed else ""
    own = (
        f",\nthrough {author} answers to their questions and to copies of these with other numbers{mixed} "
        f"({answers['num_prompts']} answers, {answers['answer_tokens'] / 1e6:.1f} M tokens; "
        f"{answers['num_truncated']} unfinished, {answers['num_repetitive']} mostly repetition; "
        f"{report['settings']['documents']} learnt from)"
    )
    size = (
        f"{report['num_parameters'] / 1e6:.2f} M parameters in bfloat16: {config['num_hidden_layers']} layers, hidden "
        f"{config['hidden_size']}, MLP {config['intermediate_size']}, {config['num_attention_heads']} heads, "
        f"{config['num_key_value_heads']} KV heads, vocabulary {config['vocab_size']} (byte-level BPE, single digits), "
        "tied embeddings."
    )
    sections = [
        f"# {TITLES[kind]}\n\n{_PURPOSE[kind]}\n",
        f"## Size\n\n{size}\n",
        _DATA.format(own=own),
        _training(report),
        f"Made again by `{command}`, which also wrote this card.\n",
        _LIMITS,
    ]
    return "\n".join(sections)


def head_card(kind: str, report: dict, config: dict, command: str) -> str:
    """The README.md of a head; kind is of HEAD_TITLES, the dicts are its training.json and config.json. Embeddings, and
    of block heads the words as well, are the target's."""
    purpose = _HEAD_PURPOSE[kind].format(
        taps=", ".join(map(str, report["taps"])),
        words=config.get("draft_vocab_size") or config["vocab_size"],
        vocab_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        block_size=config.get("block_size"),
        architecture=config["architectures"][0],
    )
    learnt = (
        f",\nthrough the target's own answers to their questions and to copies of these "
        f"({report['settings']['documents']} learnt from)"
    )
    size = (
        f"{report['num_parameters'] / 1e6:.2f} M parameters in bfloat16: {config['num_hidden_layers']} layers, hidden "
        f"{config['hidden_size']}, MLP {config['intermediate_size']}, {config['num_attention_heads']} heads, "
        f"{config['num_key_value_heads']} KV heads. Embeddings are the target's."
    )
    return "\n".join([
        f"# {HEAD_TITLES[kind]}\n\n{purpose}\n",
        f"## Size\n\n{size}\n",
        _DATA.format(own=learnt),
        _training(report),
        f"Made again by `{command}`.\n",
        _LIMITS,
    ])  # fmt: skip
