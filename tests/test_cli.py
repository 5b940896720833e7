"""The command line: exit codes, suggestions, recipes overridden by flags, quick help."""

from __future__ import annotations

import errno
import functools
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spanelectra import evaluation, export, pretraining, quickstart
from spanelectra.callbacks import RunStopped, TrainingDiverged
from spanelectra.checkpointing import CONFIG_NAME
from spanelectra.cli import COMMANDS, main
from spanelectra.data import tokenization
from spanelectra.finetuning import fine_tuning, probing
from spanelectra.recipe_files import RECIPES_DIRECTORY
from spanelectra.several_processes import ProcessLost


def run(*arguments: str) -> int:
    return main(list(arguments))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", ["", "evaluate", "finetune", "inspect", "predict", "pretrain", "quickstart"])
def test_help_does_not_import_torch(command: str) -> None:
    """It takes seconds."""
    code = (
        "import contextlib, sys; from spanelectra.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({[*command.split(), '--help']})\n"
        "sys.exit('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "usage: spanelectra" in finished.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(command, "--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: spanelectra {command}" in shown
    # in words: neither Python's types nor the docstrings' markup
    assert not re.search(r"``|:\w+:`|type:|Literal|Optional|Union|null|True|False|\w\+ ", shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretran"], "Did you mean 'pretrain'?"),
        (["pretrain", "--maks_ratio", "0.2"], "Did you mean '--mask_ratio'?"),
        (["pretrain", "--max_steps", "many"], "--max_steps: 'many' is not a whole number."),
        (["pretrain", "--learning_rate", "fast"], "--learning_rate: 'fast' is not a number."),
        (["pretrain", "--decoys=maybe"], "--decoys: 'maybe' is not true or false."),
        (["pretrain", "--stage", "generater"], "joint, generator, discriminator. Did you mean 'generator'?"),
        (["pretrain", "--masking", "spam"], "--masking: 'spam' is not one of span, token. Did you mean 'span'?"),
        (["pretrain", "--objectives", "mlm,atoo"], "Did you mean 'ato'?"),
        (["pretrain", "--mask_ratio", "much"], "--mask_ratio: 'much' is neither a number"),
        (["pretrain", "--max_st", "3"], "--max_st"),
        (["pretrain", "--max_steps"], "--max_steps: expected one argument"),
        (["pretrain", "--max_steps", "--quiet"], "--max_steps: expected one argument"),
        (["pretrain", "--data", "x", "--quiet", "junk"], "junk"),
        (["vocab", "--data_dir", "x", "--out_dir", "y", "--tokenizer_type", "BERTT"], "Did you mean 'BERT'?"),
        (["pretrain", "--data", "x", "--out_dir", "y", "--seed", "5000000000"], "seed must be from 0 to 4294967295"),
        (["pretrain", "--data", "x", "--out_dir", "y", "--weight_decay", "-1"], "weight_decay must be 0 or more"),
        (["pretrain", "--recipe", "tiny", "--resume", "RUN"], "--resume RUN goes without --recipe"),
        (["pretrain", "--resume", "RUN", "--learning_rate", "2e-3"], "goes without --learning_rate"),
        (
            ["pretrain", "--log_level", "warn"],
            "is not one of debug, info, warning, error, critical. Did you mean 'warning'",
        ),
        (["export", "RUN", "--out_dir", "X", "--quiet", "--log_level=info"], "--quiet leaves nothing but errors"),
        (
            ["pretrain", "--max_steps", "9", "--max_tokens=9"],
            "--max_steps and --max_tokens both say how long the run is",
        ),
        (["finetune", "--num_train_epochs", "3"], "Did you mean '--epochs'?"),
        (["pretrain", "--output_dir", "x"], "Did you mean '--out_dir'?"),
        (["prepare", "--data", "{tmp}", "{tmp}", "--tokenizer", "x", "--out_dir", "y"], "quote it, for the shell"),
        (["evaluate", "--model", "FT", "--data", "x"], "model 'FT' does not exist"),
        (["export", "--model", "RUN", "--out_dir", "X"], "RUN is given without a flag"),
        (
            ["pretrain", "--data", "x", "--out_dir", "y", "--generator", "g"],
            "add --stage discriminator (it is joint now)",
        ),
        (["pretrain", "--recipe", "tini"], "Did you mean 'tiny'?"),
        (["pretrain", "--recipe", "tiny"], "data is missing"),
        (["prepare", "--tokenizer", "x", "--out_dir", "y"], "--data is missing; see spanelectra prepare --help."),
        (["evaluate"], "--model and --data are missing; see spanelectra evaluate --help."),
        (["prepare"], "--data, --tokenizer and --out_dir are missing; see spanelectra prepare --help."),
        (["export", "--quiet"], "RUN and --out_dir are missing; see spanelectra export --help."),
        (["vocab", "--data_dir", "/does/not/exist", "--out_dir", "{tmp}/tok"], "/does/not/exist"),
        (["export", "/does/not/exist", "--out_dir", "{tmp}/out"], "/does/not/exist"),
        (["finetune", "--preset", "sst"], "unknown preset 'sst'"),
        (["finetune", "--task", "tokens"], "--task: 'tokens' is not one of classification, token, qa. Did you mean"),
        (["finetune", "--task", "token", "--train", "x"], "model is missing: pass --model."),
        (["finetune", "--preset", "sst2", "--lerning_rate", "1"], "Did you mean '--learning_rate'?"),
        (["finetune", "--task", "token", "--layerwise_lr_decay", "2"], "layerwise_lr_decay must be above 0"),
        (["finetune", "--task", "token", "--resume", "--overwrite"], "resume and overwrite exclude one another"),
        (["evaluate", "--model", "/does/not/exist", "--data", "x"], "/does/not/exist"),
        (["evaluate", "--model", "x", "--data", "y", "--rows", "few"], "--rows: 'few' is not a whole number."),
        (["probe", "--model", "x", "--tasks", "/does/not/exist"], "tasks '/does/not/exist' is not a folder"),
        (["probe", "--model", "x", "--tasks", "y", "--fine_tune=some"], "--fine_tune: 'some' is not true or false."),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert len(error.strip().splitlines()) <= 2 and "Traceback" not in error
    assert "typing." not in error and "<class" not in error


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"quickstart"}))
def test_a_command_without_arguments_says_what_is_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.strip().splitlines()) <= 2


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the inputs F, RUN and ROWS, which commands look for before they start."""
    monkeypatch.chdir(tmp_path)
    Path("F").touch()
    for name in ("RUN", "ROWS", ".partial-corrupted"):
        Path(name).mkdir()
    return tmp_path


def stand_in(
    monkeypatch: pytest.MonkeyPatch, module: Any, command: str, error: BaseException | None = None
) -> list[dict]:
    """Put a function of the same signature in a command's place; returns what it is called with."""
    calls: list[dict] = []

    @functools.wraps(getattr(module, command))
    def function(*arguments: Any, **keywords: Any) -> None:
        calls.append(vars(arguments[0]) if arguments else keywords)
        if error is not None:
            raise error

    monkeypatch.setattr(module, command, function)
    return calls


