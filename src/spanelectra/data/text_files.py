"""Text files -> lines: decompressed, decoded, newlines made "\\n", with every failure traced to its byte.

Memory is bounded by the chunk size and, where a limit is given, by that limit: a line longer than it comes in parts.
Without one a line that is too long to be one is refused, and so is a compressed file that is too small for its content.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import functools
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from spanelectra.atomic_files import is_unfinished
from spanelectra.errors import UserError, did_you_mean

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
CHUNK_BYTES = 1 << 20
LONGEST_LINE = 1 << 27  # characters; the longest honest ones are whole data sets of questions in one line of JSON
# Text shrinks three- to thirtyfold, and logs a hundredfold.
LARGEST_EXPANSION = 200
SMALLEST_BOMB = 1 << 28
# Every other byte of English in UTF-16 is NUL, and every fourth where half of a text is in other letters.
_LEAST_OF_UTF16 = 0.2
XZ_MEMORY = 1 << 28  # `xz -9` needs 65 MiB


def read_lines(
    path: Path,
    *,
    encoding: str = "utf-8",
    limit: int | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[str]:
    """Yield the lines of a plain or compressed text file, each with its "\\n" where it has one.

    Args:
        path: the file; its last extension says how it is compressed.
        encoding: a Python codec's name.
        limit: the most characters of a part; a longer line comes in several, cut before whitespace where there is any.
            None yields whole lines.
        on_bytes: told the size of every decompressed chunk.

    Raises:
        UserError: the file cannot be opened, is damaged, binary or not in ``encoding``; or, without a limit, a line has
            more than ``LONGEST_LINE`` characters.
    """
    yield from _lines(_decoded(_decompressed(path), f"'{path}'", encoding, on_bytes), f"'{path}'", limit)


def read_stream_lines(stream: BinaryIO, name: str, *, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of an open stream, such as standard input, as they come in, each with its "\\n" where it has one.

    Args:
        stream: bytes.
        name: what errors call it.
        encoding: a Python codec's name.

    Raises:
        UserError: the stream is binary or not in ``encoding``, or has a line of more than ``LONGEST_LINE`` characters.
    """
    # what is there, not what would fill a chunk
    chunks = iter(functools.partial(stream.read1, CHUNK_BYTES), b"")  # type: ignore[attr-defined]
    yield from _lines(_decoded(chunks, name, encoding, lambda count: None), name, None)


def _lines(texts: Iterator[str], name: str, limit: int | None) -> Iterator[str]:
    """Pieces of a text -> its lines, or parts of them."""
    line_end = ""  # the unfinished line so far, as its parts: joined only when it ends or outgrows the limit
    parts: list[str] = []
    size = 0
    for text in texts:
        *lines, line_end = text.split("\n")
        for line in lines:
            if parts:
                line = "".join([*parts, line])
                parts, size = [], 0
            line += "\n"
            if limit is not None and len(line) > limit:
                *heads, line = cut_at_whitespace(line, limit)
                yield from heads
            yield line
        if line_end:
            parts.append(line_end)
            size += len(line_end)
        if limit is not None and size > limit:
            *heads, rest = cut_at_whitespace("".join(parts), limit)
            yield from heads
            parts, size = [rest], len(rest)
        elif size > LONGEST_LINE:
            raise UserError(
                f"{name} has a line of more than {LONGEST_LINE:,} characters; break it up, or take the file out."
            )
    if parts:
        yield "".join(parts)


def cut_at_whitespace(text: str, limit: int) -> list[str]:
    """Cut ``text`` into parts of at most ``limit`` characters, each before a run of whitespace where there is one.

    Before, not after: byte-level tokenizers join a space to the word that follows it, so such parts get the tokens of
    the whole text.
    """
    parts = []
    start = 0
    while len(text) - start > limit:
        end = start + limit
        # The character at `end` may itself be the whitespace to cut before, hence the + 1.
        cut = max(text.rfind(space, start + 1, end + 1) for space in " \n\t")
        while cut > start and text[cut - 1].isspace():
            cut -= 1
        cut = cut if cut > start else end
        parts.append(text[start:cut])
        start = cut
    return [*parts, text[start:]]


def did_you_mean_path(path: Path) -> str:
    """Return a suggestion for a path that does not exist, taken from the folder it should be in."""
    entries = path.parent.iterdir() if path.parent.is_dir() else ()
    siblings = [sibling.name for sibling in entries if sibling.name != path.name and not is_unfinished(sibling)]
    return did_you_mean(path.name, siblings)


