"""Files that others made: whatever is in them, they are read or refused by a sentence, in bounded memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard

from fuzz_targets import check, directory_targets, mutations, text_targets
from small_runs import small_run
from spanelectra.atomic_files import find_damage, seal
from spanelectra.cli import main
from spanelectra.corrupted_rows import CorruptedRows
from spanelectra.corruption import corrupt
from spanelectra.data.corpus import iterate_documents
from spanelectra.data.row_dataset import RowDataset, load_array
from spanelectra.data.text_files import read_lines
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.task_folder import read_task_folder
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from tiny_tasks import quick, save_encoder

CASES = int(os.environ.get("FUZZ_CASES", "60"))


# Pickles over which torch's reader stumbles each in its own way: struct.error and IndexError.
FOUND_IN_PICKLES = (b"r;;", b"tttti")


class TestMutations:
    """Some hundred changed files for each reader; benchmarks/fuzz.py makes millions."""

    @pytest.mark.parametrize("name", text_targets())
    def test_files(self, tmp_path: Path, name: str) -> None:
        target = text_targets()[name]
        # of text, where its encoding is told
        honest = [check(target, sample, tmp_path / "x") for sample in target.samples]
        assert all(honest) or (name == "text" and any(honest))
        for content in islice(mutations(target, random.Random(name)), CASES):
            check(target, content, tmp_path / "x")

    def test_directories(self, rows: Path, generator_run: Path, tmp_path: Path) -> None:
        corrupt(str(generator_run), str(rows), str(tmp_path / "corrupted"), quiet=True)
        for name, target in directory_targets(rows, tmp_path / "corrupted", generator_run).items():
            assert check(target, target.samples[0], tmp_path / "work" / "x"), name
            found = FOUND_IN_PICKLES if name.endswith(".pt") else ()
            for content in (*found, *islice(mutations(target, random.Random(name)), CASES // 6)):
                check(target, content, tmp_path / "work" / "x")


PAYLOAD = "__import__('os').system('touch {marker}')"


class TestNothingInAFileIsExecuted:
    @pytest.fixture
    def marker(self, tmp_path: Path):
        marker = tmp_path / "executed"
        yield marker
        assert not marker.exists()

    def test_yaml(self, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"max_steps: !!python/object/apply:os.system ['touch {marker}']\n")
        assert main(["pretrain", "--recipe", str(recipe)]) == 2
        assert "not valid YAML" in capsys.readouterr().err

    @pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
    def test_code_beside_a_tokenizer(self, rows: Path, tmp_path: Path, marker: Path, file: str) -> None:
        copy = shutil.copytree(rows / "tokenizer", tmp_path / "tokenizer")
        (copy / "code.py").write_text(PAYLOAD.format(marker=marker))
        content = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "code.Mine"]}, "model_type": "x"}
        (copy / file).write_text(json.dumps(content))
        # beside a tokenizer's own settings a model's are not read
        refused = pytest.raises(UserError, match="holds no tokenizer that opens")
        with refused if file == "tokenizer_config.json" else contextlib.nullcontext():
            load_tokenizer(copy)

    def test_code_beside_an_encoder(self, rows: Path, tmp_path: Path, marker: Path) -> None:
        encoder = tmp_path / "encoder"
        encoder.mkdir()
        (encoder / "code.py").write_text(PAYLOAD.format(marker=marker))
        (encoder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "code.Mine"}}))
        with pytest.raises(UserError, match="no Hugging Face model there"):
            pretrain(small_run(rows, tmp_path / "run", init_from=str(encoder)))

    @pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt"])
    def test_a_pickle_in_a_checkpoint(
        self, rows: Path, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str], file: str
    ) -> None:
        class Payload:
            def __reduce__(self):
                return os.system, (f"touch {marker}",)

        pretrain(small_run(rows, tmp_path / "run"))
        checkpoint = tmp_path / "run" / "checkpoint-6"
        for save in (lambda: torch.save(Payload(), checkpoint / file), lambda: (checkpoint / file).write_bytes(b"x")):
            (tmp_path / "run" / "metrics.json").unlink(missing_ok=True)
            save()
            seal(checkpoint)
            assert main(["pretrain", "--resume", str(tmp_path / "run")]) == 2
            assert "checkpoint-6: its optimiser or schedule does not open" in capsys.readouterr().err

    def test_an_array_of_objects(self, rows: Path, tmp_path: Path, marker: Path) -> None:
        copy = Path(shutil.copytree(rows, tmp_path / "rows"))
        payload = np.empty(1, dtype=object)
        payload[0] = os.system
        np.save(copy / "token_counts.npy", payload, allow_pickle=True)
        with pytest.raises(UserError, match=r"token_counts\.npy does not open"):
            pretrain(small_run(copy, tmp_path / "run"))


class TestNothingIsWrittenOutside:
    def test_a_tokenizer_with_templates_that_name_their_own_files(self, rows: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(rows / "tokenizer", tmp_path / "tokenizer"))
        config = json.loads((copy / "tokenizer_config.json").read_text())
        config["chat_template"] = [{"name": "../../../escaped", "template": "x"}, {"name": "default", "template": "x"}]
        (copy / "tokenizer_config.json").write_text(json.dumps(config))
        out_dir = tmp_path / "deep" / "rows"
        text = str(rows.parent / "text")
        assert main(["prepare", "--data", text, "--tokenizer", str(copy), "--out_dir", str(out_dir), "--quiet"]) == 0
        assert not list(tmp_path.rglob("*escaped*"))

    def test_files_columns_labels_and_questions_whose_names_lead_elsewhere(
        self, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        work = tmp_path / "deep" / "work"
        text = work / "text"
        text.mkdir(parents=True)
        for name in (
            "..txt",
            "-rf.txt",
            "x\\..\\..\\escaped.txt",
            "%2e%2e%2fescaped.txt",
            "a\nb.txt",
            "[bold].txt",
            "~.txt",
        ):
            (text / name).write_text("Jack and Jill went up the hill\n")
        (text / "records.jsonl").write_text('{"text": "to fetch", "../../escaped": "a pail", "/escaped": 1}\n')
        arguments = ["--data", str(text), "--tokenizer", str(rows / "tokenizer"), "--out_dir", str(work / "rows")]
        assert main(["prepare", *arguments, "--max_seq_length", "16", "--validation_fraction", "0"]) == 0
        # the first one is hidden
        assert "documents        7 train" in capsys.readouterr().err

        save_encoder("electra", work / "encoder")
        for name in ("train", "dev"):
            lines = [f"the mill is {word}\t{word}\t../../{word}" for word in ("../../escaped", "/escaped")] * 4
            (work / f"{name}.tsv").write_text("sentence\tlabel\t../../escaped\n" + "\n".join(lines) + "\n")
        paragraph = {"context": "Jack fell.", "qas": [{"id": "../../escaped", "question": "Who?", "answers": []}]}
        paragraph["qas"][0]["answers"] = [{"text": "Jack", "answer_start": 0}]
        (work / "qa.json").write_text(
            json.dumps({"version": "1.1", "data": [{"title": "../../escaped", "paragraphs": [paragraph]}]})
        )
        labels = {"train": str(work / "train.tsv"), "dev": str(work / "dev.tsv")}
        finetune(quick(work / "encoder", labels, work / "labels", epochs=1))
        questions = {"train": str(work / "qa.json"), "dev": str(work / "qa.json")}
        finetune(quick(work / "encoder", questions, work / "questions", epochs=1))
        assert not [path for path in tmp_path.rglob("*escaped*") if path.parent != text]
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["work"]

    def test_a_manifest_that_names_files_elsewhere_is_only_compared(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("x")
        (tmp_path / "checkpoint-1").mkdir()
        manifest = {"../secret": {"bytes": 1, "sha256": "0"}, "/dev/zero": {"bytes": 1, "sha256": "0"}}
        (tmp_path / "checkpoint-1" / "manifest.json").write_text(json.dumps(manifest))
        assert find_damage(tmp_path / "checkpoint-1") is not None
        assert (tmp_path / "secret").read_text() == "x"


def peak_memory(program: str, *arguments: str) -> tuple[float, str]:
    """Peak memory in MiB of a Python program, and what it printed."""
    code = f"{program}\nfrom spanelectra.memory import peak_memory_mib\nprint(peak_memory_mib())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    *said, memory = finished.stdout.splitlines()
    return float(memory), "\n".join(said)


REFUSED = """
import sys
from spanelectra.data.corpus import iterate_documents
from spanelectra.errors import UserError
try:
    print(sum(len(d.text) for d in iterate_documents(sys.argv[1], document_separator="file")), "read")
