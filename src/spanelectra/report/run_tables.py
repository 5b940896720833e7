"""What was run, as tables: the runs side by side, and the settings that were not left as they were."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError, safe_open

from spanelectra.argument_groups import DISCRIMINATOR_OBJECTIVES
from spanelectra.checkpointing import MODEL_DIRECTORY, list_checkpoints
from spanelectra.errors import UserError
from spanelectra.modeling_spanelectra import WEIGHTS_NAME
from spanelectra.recipe_files import load_recipe
from spanelectra.report.findings import last_held_out
from spanelectra.report.run_record import RunRecord
from spanelectra.report.tolerance import listed, mapping, number
from spanelectra.report.words import duration, short
from spanelectra.training_args import PretrainingArguments

_UNKNOWN = "–"
# Shown among data and machine, or of no consequence for what is learned.
_ELSEWHERE = {"data", "out_dir", "resume", "overwrite", "quiet", "seed", "stage", "method", "recipe", "objectives"}


@dataclass
class Table:
    """Rows of text under a heading; the first column names the row."""

    heading: list[str]
    rows: list[list[str]]


def overview(records: list[RunRecord]) -> Table:
    """What each run was: method, model, data, budget, machine. Rows that no run has anything for are left out."""
    columns = [_describe(record) for record in records]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return Table(["", *(record.name for record in records)], rows)


def _describe(record: RunRecord) -> dict[str, str]:
    settings, metrics, machine = record.settings, record.metrics, record.environment
    versions = mapping(machine.get("versions", metrics.get("versions")))
    peak = number(metrics.get("peak_memory_mib"))
    clock = [number(line.get("wall_seconds")) for line in record.lines(held_out=False)]
    seconds = number(metrics.get("wall_seconds")) or max([time for time in clock if time is not None], default=None)
    cells = {
        "directory": str(record.directory),
        "method and stage": _join(", stage ", settings.get("method"), _stage(settings)),
        "objectives": ", ".join(map(str, listed(settings.get("objectives")))),
        "recipe": _text(settings.get("recipe")),
        "encoder": _encoder(settings),
        "parameters": _text(_parameters(record)),
        **_describe_data(record),
        "steps": _join(" of ", short(record.step), _text(settings.get("max_steps"))),
        "tokens read": _text(_tokens(record)),
        "times through the data": _epochs(record),
        "training FLOPs": _text(number(metrics.get("training_flops"))),
        "wall time": duration(seconds) if seconds else "",
        "peak memory": f"{peak:,.0f} MiB" if peak else "",
        "seed": _text(settings.get("seed")),
        "processor": _join(", ", machine.get("processor"), _count(machine.get("cores"), "core")),
        "accelerators": ", ".join(map(str, listed(machine.get("devices")))),
        "processes": _text(machine.get("processes")),
        "system": _text(machine.get("platform")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: cell for name, cell in cells.items() if cell}


def _describe_data(record: RunRecord) -> dict[str, str]:
    """The rows that were read, of what is left of them, or else of what the run wrote down at its start."""
    data, start = record.data, mapping(record.start.get("data"))
    splits = mapping(data.get("splits"))
    train, held_out = mapping(splits.get("train")), mapping(splits.get("validation"))
    size = number(data.get("megabytes"))
    return {
        "data": _text(record.settings.get("data")),
        "text": _join(", ", _text(data.get("sources")), f"{size:,.1f} MB" if size else None),
        "training text": _join(", ", _count(train.get("documents"), "document"), _count(train.get("tokens"), "token")),
        "held-out text": _join(
            ", ", _count(held_out.get("documents"), "document"), _count(held_out.get("tokens"), "token")
        ),
        "rows": _join(
            " of ",
            short(train.get("rows", start.get("rows"))) if train or start else None,
            _count(data.get("max_seq_length", start.get("tokens_per_row")), "token"),
        ),
        "vocabulary": _count(data.get("vocab_size"), "token") or "",
    }


def _stage(settings: dict[str, Any]) -> Any:
    """What is trained; joint training without a discriminator is that of a generator alone."""
    objectives = set(map(str, listed(settings.get("objectives"))))
    is_alone = bool(objectives) and not objectives & set(DISCRIMINATOR_OBJECTIVES)
    return "generator" if settings.get("stage") == "joint" and is_alone else settings.get("stage")


def _text(value: Any) -> str:
    return "" if value is None else short(value)


def _join(between: str, *parts: Any) -> str:
    return between.join(str(part) for part in parts if part)


def _count(value: Any, what: str) -> str | None:
    count = number(value)
    return None if count is None else f"{count:,.0f} {what}{'' if count == 1 else 's'}"


def _encoder(settings: dict[str, Any]) -> str:
    if settings.get("init_from"):
        return f"continues {settings['init_from']}"
    layers, width = settings.get("num_hidden_layers"), settings.get("hidden_size")
    shape = f"{layers} layers of width {width}" if layers and width else None
    size, joint = number(settings.get("generator_size")), settings.get("stage") == "joint"
    generator = f"generator of {size:g} times the width" if joint and size not in (None, 1.0) else None
    return _join(", ", settings.get("encoder"), shape, generator)


def _parameters(record: RunRecord) -> int | None:
    """Numbers in the run's weights, each shared tensor once, from the file's header alone."""
    for directory in (record.directory / MODEL_DIRECTORY, *reversed(list_checkpoints(record.directory))):
        try:
            with safe_open(directory / WEIGHTS_NAME, framework="numpy") as weights:
                return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            continue
    return None


def _tokens(record: RunRecord) -> int | None:
    tokens = number(record.metrics.get("tokens"))
    known = [number(line.get("tokens")) for line in record.history]
    tokens = tokens or max([count for count in known if count is not None], default=None)
    return None if tokens is None else int(tokens)


def _epochs(record: RunRecord) -> str:
    start = mapping(record.start.get("data"))
    train = mapping(mapping(record.data.get("splits")).get("train")) or start
    rows = number(train.get("rows"))
    length = number(record.data.get("max_seq_length", start.get("tokens_per_row")))
    tokens = _tokens(record)
    return short(tokens / (rows * length)) if tokens and rows and length else ""


def settings_table(records: list[RunRecord], *, all_settings: bool) -> Table:
    """Settings beside their defaults, with a star where a run departs from its recipe too.

    Args:
        records: pre-training runs.
        all_settings: every setting, or only those in which a run departs from the defaults or runs from one another,
            and which have an effect in one of them.
    """
    idle = [_idle(record) for record in records]
    defaults = [_as_dictionary(_unchosen(record, with_recipe=False)) for record in records]
    recipes = [_as_dictionary(_unchosen(record, with_recipe=True)) for record in records]
    names = dict.fromkeys(name for record in records for name in record.settings)
    rows: list[list[str]] = []
    for name in names:
        # a run that was made before there was this setting knows nothing of it
        values = [record.settings.get(name, _UNKNOWN) for record in records]
        default = [settings.get(name) for settings in defaults]
        known = [value for value in values if value != _UNKNOWN]
        differs = any(value not in (usual, _UNKNOWN) for value, usual in zip(values, default, strict=True))
        has_effect = not all(name in without for without in idle)
        is_told = has_effect and (differs or any(value != known[0] for value in known))
        if name in _ELSEWHERE or not (all_settings or is_told):
            continue
        cells = [
            _cell(value)
            + (" *" if value not in (recipe.get(name), _UNKNOWN) else "")
            + (" (no effect)" if name in without and value != _UNKNOWN else "")
            for value, recipe, without in zip(values, recipes, idle, strict=True)
        ]
        rows.append([name, " or ".join(dict.fromkeys(map(_cell, default))), *cells])
    return Table(["setting", "default", *(record.name for record in records)], rows)


def _cell(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _unchosen(record: RunRecord, *, with_recipe: bool) -> PretrainingArguments | None:
    """The settings that a run with this method and stage has if nothing else is chosen, or nothing but its recipe."""
    chosen: dict[str, Any] = {name: record.settings[name] for name in ("method", "stage") if name in record.settings}
    recipe = record.settings.get("recipe")
    try:
        given = load_recipe(str(recipe)) if with_recipe and recipe else {}
        given.update(chosen)
        return PretrainingArguments(**given).resolved()
    except (UserError, TypeError):
        return None


def _idle(record: RunRecord) -> Collection[str]:
    """The settings that change nothing in a run, nor say how its rows were written; none where it is not known."""
    known = {field.name for field in dataclasses.fields(PretrainingArguments)}
    settings = {name: value for name, value in record.settings.items() if name in known}
    start = mapping(record.start.get("data"))
    try:
        idle = PretrainingArguments(**settings).resolved().idle_settings(corrupted_data=start.get("corrupted") is True)
        # where rows were written with fakes, it says how
        return idle.keys() - start.keys()
    except (UserError, TypeError):
        return ()


def _as_dictionary(settings: PretrainingArguments | None) -> dict[str, Any]:
    return dataclasses.asdict(settings) if settings else {}


@dataclass(frozen=True)
class _Score:
    """A held-out metric that is worth comparing: what it is, whether more is better, and what guessing scores."""

    label: str
    more: bool
    guessing: str | None


_SCORES = {
    "mlm_loss": _Score("MLM loss in nats (less is better)", False, "unigram"),
    "sbgo_loss": _Score("SBGO loss in nats (less is better)", False, "unigram"),
    "generator_accuracy": _Score("generator: best guess right", True, None),
    "ato_auc": _Score("ATO AUC, all tokens", True, "chance"),
    "ato_masked_auc": _Score("ATO AUC, masked tokens", True, "chance"),
    "sbpo_auc": _Score("SBPO AUC", True, "chance"),
    "correction_accuracy": _Score("correction: best guess right", True, None),
    "ato_precision": _Score("ATO precision", True, None),
    "ato_recall": _Score("ATO recall", True, None),
}


def results_table(records: list[RunRecord]) -> Table:
    """The held-out metrics of the end beside what guessing scores, the best of several comparable runs marked."""
    comparable = comparability(records) is None
    scores = [last_held_out(record) for record in records]
    unigram = [number(record.metrics.get("unigram_cross_entropy")) for record in records]
    guesses = {"chance": "0.5", "unigram": " or ".join(dict.fromkeys(short(cost) for cost in unigram if cost))}
    rows = []
    for name, score in _SCORES.items():
        values = [found.get(name) for found in scores]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = (max if score.more else min)(known)
        marks = [" (best)" if comparable and value == best and len(set(known)) > 1 else "" for value in values]
        cells = [short(value) + mark for value, mark in zip(values, marks, strict=True)]
        rows.append([score.label, guesses.get(score.guessing or "", "–") or "–", *cells])
    return Table(["held-out metric", "guessing", *(record.name for record in records)], rows)


# Settings that change what is asked of a model on held-out text.
_EXAM = ("data", "masking", "mask_ratio", "max_span_words", "max_span_length", "span_length_probability")


def comparability(records: list[RunRecord]) -> str | None:
    """Why the held-out metrics of runs do not compare to the last digit, in a sentence; ``None`` where they do."""
    idle = [_idle(record) for record in records]
    differing = [
        name
        for name in _EXAM
        if len({_cell(record.settings.get(name)) for record in records}) > 1
        and not all(name in without for without in idle)
    ]
    if not differing:
        return None
    return (
        f"The runs differ in {', '.join(differing)}: they were asked about other tokens, and their held-out metrics do "
        "not compare exactly (losses in nats not at all where the vocabulary differs)."
    )