def _decoded(chunks: Iterator[bytes], name: str, encoding: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield the text of bytes in chunks, without a byte-order mark and with newlines made "\\n"."""
    try:
        "".encode(encoding)  # refuses codecs that are not of text, such as base64
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise UserError(f"Unknown encoding '{encoding}'; Python's names hold, such as utf-8 or latin-1.") from None
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    bytes_before = line_number = 0
    first = True
    for chunk in chain(chunks, [b""]):
        on_bytes(len(chunk))
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            where = f"after line {line_number}"
            if isinstance(error, UnicodeDecodeError):
                # The decoder may have kept the first bytes of a character from the chunk before.
                offset = bytes_before + len(chunk) - len(error.object) + error.start
                if b"\0" in error.object:
                    place = error.object.index(b"\0")
                    line_number += error.object[:place].count(b"\n")
                    raise _binary(name, line_number + 1, offset - error.start + place, chunk) from None
                with contextlib.suppress(UnicodeError):  # a few codecs cannot pass over what is wrong
                    line_number += error.object[: error.start].decode(encoding, errors="replace").count("\n")
                    where = f"line {line_number + 1}, byte offset {offset}"
            reason = getattr(error, "reason", error)
            raise UserError(
                f"{name} is not {encoding}: {where} ({reason}). "
                "Give its encoding, for instance --encoding latin-1, or convert the file."
            ) from None
        if "\0" in text:
            before = text[: text.index("\0")]
            with contextlib.suppress(UnicodeError):  # nor can they write what they have read
                bytes_before += len(before.encode(encoding))
            raise _binary(name, line_number + before.count("\n") + 1, bytes_before, chunk)
        bytes_before += len(chunk)
        line_number += text.count("\n")
        if first and text:
            text = text.removeprefix("\ufeff")
            first = False
        yield newlines.decode(text, final=not chunk)


def _binary(name: str, line: int, offset: int, chunk: bytes) -> UserError:
    """The error for NUL bytes, of which ``chunk`` holds the first."""
    where = f"{name} is not text: it holds NUL bytes (line {line}, near byte offset {offset})."
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or chunk.count(0) > _LEAST_OF_UTF16 * len(chunk):
        return UserError(f"{where} Give --encoding utf-16 if that is what it is, or take the file out of the data.")
    return UserError(
        f"{where} Take binary files out of the data; stray ones are removed, for instance, by "
        "tr -d '\\000' < FILE > NEW."
    )


def _decompressed(path: Path) -> Iterator[bytes]:
    """Yield the bytes of the file in chunks that are not empty."""
    openers: dict[str, Callable[[Path], BinaryIO]] = {".gz": gzip.open, ".bz2": bz2.open}  # type: ignore[dict-item]
    streams = {".zst": _decompressed_zstandard, ".xz": _decompressed_xz}
    extension = path.suffix.lower()
    try:
        most = max(SMALLEST_BOMB, LARGEST_EXPANSION * path.stat().st_size)
        read = streams[extension](path) if extension in streams else _chunks(path, openers.get(extension, _open_plain))
        total = 0
        for chunk in read:
            total += len(chunk)
            if total > most and extension in COMPRESSIONS:
                raise UserError(
                    f"'{path}' holds more than {LARGEST_EXPANSION} times its own size, which no text does; if it is "
                    "one all the same, decompress it."
                )
            yield chunk
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"'{path}' is truncated or damaged: {error}.") from None
    except OSError as error:
        # The bz2 and gzip modules report a wrong format as an OSError without a number.
        reason = error.strerror or f"truncated or damaged: {error}"
        raise UserError(f"Cannot read '{path}': {reason}.") from None


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _chunks(path: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[bytes]:
    with opener(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _decompressed_xz(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file of one or more xz streams, in bounded memory; raises EOFError where it is cut short."""
    decoder: lzma.LZMADecompressor | None = None
    data = b""
    with path.open("rb") as file:
        while True:
            if decoder is None or (decoder.needs_input and not data):
                data = data or file.read(CHUNK_BYTES)
                # zeros may stand between streams
                data = data.lstrip(b"\0") if decoder is None else data
                if not data:
                    break
            decoder = decoder or lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            chunk = decoder.decompress(data, max_length=CHUNK_BYTES)
            data = b""
            if chunk:
                yield chunk
            if decoder.eof:
                data = decoder.unused_data
                decoder = None
    if decoder is not None:
        raise EOFError("the file ends inside a compressed stream")


def _decompressed_zstandard(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file of one or more zstandard frames; raises EOFError where the last one is cut short."""
    import zstandard

    frame = None
    try:
        with path.open("rb") as file:
            # a block of a few bytes may stand for 128 KiB: little at a time keeps memory bounded
            while data := file.read(CHUNK_BYTES // 2048):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    if chunk := frame.decompress(data):
                        yield chunk
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise EOFError(error) from None
    if frame is not None:
        raise EOFError("the file ends inside a compressed frame")
