"""A stage that another unit has trained is not trained again: equal rows, settings and seeds make equal weights.

Variants that differ in their last stage alone, such as those of a discriminator, have all stages before it in common.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from efficiency.flop_budget import StagePlan
from efficiency.plan import Unit
from efficiency.results_file import MadeWith
from efficiency.tiers import Tier
from efficiency.units import (
    TRAINED_IN_NAME,
    Places,
    check_settings,
    has_ended_well,
    planned_settings,
    processor_seconds,
)
from spanelectra.atomic_files import find_damage, write_directory, write_json
from spanelectra.checkpointing import CONFIG_NAME, METRICS_NAME, MODEL_DIRECTORY
from spanelectra.errors import UserError


def take_over_stages(
    tier: Tier, unit: Unit, stages: tuple[StagePlan, ...], directory: Path, places: Places, made_with: MadeWith
) -> dict[str, str]:
    """Copy the unit's next stages from other methods' units of this tier, as far as they are the same and finished.

    What cannot be copied, for it is damaged or the disk is full, is left to be trained.

    Args:
        tier, unit, stages, directory, places, made_with: as for :func:`efficiency.units.next_command`.

    Returns:
        Stage that was copied -> name of the unit that it was copied from.
    """
    taken: dict[str, str] = {}
    for number, stage in enumerate(tier.methods[unit.method].stages):
        target = directory / stage.name
        if (target / METRICS_NAME).is_file():
            continue
        # one that was begun here is gone on with
        if (target / CONFIG_NAME).is_file():
            break
        donors = [name for name in tier.methods if _is_alike(tier, unit.method, name, number, made_with)]
        for donor in (dataclasses.replace(unit, method=name) for name in donors):
            source = places.of(donor, made_with) / tier.methods[donor.method].stages[number].name
            try:
                check_settings(source, planned_settings(unit, stage, stages[number], number))
                _copy(source, target, donor.name)
            except (UserError, OSError, ValueError, LookupError):
                continue
            taken[stage.name] = donor.name
            break
        else:
            break
    return taken


def _is_alike(tier: Tier, method: str, other: str, number: int, made_with: MadeWith) -> bool:
    """Whether another method's stages up to a number are those of a method."""
    digest = made_with.stages[method][number]
    return other != method and not tier.methods[other].fresh and digest in made_with.stages[other]


def _copy(source: Path, target: Path, donor: str) -> None:
    """Copy a finished run without its checkpoints, and write down who trained it and what that cost.

    Raises:
        ValueError: for a run that is not finished or not whole.
        OSError: where it cannot be read or written.
    """
    is_finished = (source / METRICS_NAME).is_file() and has_ended_well(source)
    if not is_finished or find_damage(source / MODEL_DIRECTORY) is not None:
        raise ValueError(f"{source} is not finished, or its model is not whole.")
    with write_directory(target, replace=True) as partial:
        ignored = shutil.ignore_patterns("checkpoint-*")
        shutil.copytree(source, partial, ignore=ignored, dirs_exist_ok=True)
        if not (partial / TRAINED_IN_NAME).is_file():
            content = {"unit": donor, "processor_seconds": processor_seconds(source)}
            write_json(partial / TRAINED_IN_NAME, content)
