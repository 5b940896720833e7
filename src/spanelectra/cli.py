"""The command line: ``spanelectra COMMAND``; each command is a thin skin over the function of the same name.

Exit codes: 0 success, 2 a mistake in what the user gave (a directory that cannot be written, too), 130 and 143 after
Ctrl-C and SIGTERM, 1 anything else.
Modules are imported when their command runs, so that ``spanelectra --help`` answers at once; where settings are a
class, they and the names of files are looked at before the seconds that torch and transformers take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

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
    "inspect": ("spanelectra.inspection.command", "look into a model at work on a sentence, or into its rows"),
    "report": ("spanelectra.run_page", "one page about runs: health, curves, spans, scores"),
    "finetune": ("spanelectra.finetuning.fine_tuning", "train an encoder for a task of your own, over several seeds"),
    "evaluate": ("spanelectra.evaluation", "score a fine-tuned model on a file, or a run on any text"),
    "predict": ("spanelectra.prediction", "what a fine-tuned model says of your texts, or of a file"),
    "export_onnx": ("spanelectra.onnx_export", "write an exported or fine-tuned model as ONNX"),
    "probe": ("spanelectra.finetuning.probing", "minutes: what an encoder is good for, on a folder of tasks"),
}
# commands whose settings are a class -> its module and name
SETTINGS = {
    "pretrain": ("spanelectra.training_args", "PretrainingArguments"),
    "finetune": ("spanelectra.finetuning.fine_tuning_args", "FineTuningArguments"),
}
# of these commands' settings, the ones that name files or directories, never a model on the Hub
_FILES = {"pretrain": ("data", "resume", "probe_tasks"), "finetune": ("train", "dev", "test")}
# commands that take something without a flag -> its name, how often (as argparse says it), and what it is
POSITIONAL: dict[str, tuple[str, str | None, str]] = {
    "export": ("run", None, "directory of a `spanelectra pretrain` run, or a model saved there"),
    "export_onnx": ("model", None, "directory of an exported or fine-tuned model"),
    "inspect": ("text", "?", "the sentence; one of our own if left out"),
    "predict": ("texts", "*", "texts, or questions; without any, and without --data, a text a line of standard input"),
    "report": ("runs", "+", "directories of runs, of pre-training or fine-tuning"),
}
# Hugging Face's names of settings -> ours, for those who try them.
HUGGING_FACE_NAMES = {
    "num_train_epochs": "epochs",
    "output_dir": "out_dir",
    "model_name_or_path": "model",
    "train_file": "train",
    "validation_file": "dev",
    "test_file": "test",
    "per_device_train_batch_size": "batch_size",
    "dataset_name": "data",
    "warmup_steps": "warmup_ratio",
    "resume_from_checkpoint": "resume",
}
# what a run can be resumed by once it is there; the module that writes it brings torch
_RUN_CONFIG = "config.yaml"
# argparse's complaint
_MISSING = "the following arguments are required: "
_LOG_LEVEL_HELP = (
    "debug, info, warning, error or critical, also of transformers, datasets and torch: info says all that is said by "
    "default and the libraries' own remarks, warning leaves alarms and warnings, error (as --quiet) only errors"
)


def usage() -> str:
    """The overview that ``spanelectra --help`` prints."""
    lines = ["usage: spanelectra COMMAND [--help] [OPTIONS]", "", "Span-level pre-training of text encoders.", ""]
    lines += [f"  {name:<12}{description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join([*lines, "", "spanelectra COMMAND --help lists a command's options."])


def _settings_class(command: str) -> Any:
    """The class of a command's settings; ``None`` for one that takes them as arguments of its function."""
    if command not in SETTINGS:
        return None
    module, name = SETTINGS[command]
    return getattr(importlib.import_module(module), name)


def _function(command: str) -> Any:
    return getattr(importlib.import_module(COMMANDS[command][0]), command)


def _parser(command: str) -> Any:
    """An argument parser made from the signature and docstring of the command's settings, or else of its function."""
    from jsonargparse import ArgumentParser

    from spanelectra.command_help import HelpInWords, plain_text

    class Parser(ArgumentParser):
        def format_help(self, *arguments: Any, **named: Any) -> str:
            return plain_text(super().format_help(*arguments, **named))

        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise UserError(_explain(message, self))

    # our own --print_config prints the resolved settings
    parser = Parser(
        prog=f"spanelectra {command}",
        description=COMMANDS[command][1],
        formatter_class=HelpInWords,
        print_config=None,
        allow_abbrev=False,
    )
    settings_class = _settings_class(command)
    if settings_class is not None:
        parser.add_class_arguments(settings_class, nested_key=None)
        parser.add_argument("--print_config", action="store_true", help="print the resolved settings as YAML and exit")
    elif command in POSITIONAL:
        name, count, meaning = POSITIONAL[command]
        parser.add_argument(name, nargs=count, help=meaning)
        parser.add_function_arguments(_function(command), skip={name})
    else:
        parser.add_function_arguments(_function(command))
    parser.add_argument("--log_level", default=None, help=_LOG_LEVEL_HELP)
    return parser


