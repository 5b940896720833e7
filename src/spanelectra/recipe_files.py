"""Recipes, the YAML files of settings, and which values a setting takes, wherever they come from."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from spanelectra.errors import UserError, did_you_mean, reason_of
from spanelectra.schedules import Schedule

LARGEST_RECIPE = 1 << 20  # bytes
LONGEST_VALUE = 1000
RECIPES_DIRECTORY = Path(__file__).parent / "recipes"

# What a number must be -> whether it is, and which settings.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "at least 1": (
        lambda number: number >= 1,
        "max_steps max_tokens per_device_eval_batch_size gradient_accumulation_steps logging_steps eval_rows "
        "probe_steps save_total_limit max_nonfinite_steps ddp_timeout num_hidden_layers max_position_embeddings "
        "span_position_size "
        "max_train_examples batch_size eval_batch_size evaluations_per_epoch seeds max_answer_length n_best",
    ),
    "0 or more": (
        lambda number: number >= 0,
        "weight_decay max_grad_norm max_rollbacks dataloader_num_workers eval_steps save_steps patience",
    ),
    "above 0": (lambda number: number > 0, "learning_rate muon_learning_rate adam_epsilon epochs"),
    "above 0 and at most 1": (
        lambda number: 0 < number <= 1,
        "span_length_probability generator_size generator_depth layerwise_lr_decay",
    ),
    "a fraction from 0 to below 1": (
        lambda number: 0 <= number < 1,
        "warmup_ratio generator_head_start dropout decay_ratio adam_beta1 adam_beta2",
    ),
    "from 1 to 1000": (lambda number: 1 <= number <= 1000, "max_span_length"),
    "8 or more": (lambda number: number >= 8, "max_length"),
    "from 0 to 4294967295": (lambda number: 0 <= number < 2**32, "seed"),
}


def checked_value(value: Any, kind: Any, where: str) -> Any:
    """Return ``value`` as a setting of type ``kind`` takes it.

    Args:
        value: from a YAML file, from the command line or from Python. YAML takes 2e-3, without a dot, for text, and
            ``auto`` but not ``true``; ``mlm,ato`` is a list. Of a choice among names the case does not matter.
        kind: the setting's annotation: ``str``, ``int``, ``float``, ``bool``, ``Literal``, a list, one of these or
            ``None``, or a number or text: a schedule, of which a plain number stays one.
        where: named in the error.

    Raises:
        UserError: for a value of another type, or none of the choices.
    """
    if get_origin(kind) is Literal:
        return _checked_choice(value, get_args(kind), where)
    if get_origin(kind) is list:
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: '{value}' is not a list.")
        return [checked_value(item, get_args(kind)[0], where) for item in value]
    if get_args(kind):
        options = [option for option in get_args(kind) if option is not type(None)]
        if value is None and len(options) < len(get_args(kind)):
            return None
        if len(options) == 1:
            return checked_value(value, options[0], where)
        Schedule.parse(value, where)
        if ":" in str(value):
            return value
        number = float(value)
        if float not in options and not number.is_integer():
            raise UserError(f"{where}: '{value}' is neither a whole number nor a schedule such as '0:1 1:5'.")
        return number if float in options else int(number)
    return _checked_scalar(value, kind, where)


def _checked_choice(value: Any, choices: tuple[str, ...], where: str) -> str:
    of_lower = {choice.lower(): choice for choice in choices}
    if not isinstance(value, (str, bool)) or str(value).lower() not in of_lower:
        raise UserError(f"{where}: '{value}' is not one of {', '.join(choices)}.{did_you_mean(str(value), choices)}")
    return of_lower[str(value).lower()]


def _checked_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is float and isinstance(value, (str, Real)) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{where}: '{value}' is not a number.")
        return number
    if kind is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if kind is str and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if kind is bool and isinstance(value, bool):
        return value
    names = {float: "a number", int: "a whole number", str: "text (quotes make it so)", bool: "true or false"}
    raise UserError(f"{where}: '{value}' is not {names[kind]}.")


def check_ranges(settings: Any) -> None:
    """Raise :class:`UserError` for a number, of settings of the right types, that is out of range."""
    for range_, (is_inside, names) in RANGES.items():
        for name in names.split():
            value = getattr(settings, name, None)
            if value is not None and not is_inside(value):
                raise UserError(f"{name} must be {range_}, got {value}.")


def load_recipe(recipe: str, children: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a shipped recipe (by name) or a YAML file into a dictionary of settings.

    A recipe may name another one in ``extends`` (by name, or by a path from its own folder); its own settings win.

    Args:
        recipe: name or path.
        children: the recipes that extend this one, outermost first.

    Raises:
        UserError: for an unknown recipe, a file that is not YAML (with its line), a misspelt field or a wrong value.
    """
    # here, because the settings check themselves by this file
    from spanelectra.training_args import PretrainingArguments

    path = RECIPES_DIRECTORY / f"{recipe}.yaml"
    try:
        path = path if path.is_file() else Path(recipe)
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        is_file = False
    if not is_file:
        names = sorted(file.stem for file in RECIPES_DIRECTORY.glob("*.yaml"))
        raise UserError(
            f"--recipe {recipe}: neither a file nor a shipped recipe ({', '.join(names)}).{did_you_mean(recipe, names)}"
        )
    settings = read_fields(path, "recipe")
    known: dict[str, Any] = {"extends": str | None, **get_type_hints(PretrainingArguments)}
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"{path}: unknown field '{str(name)[:100]}'.{did_you_mean(str(name)[:100], known)}")
        settings[name] = checked_value(value, known[name], f"{path}: {name}")
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    if len(children) > 8:
        raise UserError(f"{path}: recipes extend one another in a circle ({' -> '.join(children)}).")
    with contextlib.suppress(OSError):  # a name that is too long for a file is none
        if (path.parent / parent).is_file():
            parent = str(path.parent / parent)
    return {**load_recipe(parent, (*children, recipe)), **settings}


def read_fields(path: Path, kind: str) -> dict[Any, Any]:
    """Read a YAML file of 'field: value' lines.

    Args:
        path: the file, UTF-8.
        kind: what such a file is called, for errors.

    Raises:
        UserError: for a file that is not YAML (with its line), holds something else, or values that are no settings.
    """
    if path.stat().st_size > LARGEST_RECIPE:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes are no {kind}.")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        reason = reason_of(getattr(error, "problem", None) or error)
        raise UserError(f"{path}{line}: not valid YAML ({reason}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    except (ValueError, RecursionError, IndexError) as error:
        # a date that is none, a list in lists without end, and what the parser itself stumbles over
        raise UserError(f"{path}: not a {kind} ({reason_of(error)}).") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path}: a {kind} is a list of 'field: value' lines.")
    for name, value in fields.items():
        _check_plain(name, f"{path}: a field's name")
        _check_plain(value, f"{path}: {str(name)[:100]}")
    return fields


def _check_plain(value: Any, where: str) -> None:
    """Refuse what YAML's references make endless when it is written out."""
    for item in value if isinstance(value, list) else [value]:
        # Python refuses to write out numbers of thousands of digits
        is_endless = isinstance(item, int) and item.bit_length() > LONGEST_VALUE
        if isinstance(item, (list, dict)) or is_endless or len(str(item)) > LONGEST_VALUE:
            raise UserError(f"{where}: a setting is a number, a text of {LONGEST_VALUE} characters, or a list of them.")


def as_yaml(arguments: Any) -> str:
    """All settings (a dataclass) as YAML that ``--recipe`` takes back."""
    return yaml.safe_dump(dataclasses.asdict(arguments), sort_keys=False, allow_unicode=True)
