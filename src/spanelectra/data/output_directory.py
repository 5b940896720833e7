"""Output directories are never overwritten silently, and with ``--overwrite`` only where nothing foreign is lost."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from spanelectra.atomic_files import MANIFEST_NAME
from spanelectra.errors import UserError


def check_output_directory(
    out_dir: str | Path, own_files: Collection[str], *, overwrite: bool, replaced: bool = True
) -> Path:
    """Return ``out_dir``, resolved, if a command may write it: absent, empty, or its own earlier work to be replaced.

    Args:
        out_dir: what is to be written.
        own_files: names that the command writes there; a directory with any other is not its to replace.
        overwrite: whether earlier work may be replaced.
        replaced: whether the directory comes into being as a whole, and not file by file.

    Raises:
        UserError: it is a file, or holds something that may not be replaced.
    """
    directory = Path(out_dir).expanduser().resolve()
    if not directory.exists():
        return directory
    if not directory.is_dir():
        raise UserError(f"out_dir '{out_dir}' is a file; give the name of a directory.")
    if replaced and directory.is_mount():
        raise UserError(
            f"out_dir '{out_dir}' is a mount point, which cannot be replaced as a whole; choose a directory inside it."
        )
    names = sorted(entry.name for entry in directory.iterdir())
    foreign = [name for name in names if name not in own_files and name != MANIFEST_NAME]
    if foreign:
        raise UserError(
            f"out_dir '{out_dir}' holds other files ('{foreign[0]}'), which would be lost; choose another directory."
        )
    if names and not overwrite:
        raise UserError(f"out_dir '{out_dir}' is not empty; choose another directory, or replace it with --overwrite.")
    return directory
