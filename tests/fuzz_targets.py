"""Every reader of files that others made, as a function of the file's bytes; only a clear error may come out of it.

Used by tests/test_hostile_input.py (short, seeded) and by benchmarks/fuzz.py (long, guided by coverage).
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml
import zstandard

from small_runs import make_trainer
from spanelectra.atomic_files import find_damage, seal
from spanelectra.callbacks import read_history
from spanelectra.checkpointing import check_trainer_state, newest_complete_checkpoint
from spanelectra.corrupted_rows import CorruptedRows
from spanelectra.data.corpus import iterate_documents
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.text_files import read_lines
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.data.word_starts import word_start_table
from spanelectra.errors import UserError
from spanelectra.finetuning.conll_files import read_conll
from spanelectra.finetuning.squad_files import read_squad
from spanelectra.finetuning.tables import read_table
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.recipe_files import load_recipe
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

TEXT = "Jack and Jill went up the hill\nto fetch a pail of water.\r\n\n\tJack fell — down 🪣\n"


@dataclass
class Target:
    """A reader.

    Attributes:
        read: given the bytes and a directory to put them in; raises what the reader raises.
        samples: honest content, to start from.
        words: what such files are made of, to put in.
    """

    read: Callable[[bytes, Path], object]
    samples: list[bytes]
    words: tuple[bytes, ...] = ()


def _put(content: bytes, directory: Path, name: str) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def _corpus(extension: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, directory: Path) -> object:
        path = _put(content, directory, f"file{extension}")
        return [document.text.encode() for document in iterate_documents(path, document_separator="blank_line")]

    return read


def _text(content: bytes, directory: Path) -> object:
    """The first byte chooses encoding and limit."""
    first, rest = (content[:1] or b"\0")[0], content[1:]
    encoding = ("utf-8", "latin-1", "utf-16", "utf-7", "shift_jis", "idna", "unicode_escape", "hz")[first % 8]
    path = _put(rest, directory, "file.txt")
    return list(read_lines(path, encoding=encoding, limit=(None, 3, 50, 1 << 16)[first // 8 % 4]))


def _compressed(content: bytes, directory: Path) -> object:
    """The first byte chooses the compression."""
    first, rest = (content[:1] or b"\0")[0], content[1:]
    path = _put(rest, directory, f"file.txt{('.gz', '.bz2', '.xz', '.zst')[first % 4]}")
    return sum(len(line) for line in read_lines(path, limit=1 << 16))


def _table(content: bytes, directory: Path) -> object:
    first, rest = (content[:1] or b"\0")[0], content[1:]
    extension = (".csv", ".tsv", ".jsonl", ".parquet")[first % 4]
    return read_table(str(_put(rest, directory, f"file{extension}")), names={"text", "label"})


def _conll(content: bytes, directory: Path) -> object:
    first, rest = (content[:1] or b"\0")[0], content[1:]
    return read_conll(str(_put(rest, directory, ("file.conll", "file.conllu")[first % 2])), labelled=first < 128)


def _squad(content: bytes, directory: Path) -> object:
    return read_squad(str(_put(content, directory, "file.json")))


def _recipe(content: bytes, directory: Path) -> object:
    return load_recipe(str(_put(content, directory, "file.yaml")))


def _in_copy(original: Path, file: str, sealed: bool = False) -> Callable[[Callable[[Path], object]], Callable]:
    """Readers of directories: a copy of an honest one in which one file is replaced."""

    def decorate(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
        def read_copy(content: bytes, directory: Path) -> object:
            copy = Path(shutil.copytree(original, directory / original.name, dirs_exist_ok=True))
            (copy / file).write_bytes(content)
            if sealed:
                # as one who wants to harm would: with a manifest that agrees
                seal(copy)
            return read(copy)

        return read_copy

    return decorate


def _optimizer_and_schedule(trainer: SpanElectraTrainer, checkpoint: Path) -> None:
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    trainer._load_optimizer_and_scheduler(str(checkpoint))


def _history(content: bytes, directory: Path) -> object:
    return read_history(_put(content, directory, "metrics.jsonl"))


def text_targets() -> dict[str, Target]:
    """Readers of single files."""
    records = [{"text": line, "label": "a"} for line in TEXT.splitlines()]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    table = pyarrow.table({"text": TEXT.splitlines(), "label": [1.0] * len(TEXT.splitlines())})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    parquet = sink.getvalue().to_pybytes()
    plain = TEXT.encode()
    packed = (gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), zstandard.compress(plain))
    csv, tsv = b'text,label\n"Jack, Jill",1\n"up ""the"" hill",0\n', b"text\tlabel\nJack\t1\nJill\t0\n"
    conll = b"-DOCSTART- -X- O\n\nJack NNP B-PER\nfell VBD O\n\nJill NNP B-PER\n"
    conllu = b"# sent_id = 1\n1-2\tJacks" + b"\t_" * 8 + b"\n1\tJack\tJack\tPROPN\t_\t_\t2\tnsubj\t_\t_\n"
    question = {"id": "1", "question": "Who fell?", "answers": [{"text": "Jack", "answer_start": 0}]}
    squad = {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": "Jack fell.", "qas": [question]}]}]}
    flat = {**question, "context": "Jack fell.", "answers": {"text": ["Jack"], "answer_start": [0]}}
    recipe = yaml.safe_dump({"extends": "tiny", "max_steps": 5, "learning_rate": 1e-3, "objectives": ["mlm", "ato"]})
    odd = (b"[" * 9999, b"{" * 9999, b"1" * 5000, b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\\ud800", b'"', b"../../x")
    yaml_words = (b"&a", b"*a", b"<<: ", b"!!python/object/apply:os.system", b"!!int", b"2001-99-99", b"- " * 999, *odd)
    return {
        "text": Target(_text, [bytes([first]) + plain for first in range(0, 32, 5)], (b"\r", b"\n\n", *odd)),
        "compressed": Target(_compressed, [bytes([first]) + content for first, content in enumerate(packed)], odd),
        "jsonl": Target(_corpus(".jsonl"), [lines], (b'{"text": ', b"null", b"NaN", *odd)),
        "csv": Target(_corpus(".csv"), [csv], (b'""', b",", *odd)),
        "tsv": Target(_corpus(".tsv"), [tsv], (b"\t", *odd)),
        "parquet": Target(_corpus(".parquet"), [parquet], (b"PAR1", *odd)),
        "table": Target(_table, [b"\0" + csv, b"\1" + tsv, b"\2" + lines, b"\3" + parquet], (b"\t", b",", *odd)),
        "conll": Target(_conll, [b"\0" + conll, b"\1" + conllu], (b"# global.columns = ", b"\t_", b"8.1", *odd)),
        "squad": Target(_squad, [json.dumps(content).encode() for content in (squad, flat)], (b"-1", b"[]", *odd)),
        "yaml": Target(_recipe, [recipe.encode()], yaml_words),
        "history": Target(_history, [b'{"step": 1, "loss": 2.0}\n{"step": 2}\n'], odd),
    }


def directory_targets(rows: Path, corrupted: Path, run: Path) -> dict[str, Target]:
    """Readers of directories that this package wrote, one file of which somebody else did.

    Args:
        rows: of ``spanelectra prepare``.
        corrupted: of ``spanelectra corrupt``.
        run: with a checkpoint.
    """
    checkpoint, _ = newest_complete_checkpoint(run)
    assert checkpoint is not None
    tokenizer = rows / "tokenizer"

    def add(original: Path, file: str, read: Callable[[Path], object], *words: bytes, sealed: bool = False) -> None:
        sample = (original / file).read_bytes()
        name = f"{original.parent.name if original == checkpoint else original.name}/{file}"
        targets[name] = Target(_in_copy(original, file, sealed)(read), [sample], words)

    pickled = (
        b"cposix\nsystem\n",
        b"\x80\x02",
        b"\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"K\xff",
        b"PK\x03\x04",
    )
    numbers = (b"-1", b"0", b"99999999999", b"1e99", b"null", b"[]", b"{}", b'"x"', b"true", b"NaN")
    targets: dict[str, Target] = {}
    add(tokenizer, "tokenizer.json", lambda path: word_start_table(load_tokenizer(path)), *numbers, b'"\xc4\xa0"')
    hostile = (
        b'"auto_map": {"AutoTokenizer": ["x.Y", "x.Y"]},',
        b'"chat_template": [{"name": "../x", "template": ""}],',
    )
    add(tokenizer, "tokenizer_config.json", lambda path: load_tokenizer(path), *numbers, *hostile)
    for file in ("dataset.json", "token_counts.npy"):
        add(rows, file, lambda path: RowDataset(path), *numbers)
    for file in ("features.json", "train.masked_positions.npy"):
        add(corrupted, file, lambda path: CorruptedRows(path, "train"), *numbers)
    add(checkpoint, "manifest.json", lambda path: find_damage(path), *numbers, b'"../../x": ', b'"/dev/zero": ')
    for file in ("config.json", "model.safetensors"):
        add(checkpoint, file, SpanElectraForPreTraining.from_pretrained, *numbers, sealed=True)
    add(checkpoint, "trainer_state.json", check_trainer_state, *numbers)
    resuming = make_trainer(PretrainingArguments(**load_recipe(str(run / "config.yaml"))))
    for file in ("optimizer.pt", "scheduler.pt"):
        add(checkpoint, file, partial(_optimizer_and_schedule, resuming), *pickled)
    return targets


def mutations(target: Target, chance: random.Random) -> Iterator[bytes]:
    """Endless changes of the target's samples: bits, cuts, copies, its words."""
    while True:
        content = bytearray(chance.choice(target.samples))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            place = chance.randrange(len(content) + 1)
            kind = chance.randrange(6)
            if kind == 0 and content:
                content[place % len(content)] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del content[place : place + chance.choice((1, 4, 100, 10**6))]
            elif kind == 2:
                content[place:place] = content[chance.randrange(len(content) + 1) :][: chance.choice((1, 20, 1000))]
            elif kind == 3 and target.words:
                content[place:place] = chance.choice(target.words)
            elif kind == 4 and target.words:
                word = chance.choice(target.words)
                content[place : place + len(word)] = word
            else:
                content[place:place] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 8))))
        yield bytes(content)


def check(target: Target, content: bytes, directory: Path) -> bool:
    """Read the content; returns whether it was taken, raises what is no clear error."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    before = sorted(directory.parent.iterdir())
    try:
        target.read(content, directory)
        taken = True
    except UserError as error:
        assert 0 < len(str(error)) < 3000, f"an error of {len(str(error))} characters"
        taken = False
    assert sorted(directory.parent.iterdir()) == before, "something was written outside"
    return taken