except UserError as error:
    print(error)
"""


REFUSED_BY_ALL = """
import sys
from spanelectra.data.corpus import iterate_documents
from spanelectra.errors import UserError
from spanelectra.finetuning.conll_files import read_conll
from spanelectra.finetuning.squad_files import read_squad
from spanelectra.finetuning.tables import read_table
from spanelectra.recipe_files import load_recipe
readers = (
    lambda path: list(iterate_documents(path, document_separator="file")),
    lambda path: read_table(path, names={"text", "label"}),
    lambda path: read_conll(path, labelled=True),
    read_squad,
    load_recipe,
)
for path in sys.argv[1:]:
    for reader in readers:
        try:
            reader(path)
        except UserError as error:
            print(str(error).replace("\\n", " "))
"""


class TestMemory:
    """No file, small or large, is worth more than some hundred MiB."""

    @pytest.mark.parametrize("extension", ["gz", "bz2", "xz", "zst"])
    def test_a_bomb(self, tmp_path: Path, extension: str, record_property: Callable[[str, object], None]) -> None:
        piece = b"a " * (4 << 20)
        compress = {
            "gz": lambda: gzip.compress(piece),
            "bz2": lambda: bz2.compress(piece),
            "xz": lambda: lzma.compress(piece, preset=0),
            "zst": lambda: zstandard.compress(piece),
        }[extension]
        bomb = tmp_path / f"bomb.txt.{extension}"
        # one stream after the other, 512 MiB in all
        bomb.write_bytes(compress() * 64)
        memory, said = peak_memory(REFUSED, str(bomb))
        record_property("peak MiB", memory)
        assert "holds more than 200 times its own size" in said
        assert memory < 400, memory

    def test_a_single_frame_of_blocks_that_stand_for_much(self, tmp_path: Path) -> None:
        compressor = zstandard.ZstdCompressor(level=3).compressobj()
        bomb = b"".join(compressor.compress(b"a" * (64 << 20)) for _ in range(6)) + compressor.flush()
        (tmp_path / "bomb.txt.zst").write_bytes(bomb)
        memory, said = peak_memory(REFUSED, str(tmp_path / "bomb.txt.zst"))
        assert "holds more than 200 times its own size" in said and len(bomb) < 1 << 20
        assert memory < 500, memory

    def test_compressed_text_that_repeats_itself_is_read(self, tmp_path: Path) -> None:
        text = "".join(f"line {number} of many that look alike\n" for number in range(20_000))
        for extension, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
            path = tmp_path / f"text.txt.{extension}"
            path.write_bytes(compress(text.encode()))
            assert "".join(read_lines(path)) == text

    def test_several_xz_streams_with_zeros_between_and_one_cut_short(self, tmp_path: Path) -> None:
        path, one = tmp_path / "text.txt.xz", lzma.compress(b"one\ntwo")
        path.write_bytes(one + b"\0" * 8 + lzma.compress(b"\nthree") + b"\0" * 4)
        assert list(read_lines(path)) == ["one\n", "two\n", "three"]
        for end in (5, len(one) - 1):
            path.write_bytes(one[:end])
            with pytest.raises(UserError, match="truncated or damaged"):
                list(read_lines(path))

    @pytest.mark.parametrize("extension", ["jsonl", "csv", "tsv"])
    def test_a_record_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str) -> None:
        monkeypatch.setattr("spanelectra.data.text_files.LONGEST_LINE", 1 << 21)
        path = tmp_path / f"file.{extension}"
        path.write_text('{"text": "' + "a" * (5 << 20))
        with pytest.raises(UserError, match="a line of more than 2,097,152 characters"):
            list(iterate_documents(path, document_separator="file"))

    @pytest.mark.slow
    @pytest.mark.parametrize("extension", ["txt", "jsonl", "csv", "tsv", "json"])
    def test_a_line_of_five_gigabytes(
        self, tmp_path: Path, extension: str, record_property: Callable[[str, object], None]
    ) -> None:
        path = tmp_path / f"file.{extension}"
        with open(path, "wb") as stream:
            stream.write(b'{"text": "')
            for _ in range(5 * 1000):
                stream.write(b"all work " * (1_000_000 // 9))
        memory, said = peak_memory(REFUSED, str(path))
        path.unlink()
        record_property("peak MiB", memory)
        assert ("read" in said) if extension == "txt" else ("a line of more than 134,217,728 characters" in said)
        assert memory < 800, memory

    def test_five_gigabytes_of_nothing_in_a_line(self, tmp_path: Path) -> None:
        """Sparse files, so that neither a disk nor a minute is needed; NUL bytes are no text, whoever reads."""
        for name in ("a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.conll", "a.yaml", "a.gz", "a.zst"):
            with open(tmp_path / name, "wb") as stream:
                stream.truncate(5 << 30)
        memory, said = peak_memory(REFUSED_BY_ALL, *map(str, sorted(tmp_path.iterdir())))
        (tmp_path / "a.txt").rename(tmp_path / "manifest.json")
        assert find_damage(tmp_path) == "manifest.json is too large to be one"
        assert len(said.splitlines()) == 5 * 10, said
        assert memory < 600, memory

    def test_a_parquet_file_that_says_one_long_text_over_and_over(self, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        text = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pyarrow.array(["ab " * (1 << 20)]))
        pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "bomb.parquet", compression="zstd")
        assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
        program = REFUSED.replace("print(sum(", "from itertools import islice\n    print(sum(").replace(
            'iterate_documents(sys.argv[1], document_separator="file")',
            'islice(iterate_documents(sys.argv[1], document_separator="file"), 600)',
        )
        memory, said = peak_memory(program, str(tmp_path / "bomb.parquet"))
        assert "read" in said and memory < 500, memory

    @pytest.mark.parametrize("size", [{"hidden_size": 10**9}, {"num_hidden_layers": 10**9}, {"vocab_size": 10**12}])
    def test_a_configuration_of_a_model_that_no_machine_holds(
        self, generator_run: Path, tmp_path: Path, size: dict[str, int]
    ) -> None:
        model = Path(shutil.copytree(generator_run / "model", tmp_path / "model"))
        config = json.loads((model / "config.json").read_text())
        config["generator_config"].update(size)
        (model / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"config\.json does not describe the model of model\.safetensors"):
            SpanElectraForPreTraining.from_pretrained(model)


class TestFound:
    """What fuzzing found, once each."""

    @pytest.mark.parametrize("header", [b"{'descr': '<i8', 'shape': (6", b"{" * 90, b"\\", b"[" * 9000, b"'" * 3])
    def test_headers_of_arrays(self, rows: Path, tmp_path: Path, header: bytes) -> None:
        copy = Path(shutil.copytree(rows, tmp_path / "rows"))
        header += b"\n"
        (copy / "token_counts.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(UserError, match=r"token_counts\.npy does not open: "):
            RowDataset(copy)

    @pytest.mark.parametrize(
        "changes",
        [
            {"tokenizer_fingerprint": None},
            {"max_seq_length": "32"},
            {"max_seq_length": 0},
            {"dtype": "<O8"},
            {"dtype": ["<u2"]},
            {"splits": {"train": {"rows": 3}}},
            {"splits": {"train": {"rows": "3"}, "validation": {"rows": 1}}},
            {"splits": []},
        ],
    )
    def test_rows_described_wrongly(self, rows: Path, tmp_path: Path, changes: dict[str, object]) -> None:
        copy = Path(shutil.copytree(rows, tmp_path / "rows"))
        metadata = json.loads((copy / "dataset.json").read_text())
        for content in ({**metadata, **changes}, {name: metadata[name] for name in metadata if name not in changes}):
            (copy / "dataset.json").write_text(json.dumps(content))
            with pytest.raises(UserError, match=r"dataset\.json is damaged"):
                RowDataset(copy)

    @pytest.mark.parametrize(
        "content", [b"\xff" * 5000, b"[" * 100_000, b'{"format_version": 1, "max_span_length": null}', b"{}", b"[]"]
    )
    def test_features_described_wrongly(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "features.json").write_bytes(content)
        with pytest.raises(UserError, match=r"features\.json is damaged") as refused:
            CorruptedRows(tmp_path, "train")
        assert len(str(refused.value)) < 500

    def test_an_array_of_less_than_nothing(self, tmp_path: Path) -> None:
        header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (488,-1), }\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(ValueError, match="OverflowError"):
            load_array(tmp_path / "x.npy", mmap_mode="r")

    @pytest.mark.parametrize("encoding", ["utf-16", "idna", "punycode"])
    def test_codecs_that_fail_in_their_own_way(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "file.txt").write_bytes("Jack fell — down\n".encode())
        with pytest.raises(UserError, match=rf"is not {encoding}: "):
            list(read_lines(tmp_path / "file.txt", encoding=encoding))

    def test_a_codec_that_cannot_write_what_it_has_read(self, tmp_path: Path) -> None:
        (tmp_path / "file.txt").write_bytes(b"a..b\0")
        with pytest.raises(UserError, match="it holds NUL bytes"):
            list(read_lines(tmp_path / "file.txt", encoding="idna"))

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("[" * 100_000, "not JSON"),
            ("1" * 5000, "not JSON"),
            ('{"text": "\\ud800"}', "half of a surrogate pair at character 0"),
            (json.dumps({"x" * 20_000: 1}), "choose one with --text_column"),
        ],
    )
    def test_lines_of_json(self, tmp_path: Path, line: str, words: str) -> None:
        (tmp_path / "file.jsonl").write_text(line + "\n")
        with pytest.raises(UserError, match=words) as refused:
            list(iterate_documents(tmp_path / "file.jsonl", document_separator="file"))
        assert len(str(refused.value)) < 1000

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 3000,
            "max_steps: 2001-99-99",
            "? {a: 1}\n: 2",
            "max_steps: !!int x",
            f"{'x' * 5000}: 1",
            f"method: {'x' * 5000}",
            f"learning_rate: 01{'1' * 5000}",
            f"? 0x1{'1' * 5000}\n: 1",
            f"method: !{'x' * 5000} 1",
            # a billion words, if written out
            f"objectives: [&a0 [x, x], {', '.join(f'&a{n} [*a{n - 1}, *a{n - 1}]' for n in range(1, 30))}]",
            "objectives: &a [*a]",
        ],
    )
    def test_recipes(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(UserError, match=r"recipe\.yaml") as refused:
            load_recipe(str(tmp_path / "recipe.yaml"))
        assert len(str(refused.value)) < 500

    @pytest.mark.parametrize("text", ["[" * 3000, f"preset: 01{'1' * 5000}", f"{'x' * 5000}: 1", "preset: 2001-99-99"])
    def test_tasks(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "tasks" / "a").mkdir(parents=True)
        (tmp_path / "tasks" / "a" / "task.yaml").write_text(text)
        with pytest.raises(UserError, match=r"task\.yaml") as refused:
            read_task_folder(str(tmp_path / "tasks"), "m")
        assert len(str(refused.value)) < 500

    def test_a_recipe_that_extends_what_no_file_can_be_called(self, tmp_path: Path) -> None:
        for name in ("x" * 900, '"a\\0b"'):
            (tmp_path / "recipe.yaml").write_text(f"extends: {name}\n")
            with pytest.raises(UserError, match="neither a file nor a shipped recipe"):
                load_recipe(str(tmp_path / "recipe.yaml"))
