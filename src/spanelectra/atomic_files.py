"""Directories and files that exist complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from spanelectra.errors import UserError

MANIFEST_NAME = "manifest.json"
LARGEST_MANIFEST = 1 << 26  # bytes; half a million files
Kind = TypeVar("Kind", dict[str, Any], list[Any])
PARTIAL_PREFIX = ".partial-"
_REPLACED_PREFIX = ".replaced-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# libraries that are not written in Python say it in words: tokenizers and safetensors, numpy
_SAYS_FULL = re.compile(rf"\(os error ({'|'.join(map(str, _FULL))})\)|\d+ requested and \d+ written")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_path(path: Path) -> Path:
    """Where :func:`write_directory` prepares what will become ``path``."""
    return path.with_name(f"{PARTIAL_PREFIX}{path.name}")


def is_unfinished(path: Path) -> bool:
    """Whether this is what :func:`write_directory` prepares, or has put aside."""
    return path.name.startswith((PARTIAL_PREFIX, _REPLACED_PREFIX))


@contextlib.contextmanager
def write_directory(path: str | Path, *, replace: bool = False, goes_on: bool = False) -> Iterator[Path]:
    """Yield a hidden sibling to write into; on success it gets a manifest, is flushed and renamed to ``path``.

    A killed process leaves the sibling behind, which nothing opens and the next attempt removes. One killed between
    the two renames that replace ``path`` leaves the old directory aside, which the next attempt puts back. Where an
    exception ends the block ``path`` is untouched, and the sibling is removed unless it ``goes_on``.

    Args:
        path: the directory to come.
        replace: whether an existing ``path`` gives way (only once the new one is complete).
        goes_on: the sibling stays where an exception ends the block, unless the block removes it, and the next attempt
            finds it as it was left. While one process writes there no other can, where the file system has locks.

    Raises:
        FileExistsError: before anything is written, where ``path`` holds something that is not to be replaced.
        UserError: where another process goes on with it.
        OSError: with ``ENOSPC`` and a sentence, where the disk is full, whatever the library that found out says.
    """
    path = Path(path)
    partial, replaced = partial_path(path), path.with_name(f"{_REPLACED_PREFIX}{path.name}")
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    if path.exists() and (not path.is_dir() or (not replace and any(path.iterdir()))):
        raise FileExistsError(f"{path} exists already")
    if not goes_on:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=goes_on)
    with _locked(partial) if goes_on else contextlib.nullcontext():
        try:
            yield partial
            seal(partial)
        except BaseException as error:
            if not goes_on:
                shutil.rmtree(partial, ignore_errors=True)
            if disk_is_full(error):
                kept = f"what was written is kept in {partial}" if partial.exists() else "nothing of it was kept"
                raise OSError(errno.ENOSPC, f"no space left on the disk for {path}; {kept}") from error
            raise
        if replace and path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        partial.rename(path)
    _flush_to_disk(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other processes out of a directory; a lock ends with the process that has it.

    Raises:
        UserError: where another process has it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is writing {directory}; wait for it, or choose another out_dir."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, means a full disk, a spent quota or a file beyond its limit."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or _SAYS_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def seal(directory: Path) -> None:
    """Flush every file and write the manifest of sizes and checksums that makes a directory complete."""
    files = sorted(file for file in directory.rglob("*") if file.is_file() and file != directory / MANIFEST_NAME)
    manifest = {}
    umask = os.umask(0)
    os.umask(umask)
    for file in files:
        # safetensors makes files that only their owner can read
        file.chmod(0o666 & ~umask)
        _flush_to_disk(file)
        manifest[file.relative_to(directory).as_posix()] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    write_json(directory / MANIFEST_NAME, manifest)
    # the names of the files, too
    for folder in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        _flush_to_disk(folder)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_damage(directory: str | Path) -> str | None:
    """Compare a directory with its manifest: ``None`` if it is complete, else what is wrong with it, in words."""
    directory = Path(directory)
    try:
        if (directory / MANIFEST_NAME).stat().st_size > LARGEST_MANIFEST:
            return f"{MANIFEST_NAME} is too large to be one"
        manifest = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest.items()}
    except FileNotFoundError:
        return f"{MANIFEST_NAME} is missing"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return f"{MANIFEST_NAME} is unreadable"
    for name, (size, digest) in expected.items():
        file = directory / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if file_digest(file) != digest:
            return f"{name} has a wrong checksum"
    return None


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file atomically."""
    path = Path(path)
    partial = partial_path(path)
    partial.write_text(text, encoding="utf-8")
    _flush_to_disk(partial)
    partial.replace(path)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented for people."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, kind: type[Kind]) -> Kind:
    """Read what :func:`write_json` wrote.

    Raises:
        UserError: where it is no JSON of this kind (``dict`` or ``list``): it was not written so.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        reason = None if isinstance(content, kind) else f"a {type(content).__name__}"
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        raise UserError(f"{path} is damaged ({reason}); put it back as it was, or start anew.")
    return content
