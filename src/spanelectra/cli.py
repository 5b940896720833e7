"""The command line: ``spanelectra COMMAND``; each command is a thin skin over the function of the same name.

Exit codes: 0 success, 2 a mistake in what the user gave, 130 and 143 after Ctrl-C and SIGTERM, 1 anything else.
Modules are imported when their command runs, so that ``spanelectra --help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

from spanelectra import __version__
from spanelectra.errors import UserError, did_you_mean

# command -> (module, what it does)
COMMANDS = {
    "vocab": ("spanelectra.data.tokenization", "train a tokenizer: byte-level BPE or WordPiece"),
    "prepare": ("spanelectra.data.packing", "turn text into memory-mapped rows of token ids"),
    "pretrain": ("spanelectra.pretraining", "train a generator, a discriminator, or both together"),
    "corrupt": ("spanelectra.corruption", "write a trained generator's fake spans as discriminator features"),
    "export": ("spanelectra.export", "write plain Hugging Face models out of a run"),
    "quickstart": ("spanelectra.quickstart", "all of it in minutes, on text that every Python carries"),
    "show": ("spanelectra.picture", "one sentence in the terminal: spans, fills and verdicts"),
}
# commands whose run is given without a flag: spanelectra export RUN --out_dir OUT
TAKES_RUN = ("export", "show")


def usage() -> str:
    """The overview that ``spanelectra --help`` prints."""
    lines = ["usage: spanelectra COMMAND [--help] [OPTIONS]", "", "Span-level pre-training of text encoders.", ""]
    lines += [f"  {name:<12}{description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join([*lines, "", "spanelectra COMMAND --help lists a command's options."])


def _parser(command: str, function: Any) -> Any:
    """An argument parser made from the function's signature and docstring."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise UserError(_explain(message, self))

    # our own --print_config prints the resolved settings
    parser = Parser(prog=f"spanelectra {command}", description=COMMANDS[command][1], print_config=None)
    if command == "pretrain":
        from spanelectra.training_args import PretrainingArguments

        parser.add_class_arguments(PretrainingArguments, nested_key=None)
        parser.add_argument("--print_config", action="store_true", help="print the resolved settings as YAML and exit")
    elif command in TAKES_RUN:
        parser.add_argument("run", help="directory of a `spanelectra pretrain` run, or a model saved there")
        parser.add_function_arguments(function, skip={"run"})
    else:
        parser.add_function_arguments(function)
    return parser


def _explain(message: str, parser: Any) -> str:
    """The parser's complaint in a line or two, with a suggestion for a misspelt flag."""
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    text = " ".join(lines[:3])
    flags = [option for action in parser._actions for option in action.option_strings]
    for word in text.replace("=", " ").split():
        if word.startswith("--") and word.rstrip(".,:") not in flags:
            return f"{text}{did_you_mean(word.rstrip('.,:'), flags)}"
    return text


def _spell_out_flags(parser: Any, arguments: list[str]) -> list[str]:
    """``--overwrite`` alone means ``--overwrite=true``."""
    switches = {
        option
        for action in parser._actions
        if getattr(action, "_typehint", None) is bool
        for option in action.option_strings
    }
    following = [*arguments[1:], "--"][: len(arguments)]
    return [
        f"{word}=true" if word in switches and after.startswith("--") else word
        for word, after in zip(arguments, following, strict=True)
    ]


def _run_pretrain(parser: Any, arguments: list[str], function: Any) -> Any:
    """``--recipe`` sets defaults that flags override."""
    from spanelectra.training_args import PretrainingArguments, as_yaml, load_recipe

    recipe = next(
        (
            value.split("=", 1)[1] if value.startswith("--recipe=") else following
            for value, following in zip(arguments, [*arguments[1:], ""][: len(arguments)], strict=True)
            if value == "--recipe" or value.startswith("--recipe=")
        ),
        None,
    )
    if recipe is not None:
        parser.set_defaults(load_recipe(recipe))
    parsed = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(PretrainingArguments)]
    settings = PretrainingArguments(**{name: parsed[name] for name in names})
    if parsed.print_config:
        print(as_yaml(settings.resolved()), end="")
        return None
    return function(settings)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"spanelectra {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command not in COMMANDS:
            raise UserError(f"unknown command '{command}'.{did_you_mean(command, COMMANDS)} See spanelectra --help.")
        function = getattr(importlib.import_module(COMMANDS[command][0]), command)
        parser = _parser(command, function)
        rest = _spell_out_flags(parser, rest)
        if command == "pretrain":
            _run_pretrain(parser, rest, function)
        else:
            function(**vars(parser.parse_args(rest)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except RuntimeError as error:
        return _explain_run_error(error)
    return 0


def _explain_run_error(error: RuntimeError) -> int:
    """Exit code of a run that was stopped or diverged; anything else is a defect and keeps its trace."""
    from spanelectra.callbacks import RunStopped, TrainingDiverged

    if isinstance(error, RunStopped):
        return error.exit_code
    if isinstance(error, TrainingDiverged):
        print(f"error: {error}", file=sys.stderr)
        return 1
    raise error


if __name__ == "__main__":
    sys.exit(main())
