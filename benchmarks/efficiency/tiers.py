"""A tier of the experiment, read from its YAML file: methods and their stages, budgets, seeds, tasks.

A file may ``extends`` another one: what it names replaces what the other says, but for ``common``, which is merged.
A method may be ``like`` another one, of this file or of those it extends; ``settings`` beside it go to every stage.
``rates_from`` is a tier's file: its choice of learning rates is taken over, by a method that has a name of its own of
the one that it is ``like``, or of ``rates_of``. ``question``, what the tier asks, ``pairs``, a method and its control
each, ``goals`` and ``note`` are not inherited.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spanelectra.errors import UserError, did_you_mean
from spanelectra.training_args import PretrainingArguments

RATES = ("learning_rate", "muon_learning_rate")
# What the plan sets itself.
_PLANNED = ("data", "out_dir", "max_steps", "max_tokens", "eval_steps", "save_steps", "seed", "generator", "resume")


@dataclass(frozen=True)
class Stage:
    """One pre-training run of a method.

    Attributes:
        name: of its directory.
        settings: of `spanelectra pretrain`, those common to all methods included.
        share: of the budget.
        learning_rate_factor: times all learning rates.
        tokens_per_second: on one thread, to estimate time.
    """

    name: str
    settings: dict[str, Any]
    share: float
    learning_rate_factor: float
    tokens_per_second: float

    def arguments(self, multiple: float = 1.0) -> PretrainingArguments:
        """Its settings, resolved, with learning rates scaled."""
        arguments = PretrainingArguments(**self.settings).resolved()
        scale = self.learning_rate_factor * multiple
        return dataclasses.replace(arguments, **{name: getattr(arguments, name) * scale for name in RATES})


@dataclass(frozen=True)
class Method:
    """What is compared: stages one after the other; the last one's encoder is fine-tuned.

    Attributes:
        fresh: only the shape is taken, with fresh weights; then the one stage takes one step.
        learning_rate_multiple: where it is fixed; ``None`` where it is chosen from the tier's.
        rates_of: the method whose learning rates it takes, where the tier takes them from another one.
        control: shown beside the baselines, but none of them: no goal is about it.
    """

    name: str
    stages: tuple[Stage, ...]
    fresh: bool
    learning_rate_multiple: float | None
    rates_of: str
    control: bool


@dataclass(frozen=True)
class Budget:
    """Training FLOPs of a run, its seeds, and the share of the methods of the budget before that come so far."""

    flops: float
    seeds: tuple[int, ...]
    keep: float


@dataclass(frozen=True)
class Task:
    """Files (by split, inside the folder of tasks) and settings of `spanelectra finetune`."""

    name: str
    files: dict[str, str]
    settings: dict[str, Any]
    minutes: float


@dataclass(frozen=True)
class Tier:
    """See docs/efficiency-protocol.md; budgets come in rising order, ``speed`` multiplies the rates of the stages.

    Attributes:
        question: what it asks, a sentence for its page.
        pairs: a method, and its control: the one that it differs from by what is asked.
        goals: whether the protocol's goals are about it.
        note: what is to be known of them, sentences for its page.
    """

    name: str
    ours: str
    reference: str
    methods: dict[str, Method]
    budgets: tuple[Budget, ...]
    learning_rate_multiples: tuple[float, ...]
    tuning_seed: int
    fine_tuning_seeds: int
    score_test: bool
    tasks: dict[str, Task]
    probe: dict[str, Any]
    speed: float
    reuses: tuple[str, ...]
    rates_from: Path | None
    pairs: tuple[tuple[str, str], ...]
    question: str
    goals: bool
    note: str

    @property
    def fresh_method(self) -> str | None:
        """The method of fresh weights."""
        return next((name for name, method in self.methods.items() if method.fresh), None)


_FIELDS = {*(field.name for field in dataclasses.fields(Tier)), "common", "extends"}
_OWN = ("pairs", "question", "goals", "note")  # no other file's
_OPTIONAL = {"extends", "reuses", "rates_from", "score_test", "speed", *_OWN}


def read_tier(path: Path) -> Tier:
    """Read and check a tier.

    Raises:
        UserError: naming the file and the field, for a field that is unknown, missing or out of range.
    """
    content, library = _read_with_parents(path)
    missing = sorted(_FIELDS - _OPTIONAL - set(content))
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} is missing.")
    try:
        methods = {
            name: _method(name, _like(name, definition, library, path), content["common"], path)
            for name, definition in content["methods"].items()
        }
        budgets = [
            Budget(float(entry["flops"]), tuple(entry["seeds"]), float(entry.get("keep", 1.0)))
            for entry in content["budgets"]
        ]
        tier = Tier(
            name=content["name"],
            ours=content["ours"],
            reference=content["reference"],
            methods=methods,
            budgets=tuple(sorted(budgets, key=lambda budget: budget.flops)),
            learning_rate_multiples=tuple(float(value) for value in content["learning_rate_multiples"]),
            tuning_seed=int(content["tuning_seed"]),
            fine_tuning_seeds=int(content["fine_tuning_seeds"]),
            score_test=bool(content.get("score_test", True)),
            tasks={name: Task(name=name, **entry) for name, entry in content["tasks"].items()},
            probe=content["probe"],
            speed=float(content.get("speed", 1.0)),
            reuses=tuple(content.get("reuses", ())),
            rates_from=Path(content["rates_from"]) if "rates_from" in content else None,
            pairs=tuple(_pair(entry, path) for entry in content.get("pairs", ())),
            question=str(content.get("question", "")),
            goals=bool(content.get("goals", False)),
            note=str(content.get("note", "")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    _check(tier, path)
    return tier


def _read_with_parents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content with what it extends, and the definitions of all methods on the way."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; tiers are in benchmarks/efficiency.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a tier is a list of 'field: value' lines.")
    for name in content:
        if name not in _FIELDS:
            raise UserError(f"{path}: unknown field '{name}'.{did_you_mean(str(name), _FIELDS)}")
    if "rates_from" in content:
        content["rates_from"] = path.parent / content["rates_from"]
    parent: dict[str, Any] = {}
    library: dict[str, Any] = {}
    if "extends" in content:
        parent, library = _read_with_parents(path.parent / content["extends"])
        for name in _OWN:
            parent.pop(name, None)
    common = {**parent.get("common", {}), **content.get("common", {})}
    own = content.get("methods", {})
    # inside this file, a method that is like one of its own name is like the parent's
    library = {**library, **{name: _like(name, entry, {**own, **library}, path) for name, entry in own.items()}}
    return {**parent, **content, "common": common}, library


def _like(name: str, definition: dict[str, Any], known: dict[str, Any], path: Path) -> dict[str, Any]:
    """A method's definition with what it is like filled in."""
    definition = dict(definition)
    parent = definition.pop("like", None)
    changes = definition.pop("settings", {})
    if parent is not None:
        if parent not in known:
            raise UserError(f"{path}: {name} is like '{parent}', which is unknown.{did_you_mean(parent, known)}")
        start = known[parent]
        definition = _merged(_like(parent, start, known, path) if "like" in start else start, definition)
        definition.setdefault("rates_of", parent)
    for stage in definition["stages"].values() if changes else ():
        stage["settings"] = {**stage["settings"], **changes}
    return definition


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``old`` in which ``new`` wins, level by level."""
    result = copy.deepcopy(old)
    for name, value in new.items():
        is_level = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], value) if is_level else copy.deepcopy(value)
    return result


def _method(name: str, definition: dict[str, Any], common: dict[str, Any], path: Path) -> Method:
    unknown = set(definition) - {"stages", "fresh", "learning_rate_multiple", "rates_of", "control"}
    if unknown:
        raise UserError(f"{path}: {name}: unknown field '{min(unknown)}'.")
    stages = []
    for stage_name, entry in definition["stages"].items():
        entry = dict(entry)
        settings = {**common, **entry.pop("settings")}
        share, factor = float(entry.pop("share", 1.0)), float(entry.pop("learning_rate_factor", 1.0))
        stages.append(Stage(stage_name, settings, share, factor, float(entry.pop("tokens_per_second"))))
        if entry:
            raise UserError(f"{path}: {name}: {stage_name}: unknown field '{min(entry)}'.")
    return Method(
        name,
        tuple(stages),
        fresh=bool(definition.get("fresh", False)),
        learning_rate_multiple=definition.get("learning_rate_multiple"),
        rates_of=definition.get("rates_of", name),
        control=bool(definition.get("control", False)),
    )


def _pair(entry: Any, path: Path) -> tuple[str, str]:
    is_pair = isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)
    if not is_pair or entry[0] == entry[1]:
        raise UserError(f"{path}: pairs: each is [method, control], two names of methods, not {entry!r}.")
    return entry[0], entry[1]


def _check(tier: Tier, path: Path) -> None:
    known = {field.name for field in dataclasses.fields(PretrainingArguments)} - {*_PLANNED, "recipe"}
    for method in tier.methods.values():
        if abs(sum(stage.share for stage in method.stages) - 1) > 1e-9:
            raise UserError(f"{path}: {method.name}: the shares of its stages must add up to 1.")
        for stage in method.stages:
            for name in stage.settings:
                if name not in known:
                    raise UserError(f"{path}: {method.name}: unknown setting '{name}'.{did_you_mean(name, known)}")
            try:
                # places are not known yet, and do not matter to the check
                dataclasses.replace(stage.arguments(), data="data", out_dir="run").check()
            except UserError as error:
                raise UserError(f"{path}: {method.name}, {stage.name}: {error}") from error
    for role in (tier.ours, tier.reference, *itertools.chain(*tier.pairs)):
        if role not in tier.methods:
            raise UserError(f"{path}: '{role}' is none of its methods ({', '.join(tier.methods)}).")
    if any(tier.tuning_seed in budget.seeds for budget in tier.budgets):
        raise UserError(f"{path}: tuning_seed {tier.tuning_seed} must not be among the seeds that are evaluated.")
