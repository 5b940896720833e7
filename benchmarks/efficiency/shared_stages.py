"""A stage that another unit has trained is not trained again: equal rows, settings and seeds make equal weights.

Variants that differ in their last stage alone, such as those of a discriminator, have all stages before it in common.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from efficiency.plan import Unit
from efficiency.results_file import MadeWith
from efficiency.tiers import Tier
from efficiency.units import TIMES_NAME, Places
from spanelectra.atomic_files import partial_path
from spanelectra.checkpointing import CONFIG_NAME, METRICS_NAME


def take_over_stages(tier: Tier, unit: Unit, directory: Path, places: Places, made_with: MadeWith) -> dict[str, str]:
    """Copy the unit's next stages from other methods' units of this tier, as far as they are the same and finished.

    Args:
        tier, unit, directory, places, made_with: as for :func:`efficiency.units.next_command`.

    Returns:
        Stage that was copied -> name of the unit that had trained it.
    """
    taken: dict[str, str] = {}
    for number, stage in enumerate(tier.methods[unit.method].stages):
        target = directory / stage.name
        if (target / METRICS_NAME).is_file():
            continue
        found = _finished_elsewhere(tier, unit, number, places, made_with)
        # one that was begun here is gone on with
        if found is None or (target / CONFIG_NAME).is_file():
            break
        donor, source = found
        partial = partial_path(target)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("checkpoint-*"))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _copy_times(source, target, donor)
        taken[stage.name] = donor.name
    return taken


def _finished_elsewhere(
    tier: Tier, unit: Unit, number: int, places: Places, made_with: MadeWith
) -> tuple[Unit, Path] | None:
    """A unit of another method whose stages up to this one are the same, and that stage's directory."""
    wanted = made_with.stages[unit.method][number]
    for name, method in tier.methods.items():
        if name == unit.method or made_with.stages[name][number : number + 1] != [wanted]:
            continue
        donor = dataclasses.replace(unit, method=name)
        source = places.of(donor, made_with) / method.stages[number].name
        if (source / METRICS_NAME).is_file():
            return donor, source
    return None


def _copy_times(source: Path, target: Path, donor: Unit) -> None:
    """What the stage cost where it was trained counts here as well."""
    file = source.parent / TIMES_NAME
    entries = [json.loads(text) for text in (file.read_text(encoding="utf-8").splitlines() if file.is_file() else [])]
    with open(target.parent / TIMES_NAME, "a", encoding="utf-8") as stream:
        for entry in entries:
            if entry["command"] == f"pretrain {source.name}":
                entry |= {"command": f"pretrain {target.name}", "trained_in": donor.name}
                stream.write(json.dumps(entry) + "\n")