def _explain(message: str, parser: Any) -> str:
    """The parser's complaint in a line or two, with a suggestion for a misspelt flag."""
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    text = " ".join(lines[:3])
    flags = [option for action in parser._actions for option in action.option_strings]
    for word in text.replace("=", " ").split():
        if word.startswith("--") and word.rstrip(".,:") not in flags:
            bare = {
                f"--{action.dest}": f" {action.dest.upper()} is given without a flag."
                for action in parser._actions
                if not action.option_strings
            }
            name = HUGGING_FACE_NAMES.get(word.strip("-.,:"), word)
            hint = did_you_mean(f"--{name}" if name != word else word.rstrip(".,:"), [*flags, *bare])
            for flag, sentence in bare.items():
                hint = sentence if not hint or f"'{flag}'" in hint else hint
            return f"{text.rstrip('.')}.{hint}"
    if text.startswith(_MISSING):
        return _missing(text.removeprefix(_MISSING).split(", "), parser)
    if "unrecognized arguments" in text and parser.prog.endswith(" predict"):
        return f"{text.rstrip('.')}. Give all texts side by side, with no flag between them."
    is_of_text = parser.prog.endswith((" prepare", " vocab"))
    if is_of_text and "unrecognized arguments" in text and any(_exists(word) for word in text.split()[-3:]):
        return f"{text.rstrip('.')}. If you gave a pattern such as TEXT/*.txt, quote it, for the shell takes it apart."
    return text


def _missing(names: list[str], parser: Any) -> str:
    """Which arguments are missing, as they are typed."""
    positional = {action.dest for action in parser._actions if not action.option_strings}
    typed = [name.upper() if name in positional else f"--{name}" for name in names]
    listed = " and ".join([", ".join(typed[:-1]), typed[-1]] if typed[1:] else typed)
    return f"{listed} {'is' if len(typed) == 1 else 'are'} missing; see {parser.prog} --help."


def _kinds(command: str) -> dict[str, Any]:
    """Flag -> the type of its value."""
    from spanelectra.console import LogLevel

    kinds = get_type_hints(_settings_class(command) or _function(command))
    return {f"--{name}": kind for name, kind in kinds.items() if name != "return"} | {"--log_level": LogLevel}


def _checked_flags(arguments: list[str], kinds: dict[str, Any]) -> list[str]:
    """The arguments with every flag as ``--flag=value``, checked; ``--overwrite`` alone is ``--overwrite=true``.

    The parser cannot: its complaints are in Python, and it would take what follows a switch for the switch's value.
    """
    checked, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.partition("=")
        is_alone = not equals and (not rest or rest[0].startswith("--"))
        if flag not in kinds or (is_alone and kinds[flag] is not bool):
            checked.append(word)
            continue
        if not equals and kinds[flag] is bool:
            text = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
        elif not equals:
            text = rest.pop(0)
        _check_home(text, flag)
        checked.append(f"{flag}={_checked_text(text, kinds[flag], flag)}")
    return checked


def _check_home(text: str, flag: str) -> None:
    """Raise :class:`UserError` for ``~somebody`` who has no home here; Python's own complaint names neither."""
    try:
        Path(text.partition("\0")[0]).expanduser()
    except RuntimeError:
        raise UserError(f"{flag}: '{text}': there is no home directory '{text.partition('/')[0]}'.") from None


def _exists(path: str) -> bool:
    """Whether something has this name; nothing has one that is too long."""
    try:
        return Path(path).expanduser().exists()
    except OSError:
        return False


def _checked_text(text: str, kind: Any, flag: str) -> str:
    """A flag's value as the parser reads it."""
    from spanelectra.recipe_files import checked_value

    options = [option for option in get_args(kind) if option is not type(None)]
    if list[str] in options and str in options:
        parts = [part.strip() for part in text.split(",")]
        is_list = len(parts) > 1 and not text.startswith("[") and not _exists(text)
        return json.dumps([part for part in parts if part]) if is_list else text
    if len(options) < len(get_args(kind)):
        if text in ("null", "None"):
            return text
        kind = options[0] if len(options) == 1 else kind
    value: Any = text
    if kind is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif kind is int:
        with contextlib.suppress(ValueError):
            value = int(text)
    elif get_origin(kind) is list:
        value = text.translate(str.maketrans("", "", "[]'\""))
    value = checked_value(value, kind, flag)
    return json.dumps(value) if isinstance(value, (bool, list)) else str(value)