def test_settings_of_fine_tuning_arrive(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, fine_tuning, "finetune")
    flags = "--preset cola --model M --train F --dev 0.1 --out_dir O --seeds 5 --label_column -1 --resume --quiet"
    assert run("finetune", *flags.split(), "--dropout=0.2", "--bf16", "false", "--regression", "false") == 0
    (settings,) = calls
    expected = {"preset": "cola", "model": "M", "train": "F", "dev": "0.1", "out_dir": "O", "seeds": 5, "task": None}
    expected |= {"label_column": "-1", "resume": True, "quiet": True, "overwrite": False, "dropout": 0.2}
    expected |= {"bf16": "false", "regression": False, "learning_rate": None}
    assert {name: settings[name] for name in expected} == expected


def test_fine_tuning_prints_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("finetune", "--preset", "mrpc", "--metric", "accuracy", "--print_config") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["task"], shown["metric"], shown["epochs"], shown["header"]) == (
        "classification",
        "accuracy",
        4.0,
        "yes",
    )


@pytest.mark.parametrize(
    ("flags", "only"), [([], None), (["--only", "sst2,cola"], ["sst2", "cola"]), (["--only=mrpc"], ["mrpc"])]
)
def test_a_probe_of_some_tasks(flags: list[str], only: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, probing, "probe")
    assert run("probe", "--model", "M", "--tasks", "T", *flags, "--fine_tune", "false") == 0
    assert calls[0]["only"] == only and calls[0]["fine_tune"] is False and calls[0]["epochs"] == 3.0


def test_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, evaluation, "evaluate")
    assert run("evaluate", "--model", "M", "--data", "D", "--overwrite", "false", "--out_dir", "O") == 0
    assert calls[0]["overwrite"] is False and calls[0]["out_dir"] == "O" and calls[0]["rows"] == 512


@pytest.mark.parametrize("code", [130, 143])
def test_a_run_that_was_stopped_exits_as_its_signal_says(
    code: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, fine_tuning, "finetune", RunStopped(code - 128))
    flags = "--task token --model M --train F --dev F --out_dir OUT"
    assert run("finetune", *flags.split()) == code


