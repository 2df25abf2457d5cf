"""The training commands: any Llama will do, mistakes are one line, and two processes train what one does."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import edit_config, save_model
from toy_training import LOOP, train_one
from toys import random_ids, toy_model

from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.models import tokens
from specdec.models.checkpoints import find_model
from specdec.models.load import load_hf_model
from training import answers as answers_file
from training import decoder, export, family, invent_prompts, made_from, make_drafters, models, ranks, self_generate
from training import tokenizer as tokenizers
from training import train_ar_drafter as ar_command
from training import train_dllm_drafter as dllm_command
from training import train_target as target_command
from training.cli import run_command
from training.loop import OutOfTime, Place
from training.stages import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def llama(tmp_path):
    """A Llama target whose tokenizer has no mask token, answers "of its own", and where drafters would go."""
    save_model(tmp_path / "target", toy_model("llama", 1))
    texts = [[random_ids(number, length) for number in range(8)] for length in (20, 40)]
    answers = [[token for token in answer if token < 60] for answer in texts[1]]
    prompts = [[token for token in prompt if token < 60] for prompt in texts[0]]
    answers_file.save_answers(answers_file.Answers(prompts, answers, [True] * 8), tmp_path / "answers.npz")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "word1 word2"}\n{"prompt": "word3"}\n')
    return tmp_path


COMMANDS = {
    "ar": ar_command,
    "dllm": dllm_command,
    "generate": self_generate,
    "target": target_command,
    "invent": invent_prompts,
}


def flags_of(kind: str, folder: Path) -> list[str]:
    """A short command line over the `llama` fixture's folder."""
    target, steps = ["--target_dir", f"{folder}/target"], ["--num_steps", "5", "--num_docs", "4"]
    drafter = [*target, "--answers", f"{folder}/answers.npz", "--num_layers", "1", *steps]
    own = {
        "ar": drafter,
        "dllm": [*drafter, "--mask_token", "word59"],
        "generate": [*target, "--prompt_file", f"{folder}/prompts.jsonl", "--max_new_tokens", "8"],
        "invent": [*target, "--num_prompts", "40", "--opening", "word1 word2", "word3", "--max_new_tokens", "40"],
        "target": ["--data_dir", f"{folder}/data", "--tokenizer_dir", f"{folder}/target", *steps],
    }
    return [*own[kind], "--out", f"{folder}/out", "--device", "cpu"]


