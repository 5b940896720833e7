"""The command line: exit codes, suggestions, recipes overridden by flags, quick help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spanelectra.cli import COMMANDS, main
from spanelectra.training_args import RECIPES_DIRECTORY


def run(*arguments: str) -> int:
    return main(list(arguments))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


def test_help_does_not_import_torch() -> None:
    code = "import sys; from spanelectra.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(command, "--help")
    assert stopped.value.code == 0
    assert f"usage: spanelectra {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretran"], "Did you mean 'pretrain'?"),
        (["pretrain", "--maks_ratio", "0.2"], "Did you mean '--mask_ratio'?"),
        (["pretrain", "--max_steps", "many"], "max_steps"),
        (["pretrain", "--recipe", "tini"], "Did you mean 'tiny'?"),
        (["pretrain", "--recipe", "tiny"], "data is missing"),
        (["prepare", "--tokenizer", "x", "--out_dir", "y"], "data"),
        (["vocab", "--data_dir", "/does/not/exist", "--out_dir", "{tmp}/tok"], "/does/not/exist"),
        (["export", "/does/not/exist", "--out_dir", "{tmp}/out"], "/does/not/exist"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert len(error.strip().splitlines()) <= 2 and "Traceback" not in error


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
    assert shown["learning_rate"] == recipe["learning_rate"] and shown["objectives"] == ["mlm", "sbgo", "ato", "sbpo"]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES_DIRECTORY.glob("*.yaml")))
def test_what_print_config_prints_is_a_recipe(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--recipe", recipe, "--print_config") == 0
    first = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(first)
    assert run("pretrain", "--recipe", str(tmp_path / "printed.yaml"), "--print_config") == 0
    again = {**yaml.safe_load(capsys.readouterr().out), "recipe": recipe}
    assert again == yaml.safe_load(first)