def _run_with_settings(command: str, parser: Any, arguments: list[str]) -> Any:
    """A command whose settings are a class; ``--recipe`` of pretrain sets defaults that flags override."""
    from spanelectra.recipe_files import as_yaml, load_recipe

    if command == "pretrain":
        given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        others = [flag for flag in given if flag not in ("--resume", "--quiet", "--log_level", "--help")]
        # also where a flag repeats the default, which the settings would not show
        if "--resume" in given and others:
            raise UserError(f"--resume RUN goes without {', '.join(others)}: a resumed run keeps its own settings.")
        for recipe in [word.removeprefix("--recipe=") for word in arguments if word.startswith("--recipe=")][-1:]:
            defaults = load_recipe(recipe)
            if "--max_steps" in given:
                # of the two that say how long a run is, the one that is given counts
                defaults.pop("max_tokens", None)
            parser.set_defaults(defaults)
    parsed = parser.parse_args(arguments)
    if command == "pretrain" and "--max_steps" in given and parsed.max_tokens is not None:
        raise UserError("--max_steps and --max_tokens both say how long the run is: give one of them.")
    settings_class = _settings_class(command)
    settings = settings_class(**{field.name: parsed[field.name] for field in dataclasses.fields(settings_class)})
    if parsed.print_config:
        print(as_yaml(settings.resolved()), end="")
        return None
    _check_early(command, settings)
    try:
        return _function(command)(settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_nothing_to_resume(command, settings)) from None


def _nothing_to_resume(command: str, settings: Any) -> str:
    """What to say of a run that was interrupted before it wrote what it could be resumed from, else nothing."""
    is_new = command == "pretrain" and not settings.resume
    if not is_new or (Path(settings.out_dir).expanduser() / _RUN_CONFIG).exists():
        return ""
    return "interrupted before the first checkpoint: there is nothing to resume; give the command again."


def _check_early(command: str, settings: Any) -> None:
    """What can be seen to be wrong without a model.

    Raises:
        UserError: for a setting that is missing or does not fit, or a file that is not there.
    """
    from spanelectra.data.text_files import did_you_mean_path

    if not (command == "pretrain" and settings.resume):
        settings.resolved().check()
    for name in _FILES[command]:
        value = getattr(settings, name)
        if not value or (name == "dev" and settings.dev_fraction is not None):
            continue
        path = Path(value).expanduser()
        if not path.exists():
            hint = _unfinished(path) or did_you_mean_path(path)
            if name == "resume":
                # a folder of a similar name is there more often than it is meant
                hint += " If the run was stopped before its first step, give its command again."
            raise UserError(f"--{name}: '{value}' does not exist.{hint}")
        wanted, found = ("directory", "file") if command == "pretrain" else ("file", "directory")
        if path.is_dir() != (wanted == "directory"):
            raise UserError(f"--{name}: '{value}' is a {found}; give a {wanted}.")


def _unfinished(path: Path) -> str:
    """What to do where something is not there because what was to write it was stopped."""
    from spanelectra.atomic_files import partial_path

    is_begun = partial_path(path).exists()
    return " It was begun and not finished: give the command again that was to write it." if is_begun else ""


def _chosen_log_level(arguments: list[str]) -> contextlib.AbstractContextManager[None]:
    """What the checked arguments say of how much is to be said."""
    from spanelectra.console import log_level

    levels = [word.removeprefix("--log_level=") for word in arguments if word.startswith("--log_level=")]
    level = levels[-1] if levels else None
    if "--quiet=true" in arguments and level in ("debug", "info", "warning"):
        raise UserError(f"--quiet leaves nothing but errors, --log_level {level} asks for more: give one of them.")
    if level in ("debug", "info"):
        # torch and accelerate bring no handler of their own
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    return log_level(level)  # type: ignore[arg-type]


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
        parser = _parser(command)
        rest = _checked_flags(rest, _kinds(command))
        with _chosen_log_level(rest):
            if command in SETTINGS:
                from spanelectra.memory import keep_freed_memory

                keep_freed_memory()
                _run_with_settings(command, parser, rest)
            else:
                values = vars(parser.parse_args(rest))
                values.pop("log_level")
                # what may be given any number of times and was not is not an empty list of it
                _function(command)(**{name: None if value == [] else value for name, value in values.items()})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(str(interruption) or "interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        return _explain_file_error(error)
    except RuntimeError as error:
        return _explain_run_error(error)
    return 0


def _explain_file_error(error: OSError) -> int:
    """Exit code where the system refuses a file; a full disk is nobody's mistake, and an error without a file ours."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if error.filename is None and not is_full:
        raise error
    place = "" if error.filename is None else f": {error.filename}"
    print(f"error: {error.strerror}{place}", file=sys.stderr)
    return 1 if is_full else 2


def _explain_run_error(error: RuntimeError) -> int:
    """Exit code of a run that was stopped, or failed as its message says; else it is a defect and keeps its trace."""
    import torch

    from spanelectra.callbacks import RunFailed, RunStopped

    if isinstance(error, RunStopped):
        return error.exit_code
    if isinstance(error, RunFailed):
        print(f"error: {error}", file=sys.stderr)
        return 1
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        first = str(error).strip().splitlines()[0]
        print(
            f"error: memory is full ({first[:200]}). Take a smaller batch: in pre-training halve "
            "--per_device_train_batch_size and double --gradient_accumulation_steps, which leaves a step its rows, or "
            "pass --gradient_checkpointing true.",
            file=sys.stderr,
        )
        return 1
    raise error


if __name__ == "__main__":
    sys.exit(main())
