"""What every command says in a pipe: lines without control characters, nothing when it is to be quiet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from report_runs import finished_run  # noqa: F401 - fixture
from small_runs import small_run, write_recipe
from spanelectra import quickstart as quickstart_module
from spanelectra import training_args
from spanelectra.cli import COMMANDS, main
from tiny_tasks import save_encoder, write_task

# bars, colours, and what moves a cursor
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# these say nothing else to a pipe
SCORES_ALONE = {"evaluate"}
# what these are for: a picture, answers
SHOWN_ALWAYS = {"quickstart", "predict"}


@pytest.fixture(scope="module")
def places(
    rows: Path,
    finished_run: Path,  # noqa: F811
    generator_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What the commands work on, by name."""
    place = tmp_path_factory.mktemp("commands")
    save_encoder("modernbert", place / "encoder")
    files = write_task(place / "tasks" / "mood", "classification", train=32, dev=16)
    recipe = write_recipe(small_run(rows, place / "unused", quiet=False, report=True), place)
    found = {"rows": rows, "text": rows.parent / "text", "tokenizer": rows.parent / "tokenizer", "run": finished_run}
    found |= {"generator": generator_run, "encoder": place / "encoder", "tasks": place / "tasks"}
    return {name: str(path) for name, path in found.items()} | {"recipe": recipe, **files}


def arguments(command: str, out: Path) -> list[str]:
    """A call of a command, with the names of places in braces."""
    training = "--task classification --epochs 1 --batch_size 16 --max_length 32 --bf16 false"
    return {
        "vocab": f"--data_dir {{text}} --out_dir {out} --vocab_size 400",
        "prepare": f"--data {{text}} --tokenizer {{tokenizer}} --out_dir {out} --max_seq_length 32",
        "pretrain": f"--recipe {{recipe}} --out_dir {out}",
        "corrupt": f"--generator {{generator}} --data {{rows}} --out_dir {out}",
        "export": f"{{run}} --out_dir {out}",
        "quickstart": f"--out_dir {out}",
        "inspect": f"--model {{run}} --html {out}.html",
        "report": f"{{run}} --out {out}.html --rows 8",
        "finetune": f"--model {{encoder}} --train {{train}} --dev {{dev}} --out_dir {out} {training}",
        "evaluate": "--model {run} --data {rows} --rows 8",
        "predict": f"--model {out.parent}/finetune --data {{dev}}",
        "export_onnx": f"{out.parent}/export/discriminator --out_dir {out}",
        "probe": "--model {encoder} --tasks {tasks} --train_examples 32 --fine_tune false",
    }[command].split()


def call(command: str, places: dict[str, str], out: Path, *more: str) -> None:
    assert main([command, *(word.format(**places) for word in arguments(command, out)), *more]) == 0


@pytest.fixture
def short_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little text, and a run of six steps."""
    prose = [(name, text) for (name, text), _ in zip(quickstart_module.python_prose(), range(12), strict=False)]
    monkeypatch.setattr(quickstart_module, "python_prose", lambda: prose)
    load = training_args.load_recipe
    steps = {"max_steps": 6, "logging_steps": 3, "eval_rows": 8, "hidden_size": 32, "num_attention_heads": 2}
    monkeypatch.setattr(
        training_args, "load_recipe", lambda name, *children: steps if name == "quickstart" else load(name, *children)
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_pipe_gets_plain_lines_and_quiet_is_quiet(
    command: str,
    places: dict[str, str],
    short_quickstart: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    before = {"export_onnx": "export", "predict": "finetune"}.get(command)
    if before is not None:
        call(before, places, tmp_path / before)
    capfd.readouterr()
    call(command, places, tmp_path / "loud")
    loud = capfd.readouterr()
    # scores alone are all that there is to say of a few texts
    assert len(loud.err) > 20 or (command in SCORES_ALONE and len(loud.out) > 20)
    assert not CONTROL.search(loud.out + loud.err)
    for number, flags in enumerate((["--quiet"], ["--log_level", "error"])):
        call(command, places, tmp_path / f"quiet{number}", *flags)
        quiet = capfd.readouterr()
        # scores go into files, too
        assert quiet.err == "" and quiet.out == (loud.out if command in SHOWN_ALWAYS else ""), flags
