"""`prepare` beside the bare tokenizer's `encode_batch`: the same texts, the same cores. Used by `data_speed.py`."""

from __future__ import annotations

import os
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rounds import by_turns, summary
from spanelectra.data.corpus import CorpusStatistics, DocumentSeparator, iterate_documents
from spanelectra.data.packing import PIECE_CHARACTERS, prepare
from spanelectra.data.row_packing import BATCH_CHARACTERS
from spanelectra.data.tokenization import TokenizerType, vocab

LENGTH = 128
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}


def write_library_sources(work: Path) -> Path:
    """Write the standard library's sources as text files, once; returns their folder."""
    text, library = work / "sources", Path(sysconfig.get_path("stdlib"))
    if not text.is_dir():
        partial_text = work / "sources.partial"
        partial_text.mkdir(parents=True, exist_ok=True)
        for file in sorted(library.rglob("*.py")):
            parts = file.relative_to(library).parts
            try:
                source = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            if not NOT_THE_LIBRARY & set(parts):
                (partial_text / f"{'.'.join(parts)}.txt").write_text(source, encoding="utf-8")
        partial_text.rename(text)
    return text


def make_tokenizers(work: Path, text: Path) -> list[Path]:
    """One of each type, of 10,000 tokens, trained on the text once."""
    kinds: tuple[TokenizerType, ...] = ("BERT", "BPE")
    directories = []
    for kind in kinds:
        directory = work / f"tokenizer-{kind}"
        if not directory.is_dir():
            vocab(str(text), str(directory), kind, 10_000, quiet=True)
        directories.append(directory)
    return directories


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the processor, all threads together."""
    start, start_of_processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - start_of_processor


def measure_prepare(
    text: Path, document_separator: DocumentSeparator, tokenizer_directory: Path, work: Path, cores: int, rounds: int
) -> dict[str, Any]:
    """The whole of `prepare` and the bare tokenizer, by turns, in this process, which is held to so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    statistics = CorpusStatistics()
    documents = iterate_documents(
        str(text),
        document_separator=document_separator,
        piece_characters=PIECE_CHARACTERS,
        statistics=statistics,
    )
    # in the batches that `prepare` makes, so that both keep as many results in memory
    batches: list[list[str]] = [[]]
    characters = 0
    for document in documents:
        batches[-1].append(document.text)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            batches.append([])
            characters = 0
    tokenizer = Tokenizer.from_file(str(tokenizer_directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    # a folder of its own: whatever else is in WORK stays
    temporary = tempfile.TemporaryDirectory(dir=work, prefix="prepared-")
    out_dir = Path(temporary.name) / "rows"
    tokens: dict[str, int] = {}

    def encode(method: str) -> None:
        count = 0
        for batch in batches:
            count += sum(map(len, getattr(tokenizer, method)(batch, add_special_tokens=False)))
        tokens[method] = count

    def whole() -> None:
        found = prepare(
            str(text),
            str(tokenizer_directory),
            str(out_dir),
            max_seq_length=LENGTH,
            document_separator=document_separator,
            overwrite=True,
            quiet=True,
        )
        tokens["prepare"] = sum(split["tokens"] for split in found["splits"].values())

    actions: dict[str, Callable[[], None]] = {
        "prepare": whole,
        "encode_batch": partial(encode, "encode_batch"),
        "encode_batch_fast": partial(encode, "encode_batch_fast"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    of_processor: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name in by_turns(list(actions), number):
            clock, processor = timed(actions[name])
            seconds[name].append(clock)
            of_processor[name].append(processor)
    temporary.cleanup()
    if len(set(tokens.values())) != 1:
        raise AssertionError(f"not the same tokens: {tokens}")
    # the first round opens files and fills the tokenizer's cache
    seconds, of_processor = ({name: values[1:] for name, values in kind.items()} for kind in (seconds, of_processor))
    ours = seconds["prepare"]
    return {
        "tokenizer": tokenizer_directory.name.removeprefix("tokenizer-"),
        "cores": cores,
        "texts": sum(map(len, batches)),
        "tokens": tokens["prepare"],
        "megabytes": statistics.bytes_read / 1e6,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "processor_seconds": {name: summary(values) for name, values in of_processor.items()},
        # times as fast as the bare tokenizer
        "ratio": {
            name: summary([bare / whole for bare, whole in zip(seconds[name], ours, strict=True)])
            for name in ("encode_batch", "encode_batch_fast")
        },
    }