def test_an_interrupted_run_says_whether_there_is_anything_to_resume(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, pretraining, "pretrain", KeyboardInterrupt())
    command = ("pretrain", "--data", "ROWS", "--out_dir", "OUT")
    nothing = "interrupted before the first checkpoint: there is nothing to resume; give the command again.\n"
    for content, said in ((None, nothing), ("tokenizer", nothing), (CONFIG_NAME, "interrupted\n")):
        if content is not None:
            (here / "OUT" / content).mkdir(parents=True)
        assert run(*command) == 130 and capsys.readouterr().err == said
    assert run("pretrain", "--resume", "RUN") == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ProcessLost("another one has ended"), TrainingDiverged("the loss is nan")])
def test_a_run_that_failed_says_why_without_a_trace(
    error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, pretraining, "pretrain", error)
    assert run("pretrain", "--resume", "RUN") == 1
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes."),
    ],
)
def test_a_full_memory_is_no_defect(
    error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, pretraining, "pretrain", error)
    assert run("pretrain", "--resume", "RUN") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: memory is full (") and "halve --per_device_train_batch_size" in said
    assert "more" not in said and "tried to allocate 2" in said.lower()


# longer than a name may be
SHARDS = [f"shard-{number:05}.jsonl" for number in range(400)]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a.txt,b.txt", ["a.txt", "b.txt"]),
        ("a.txt, b.txt,", ["a.txt", "b.txt"]),
        (",".join(SHARDS), SHARDS),
        ("[a.txt,b.txt]", ["a.txt", "b.txt"]),
        ("a.txt", "a.txt"),
        ("one,file", "one,file"),
    ],
)
def test_text_is_one_place_or_several_separated_by_commas(
    given: str, read: str | list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("one,file").write_text("text")
    calls = stand_in(monkeypatch, tokenization, "vocab")
    assert run("vocab", "--data_dir", given, "--out_dir", "TOK") == 0
    assert calls[0]["data_dir"] == read


def test_quickstart_needs_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, quickstart, "quickstart")
    assert run("quickstart") == 0
    assert calls[0]["out_dir"] == "quickstart" and calls[0]["overwrite"] is False


@pytest.mark.parametrize(
    ("arguments", "overwrite", "quiet"),
    [
        (["--overwrite", "RUN", "--out_dir", "X"], True, False),
        (["RUN", "--out_dir", "X", "--overwrite"], True, False),
        (["--quiet", "--overwrite", "RUN", "--out_dir=X"], True, True),
        (["--overwrite", "false", "RUN", "--out_dir", "X", "--quiet", "True"], False, True),
        (["--overwrite=true", "--out_dir", "X", "--quiet", "RUN"], True, True),
    ],
)
def test_a_switch_may_stand_anywhere(
    arguments: list[str], overwrite: bool, quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_in(monkeypatch, export, "export")
    assert run("export", *arguments) == 0
    assert calls == [{"run": "RUN", "out_dir": "X", "dropout": None, "overwrite": overwrite, "quiet": quiet}]


@pytest.mark.parametrize(
    ("flags", "level"),
    [([], None), (["--log_level", "debug"], "debug"), (["--quiet", "--log_level=error"], "error")],
)
def test_a_log_level_holds_while_a_command_works(
    flags: list[str], level: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @functools.wraps(export.export)
    def function(**keywords: Any) -> None:
        assert "log_level" not in keywords
        seen.append(logging.getLogger("transformers").level)

    before = logging.getLogger("transformers").level
    monkeypatch.setattr(export, "export", function)
    assert run("export", "RUN", "--out_dir", "X", *flags) == 0
    assert seen == [before if level is None else getattr(logging, level.upper())]
    assert logging.getLogger("transformers").level == before


def test_a_resumed_run_may_be_heard_otherwise(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, pretraining, "pretrain")
    assert run("pretrain", "--resume", "RUN", "--log_level", "warning") == 0
    assert calls[0]["resume"] == "RUN"


def test_values_of_every_type_arrive(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, pretraining, "pretrain")
    flags = "--objectives mlm,ato --learning_rate 1e-3 --seed 010 --mask_ratio 0.2 --bf16 true --generator null"
    others = ["--max_span_words", "0:1 0.3:5", "--masking=token", "--decoys=false", "--data=ROWS", "--out_dir=OUT"]
    assert run("pretrain", *flags.split(), *others) == 0
    (settings,) = calls
    expected = {"objectives": ["mlm", "ato"], "learning_rate": 1e-3, "seed": 10, "mask_ratio": 0.2, "bf16": "true"}
    expected |= {"generator": None, "max_span_words": "0:1 0.3:5", "masking": "token", "decoys": False}
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("pretrain", "--data ROWZ --out_dir OUT", "--data: 'ROWZ' does not exist. Did you mean 'ROWS'?"),
        ("pretrain", "--resume elsewhere", "If the run was stopped before its first step, give its command again."),
        ("pretrain", "--data corrupted --out_dir OUT", "It was begun and not finished: give the command again"),
        (
            "pretrain",
            "--resume RUNN",
            "--resume: 'RUNN' does not exist. Did you mean 'RUN'? If the run was stopped before",
        ),
        ("pretrain", "--data ROWS --out_dir OUT --mask_ratio 0.9", "mask_ratio must be above 0 and at most 0.5"),
        ("finetune", "--preset sst2 --model M --train G --dev 0.1 --out_dir OUT", "--train: 'G' does not exist"),
        (
            "finetune",
            "--preset sst2 --model M --train ROWS --dev 0.1 --out_dir OUT",
            "'ROWS' is a directory; give a file",
        ),
        ("pretrain", "--data F --out_dir OUT", "--data: 'F' is a file; give a directory"),
        ("pretrain", "--data ~no-user/x --out_dir OUT", "--data: '~no-user/x': there is no home directory '~no-user'"),
        ("finetune", "--preset sst2 --model M --train F --dev 1.5 --out_dir OUT", "dev 1.5 is neither a file nor"),
        ("finetune", "--preset sst2 --model M --train F --dev G --out_dir OUT", "--dev: 'G' does not exist"),
    ],
)
def test_what_needs_no_model_to_be_wrong_is_said_at_once(command: str, flags: str, message: str, here: Path) -> None:
    code = "import sys; from spanelectra.cli import main; code = main(sys.argv[1:]); "
    code += "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, command, *flags.split()], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: Permission denied: /x\n"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "error: Not a directory: a/b\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "error: No space left on device: /x\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device\n"),
    ],
)
def test_a_file_that_the_system_refuses_is_one_line(
    error: OSError, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, quickstart, "quickstart", error)
    assert run("quickstart") == code
    assert capsys.readouterr().err == message