def call(monkeypatch, kind: str, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", [kind, *flags])
    command = {**COMMANDS, "family": family, "drafters": make_drafters}[kind]
    return run_command(command.MODULE, command.main)


@pytest.mark.parametrize("kind", ["ar", "dllm", "generate"])
def test_the_commands_take_any_llama_without_a_mask_token(kind, llama, monkeypatch, capsys):
    assert call(monkeypatch, kind, *flags_of(kind, llama)) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["finished"]
    if kind == "generate":
        assert len(answers_file.load_answers(llama / "out").answers) == 2
        return
    source = find_model(DLLM_DRAFTER if kind == "dllm" else models.TRAINED, str(llama / "out"))
    made, tokenizer = load_hf_model(source, torch.float32), tokenizers.load_tokenizer(llama / "out")
    assert (made.config.model_type, made.config.num_hidden_layers) == ("llama", 1) and tokenizer.chat_template
    if kind == "dllm":
        assert tokens.mask_id(source, tokens.load_tokenizer(source)) == tokenizer.get_vocab()["word59"]


def drafter_flags(folder: Path) -> list[str]:
    """Both drafters of the `llama` fixture's target, in one command."""
    steps = ["--ar_drafter_steps", "3", "--dllm_drafter_steps", "3", "--num_docs", "2", "--num_layers", "1"]
    prompts = ["--prompt_file", f"{folder}/prompts.jsonl", f"{folder}/more.jsonl", "--max_new_tokens", "40"]
    where = ["--target_dir", f"{folder}/target", "--work_dir", f"{folder}/work", "--device", "cpu"]
    return [*where, *prompts, *steps, "--mask_token", "word59"]


def test_one_command_makes_both_drafters_of_a_target_and_goes_on_where_it_stopped(llama, monkeypatch, capsys):
    (llama / "more.jsonl").write_text("".join(f'{{"prompt": "word{n} word{n + 7}"}}\n' for n in range(12)))
    monkeypatch.setattr(decoder, "BatchDecoder", lambda *_: Countdown())
    assert call(monkeypatch, "drafters", *drafter_flags(llama), "--max_minutes", "0") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["stopped"] == "before stage answers"
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 0
    stages = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert stages["answers"]["num_prompts"] == 14 and stages["dllm_drafter"]["steps"] == 3
    family_of = {
        "--target_model_name": "target",
        "--ar_model_name": "work/ar_drafter",
        "--dllm_dir": "work/dllm_drafter",
    }
    for role, name in zip((models.TRAINED, AR_DRAFTER, DLLM_DRAFTER), family_of.values(), strict=True):
        assert find_model(role, str(llama / name)).is_block_diffusion == (role is DLLM_DRAFTER)
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert again == dict.fromkeys(stages) and not list((llama / "work").glob("*.checkpoint.pt"))


OTHERWISE = {
    "target_sha256": ["--target_dir", "{folder}/other"],
    "num_prompts: stored 14, asked 2": ["--prompt_file", "{folder}/prompts.jsonl"],
    "max_new_tokens: stored 40, asked 30": ["--max_new_tokens", "30"],
    "num_layers: stored 1, asked 2": ["--num_layers", "2"],
    "num_steps: stored 3, asked 4": ["--ar_drafter_steps", "4"],
    "seed: stored 0, asked 1": ["--seed", "1"],
    "mask_token: stored 'word59', asked 'word58'": ["--mask_token", "word58"],
    "schema: stored 1, asked 2": [],
}


def test_work_of_another_run_is_never_called_finished(llama, monkeypatch, capsys):
    (llama / "more.jsonl").write_text("".join(f'{{"prompt": "word{n} word{n + 7}"}}\n' for n in range(12)))
    monkeypatch.setattr(decoder, "BatchDecoder", lambda *_: Countdown())
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 0
    said = capsys.readouterr().err
    for kind, flag in (("ar", "--ar_model_name"), ("dllm", "--dllm_dir")):
        command = f"python failfast.py --target_model_name {llama / 'target'} {flag} {llama / 'work'}/{kind}_drafter"
        assert f"{kind}: {command}" in said
    save_model(llama / "other", toy_model("llama", 2))
    before = contents(llama)
    for difference, flags in OTHERWISE.items():
        with monkeypatch.context() as changed:
            changed.setattr(made_from, "SCHEMA", 1 if flags else 2)
            given = [flag.format(folder=llama) for flag in flags]
            assert call(monkeypatch, "drafters", *drafter_flags(llama), *given) == 2
        told = capsys.readouterr()
        (line,) = [one for one in told.err.splitlines() if ": error: " in one]
        assert f"was made with other settings ({difference}" in line and not told.out
        assert contents(llama) == before
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 0
    assert f"--- answers: reused, it is at {llama / 'work' / 'answers.npz'}" in capsys.readouterr().err
    (llama / "work" / "dllm_drafter.made_from.json").unlink()
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 2
    assert "does not say what it was made from" in capsys.readouterr().err
    (llama / "work" / "answers.npz.made_from.json").write_text("[")
    assert call(monkeypatch, "drafters", *drafter_flags(llama)) == 2
    assert "answers.npz.made_from.json is damaged" in capsys.readouterr().err


def test_invented_prompts_are_reused_if_they_are_what_is_asked(llama, monkeypatch, capsys):
    assert call(monkeypatch, "invent", *flags_of("invent", llama)) == 0
    before = contents(llama)
    assert call(monkeypatch, "invent", *flags_of("invent", llama)) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reused"] == f"{llama}/out"
    assert call(monkeypatch, "invent", *flags_of("invent", llama), "--num_prompts", "41") == 2
    assert "num_prompts: stored 40, asked 41" in capsys.readouterr().err and contents(llama) == before


def test_every_stage_of_the_family_says_what_it_is_made_from(llama, tmp_path):
    """All but the export, which is done anew each time; and each from what lies there, not from its name."""
    for name in ("gsm8k", "math"):
        (llama / "data" / name).mkdir(parents=True)
        row = {"question": "1 + 1?", "problem": "1 + 1?", "answer": "2\n#### 2", "solution": "It is 2."}
        (llama / "data" / name / "train.jsonl").write_text(json.dumps(row) + "\n")
    place = Workplace(llama / "work", torch.device("cpu"))
    whole = family.Family(llama / "data", llama / "models", family.smoke_settings(), place)
    shutil.copytree(llama / "target", llama / "work" / "tokenizer")
    for name in ("teacher_1", "teacher_2", "target"):
        shutil.copytree(llama / "target", llama / "work" / name)
    for name in ("teacher_1_answers", "teacher_2_answers", "answers"):
        shutil.copyfile(llama / "answers.npz", llama / "work" / f"{name}.npz")

    def facts() -> dict[str, dict]:
        return {stage.name: stage.made_from() for stage in whole.stages() if stage.made_from}

    first = facts()
    assert list(first) == [stage.name for stage in whole.stages()][:-1]
    save_model(llama / "work" / "teacher_2", toy_model("llama", 2))
    assert {name for name, found in facts().items() if found != first[name]} == {"teacher_2_answers"}


class Countdown:
    """Stands in for a model that has something to say: a toy of random weights only repeats itself."""

    def answers(self, prompts):
        yield {number: list(range(50, 4, -1))[: 20 + number] for number in range(len(prompts))}


@pytest.mark.parametrize(
    ("flags", "mistake"),
    [
        ([], "--prompt_file"),
        (["--prompt_file", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--mask_token", "x"], "mask token"),
    ],
)
def test_mistakes_are_told_before_any_training(flags, mistake, llama, monkeypatch, capsys):
    place = ["--target_dir", f"{llama}/target", "--work_dir", f"{llama}/work", "--device", "cpu", "--num_layers", "2"]
    given = place if "--mask_token" in flags else [*place, "--mask_token", "word59"]
    assert call(monkeypatch, "drafters", *given, *flags) == 2
    assert mistake in capsys.readouterr().err


def test_invented_prompts_begin_as_asked_and_are_the_same_again(llama, monkeypatch, capsys):
    texts = []
    for name in ("one", "two"):
        assert call(monkeypatch, "invent", *flags_of("invent", llama), "--out", f"{llama}/{name}.jsonl") == 0
        texts.append((llama / f"{name}.jsonl").read_text())
    prompts = [json.loads(line)["prompt"] for line in texts[0].splitlines()]
    assert texts[0] == texts[1] and 1 < len(prompts) == len(set(prompts))
    assert all(prompt.startswith(("word1 word2", "word3")) for prompt in prompts)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["num_prompts"] == len(prompts)
    assert call(monkeypatch, "invent", *flags_of("invent", llama), "--opening", "") == 2
    assert "--opening" in capsys.readouterr().err


def spoil(mistake: str, folder: Path) -> list[str]:
    """Makes one mistake in the `llama` fixture's folder or in further flags."""
    if mistake == "chat template":
        (folder / "target" / "chat_template.jinja").unlink(missing_ok=True)
        path = folder / "target" / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
    elif mistake == "'gpt2'":
        edit_config(folder / "target", model_type="gpt2")
    elif mistake == "would be overwritten":
        (folder / "out").mkdir()
        (folder / "out" / "mine.txt").write_text("mine")
    elif mistake in ("is empty", "line 2: not JSON", "line 1: not a JSON object"):
        texts = {"is empty": "\n", "line 2: not JSON": '{"prompt": "word1"}\n{"prompt\n'}
        (folder / "prompts.jsonl").write_text(texts.get(mistake, "[1]\n"))
    elif mistake == "no file":
        return ["--prompt_file", f"{folder}/nowhere"]
    elif mistake == "readable checkpoint":
        (folder / "out.checkpoint.pt").write_text("mine")
    given = {
        "--target_dir": ["--target_dir", f"{folder}/nowhere"],
        "cannot cut 3 layers": ["--num_layers", "3"],
        "--num_steps 0": ["--num_steps", "0"],
        "--max_new_tokens 0": ["--max_new_tokens", "0"],
        "--temperature -1": ["--temperature", "-1"],
        "--num_prompts 0": ["--num_prompts", "0"],
        "no mask token": ["--mask_token", "no-such-word"],
        "occurs in the answers": ["--mask_token", "word5"],
    }
    return given.get(mistake, [])


TARGET_MISTAKES = ["chat template", "'gpt2'", "--target_dir", "would be overwritten"]
STEP_MISTAKES = ["--num_steps 0", "cannot cut 3 layers", "readable checkpoint"]
PROMPT_MISTAKES = ["is empty", "line 2: not JSON", "line 1: not a JSON object", "no file", "--max_new_tokens 0"]
MISTAKES = [
    *itertools.product(["ar", "dllm", "generate", "invent"], TARGET_MISTAKES),
    *itertools.product(["ar", "dllm"], STEP_MISTAKES),
    *itertools.product(["generate"], PROMPT_MISTAKES),
    *itertools.product(["target"], ["chat template", "would be overwritten", "--num_steps 0"]),
    *itertools.product(["invent"], ["--temperature -1", "--num_prompts 0"]),
    *itertools.product(["dllm"], ["no mask token", "occurs in the answers"]),
]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_overwritten(kind, mistake, llama, monkeypatch, capsys):
    flags = [*flags_of(kind, llama), *spoil(mistake, llama)]
    before = contents(llama)
    assert call(monkeypatch, kind, *flags) == 2
    output = capsys.readouterr()
    told = [line for line in output.err.splitlines() if not line.startswith("target distributions")]
    assert (
        len(told) == 1
        and told[0].startswith(f"python -m {COMMANDS[kind].MODULE}: error: ")
        and mistake in told[0]
        and not output.out
    )
    assert contents(llama) == before


@pytest.mark.parametrize("kind", ["ar", "dllm"])
def test_answers_of_another_model_teach_nothing(kind, llama, monkeypatch, capsys):
    assert call(monkeypatch, "generate", *flags_of("generate", llama)[:-4], "--out", f"{llama}/own.npz") == 0
    drafter = [flag.replace("answers.npz", "own.npz") for flag in flags_of(kind, llama)]
    save_model(llama / "target", toy_model("llama", 2))
    assert call(monkeypatch, kind, *drafter) == 2
    assert "another model than" in capsys.readouterr().err and not (llama / "out").exists()
    save_model(llama / "target", toy_model("llama", 1))
    assert call(monkeypatch, kind, *drafter) == 0


@pytest.mark.parametrize("kind", ["ar", "dllm"])
def test_a_command_refuses_the_checkpoint_of_another_run(kind, llama, monkeypatch, capsys):
    assert call(monkeypatch, kind, *flags_of(kind, llama), "--max_minutes", "0") == 0
    before = contents(llama)
    assert llama / "out.checkpoint.pt" in before
    assert call(monkeypatch, kind, *flags_of(kind, llama), "--seed", "1") == 2
    assert "seed: stored 0, asked 1" in capsys.readouterr().err and contents(llama) == before
    save_model(llama / "target", toy_model("llama", 2))
    assert call(monkeypatch, kind, *flags_of(kind, llama)) == 2
    assert "another run (target" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ar", "dllm", "generate"])
def test_a_target_must_be_given(kind, llama, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, kind, *flags_of(kind, llama)[2:])
    assert "--target_dir" in capsys.readouterr().err


def test_the_family_refuses_a_folder_of_something_else(llama, monkeypatch, capsys):
    flags = ["--data_dir", f"{llama}/data", "--work_dir", f"{llama}/work", "--out", f"{llama}"]
    before = contents(llama)
    for more, mistake in [([], "would be overwritten"), (["--target_steps", "0"], "at least 1")]:
        assert call(monkeypatch, "family", *flags, *more) == 2
        assert mistake in capsys.readouterr().err and contents(llama) == before


def test_a_finished_target_gets_drafters_and_stays_as_it_is(llama, monkeypatch):
    work, out = llama / "work", llama / "models"
    place = Workplace(work, torch.device("cpu"))
    whole = family.Family(llama, out, family.smoke_settings(), place)
    drafters_alone = replace(whole, target_dir=llama / "target")
    assert [stage.name for stage in drafters_alone.stages()] == ["answers", "ar_drafter", "dllm_drafter", "export"]
    assert [stage.name for stage in whole.stages()][-5:-3] == ["target", "answers"]
    report = {"steps": 3, "seconds": 1.0, "tokens": 9, "first_loss": 2.0, "last_loss": 1.0, "losses": [[3, 1.0]]}
    model, tokenizer = toy_model("qwen2", 1), tokenizers.load_tokenizer(llama / "target")
    for kind in ("ar_drafter", "dllm_drafter"):
        facts = {**report, "settings": {"documents": 8}}
        export.write_model(model, tokenizer, llama / "target", work / kind, facts)
    (llama / "answers.npz").rename(work / "answers.npz")
    assert set(drafters_alone.export()["bytes"]) == {"ar_drafter", "dllm_drafter"}
    assert {folder.name for folder in out.iterdir()} == {"ar_drafter", "dllm_drafter"}
    assert "others with a sentence of another question" in (out / "ar_drafter/README.md").read_text()


def five_steps(folder: Path, out: Path) -> dict:
    """What each of torchrun's processes does: three trainings, one command, one that the leader's clock stops."""
    torch.set_num_threads(1)
    tokenizer = tokenizers.load_tokenizer(folder / "target")
    loop = replace(LOOP, num_steps=5, num_docs=7, learning_rate=1e-3)
    for kind in ("target", "ar", "dllm"):
        model, report = train_one(kind, tokenizer, Place(out / f"{kind}.pt", torch.device("cpu")), loop)
        torch.save([model.state_dict(), report.losses, report.tokens], out / f"{kind}.{ranks.rank()}")
    sys.argv = ["dllm", *flags_of("dllm", folder), "--out", str(out / "dllm")]
    dllm_command.main()
    late = -1 if ranks.is_leader() else 1000
    train_one("target", tokenizer, Place(out / "late.pt", torch.device("cpu"), deadline=time.monotonic() + late), loop)
    return {}


def test_two_processes_train_what_one_does(llama, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    root, one, two = Path(__file__).parents[1], llama / "one", llama / "two"
    one.mkdir()
    two.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command += [__file__, str(llama), str(two)]
    hang_s = 900  # only what hangs takes longer, however busy the machine
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=hang_s)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"finished": False, "stopped": "target: stopped at step 1 of 5"}
    assert done.stderr.count("target: step 5/5") == 1
    with pytest.raises(OutOfTime):
        five_steps(llama, one)
    for kind, rank in itertools.product(("target", "ar", "dllm"), (0, 1)):
        (weights, reported, tokens_seen), (again, told, seen) = (
            torch.load(path, weights_only=True) for path in (one / f"{kind}.0", two / f"{kind}.{rank}")
        )
        torch.testing.assert_close(again, weights, atol=1e-5, rtol=0)
        assert (told[0][0], seen) == (5, tokens_seen) and told[0][1] == pytest.approx(reported[0][1], rel=1e-5)
    assert sorted(path.name for path in (one / "dllm").iterdir()) == sorted(p.name for p in (two / "dllm").iterdir())


@pytest.mark.parametrize("kind", [*COMMANDS, "family", "drafters"])
def test_help_says_every_default_and_what_it_takes(kind, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, kind, "--help")
    text = capsys.readouterr().out
    assert "time and memory:" in text and "(default: auto)" in text and "(default: 0)" in text
    options = text.partition("options:")[2].partition("time and memory")[0]
    for flag in (
        "--num_steps",
        "--learning_rate",
        "--num_docs",
        "--max_rows",
        "--max_new_tokens",
        "--ar_drafter_steps",
    ):
        _, found, after = options.partition(f"  {flag} ")
        assert not found or "(default:" in after.partition("\n  --")[0], flag


def test_a_mistyped_flag_is_an_error():
    command = [sys.executable, "-m", "training.family", "--data_dri", "x"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout


if __name__ == "__main__":
    sys.exit(run_command("five_steps", lambda: five_steps(Path(sys.argv[1]), Path(sys.argv[2]))))