def test_an_error_of_ours_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, quickstart, "quickstart", OSError("something of a library's"))
    with pytest.raises(OSError, match="of a library's"):
        run("quickstart")


def test_an_out_dir_inside_a_file_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("Some words, again and again. " * 50)
    target = tmp_path / "text.txt" / "tok"
    assert run("vocab", "--data_dir", str(tmp_path / "text.txt"), "--out_dir", str(target), "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path / "text.txt") in error and "Traceback" not in error


def test_options_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("export", "--help")
    shown = capsys.readouterr().out
    assert "replace an earlier export in out_dir" in shown and "<function" not in shown


def test_what_reads_the_descriptions_is_installed_and_pinned() -> None:
    root = Path(__file__).parent.parent
    assert '"jsonargparse[signatures]>=' in (root / "pyproject.toml").read_text(encoding="utf-8")
    pins = (root / "constraints.txt").read_text(encoding="utf-8")
    for package in ("docstring_parser", "typeshed_client"):
        assert re.search(rf"^{package}==[\d.]+$", pins, flags=re.MULTILINE), package


def test_a_misspelt_field_of_a_recipe_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("learning_rte: 0.1\n")
    assert run("pretrain", "--recipe", str(tmp_path / "mine.yaml")) == 2
    error = capsys.readouterr().err
    assert "mine.yaml" in error and "'learning_rte'" in error and "'learning_rate'" in error


def test_a_flag_overrides_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--recipe", "tiny", "--max_steps", "7", "--overwrite", "--print_config") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    recipe = yaml.safe_load((RECIPES_DIRECTORY / "tiny-modern.yaml").read_text())
    assert shown["max_steps"] == 7 and shown["overwrite"] is True
    assert type(shown["sampling_temperature"]) is float
    assert shown["learning_rate"] == recipe["learning_rate"] and shown["objectives"] == ["mlm", "sbgo", "ato", "sbpo"]


@pytest.mark.parametrize(("given", "kept"), [("2", 2.0), ("0.5", 0.5), ("0:2 1:1", "0:2 1:1")])
def test_a_temperature_is_a_number_or_a_schedule(given: str, kept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--sampling_temperature", given, "--print_config") == 0
    shown = yaml.safe_load(capsys.readouterr().out)["sampling_temperature"]
    assert shown == kept and type(shown) is type(kept)


@pytest.mark.parametrize("name", ["mask_ratio", "max_span_words", "per_device_train_batch_size", "sequence_length"])
@pytest.mark.parametrize(("given", "kept"), [("2", 2), ("0:2 1:1", "0:2 1:1")])
def test_other_schedules_are_numbers_or_schedules(
    name: str, given: str, kept: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pretrain", f"--{name}", given, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)[name] == kept


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES_DIRECTORY.glob("*.yaml")))
def test_what_print_config_prints_is_a_recipe(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--recipe", recipe, "--print_config") == 0
    first = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(first)
    assert run("pretrain", "--recipe", str(tmp_path / "printed.yaml"), "--print_config") == 0
    again = {**yaml.safe_load(capsys.readouterr().out), "recipe": recipe}
    assert again == yaml.safe_load(first)
