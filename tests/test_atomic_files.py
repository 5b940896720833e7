"""Directories that are complete or not there: whoever is killed when, and whatever breaks afterwards."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spanelectra.atomic_files import (
    MANIFEST_NAME,
    file_digest,
    find_damage,
    partial_path,
    seal,
    write_directory,
    write_json,
    write_text,
)
from spanelectra.cli import main
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError


def fill(directory: Path, content: str = "one") -> None:
    (directory / "inner").mkdir()
    (directory / "weights.bin").write_bytes(content.encode() * 1000)
    (directory / "inner" / "state.json").write_text(content)


@pytest.fixture
def complete(tmp_path) -> Path:
    with write_directory(tmp_path / "done") as partial:
        fill(partial)
    return tmp_path / "done"


def test_a_written_directory_is_complete_and_leaves_nothing_beside_it(complete):
    assert find_damage(complete) is None
    assert [path.name for path in complete.parent.iterdir()] == ["done"]
    manifest = json.loads((complete / MANIFEST_NAME).read_text())
    assert manifest == {
        name: {"bytes": (complete / name).stat().st_size, "sha256": file_digest(complete / name)}
        for name in ("inner/state.json", "weights.bin")
    }


def test_nothing_is_visible_before_the_end(tmp_path):
    with write_directory(tmp_path / "done") as partial:
        fill(partial)
        assert not (tmp_path / "done").exists()
        assert partial == partial_path(tmp_path / "done")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_and_an_old_directory_untouched(complete, error):
    for target in (complete, complete.with_name("new")):
        with pytest.raises(error), write_directory(target, replace=True) as partial:
            fill(partial, "two")
            raise error
    assert (complete / "inner" / "state.json").read_text() == "one"
    assert find_damage(complete) is None
    assert [path.name for path in complete.parent.iterdir()] == ["done"]


def test_replacing_puts_the_new_directory_in_place_of_the_old_one(complete):
    (complete / "leftover").touch()
    with write_directory(complete, replace=True) as partial:
        fill(partial, "two")
        assert (complete / "inner" / "state.json").read_text() == "one"
    assert (complete / "inner" / "state.json").read_text() == "two"
    assert not (complete / "leftover").exists()
    assert find_damage(complete) is None
    assert [path.name for path in complete.parent.iterdir()] == ["done"]


def test_what_is_not_to_be_replaced_is_refused_before_any_work(complete):
    with pytest.raises(FileExistsError, match="done"), write_directory(complete):
        raise AssertionError("the block must not run")
    (complete.parent / "file").write_text("text")
    for replace in (False, True):
        with pytest.raises(FileExistsError, match="file"), write_directory(complete.parent / "file", replace=replace):
            raise AssertionError("the block must not run")
    assert (complete.parent / "file").read_text() == "text"
    assert find_damage(complete) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "weights.bin").write_bytes((path / "weights.bin").read_bytes()[:-7]), "weights.bin has"),
        (lambda path: (path / "weights.bin").write_bytes(b"X" + (path / "weights.bin").read_bytes()[1:]), "checksum"),
        (lambda path: (path / "weights.bin").write_bytes(b""), "weights.bin has 0 bytes"),
        (lambda path: (path / "inner" / "state.json").unlink(), "inner/state.json is missing"),
        (lambda path: (path / MANIFEST_NAME).unlink(), "manifest.json is missing"),
        (lambda path: (path / MANIFEST_NAME).write_text('{"weights'), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_NAME).write_text('{"weights.bin": 3}'), "manifest.json is unreadable"),
        (lambda path: (path / MANIFEST_NAME).write_text("[]"), "manifest.json is unreadable"),
        (
            lambda path: (path / MANIFEST_NAME).write_text('{"weights.bin": {"bytes": Infinity, "sha256": ""}}'),
            "manifest.json is unreadable",
        ),
        (lambda path: (path / MANIFEST_NAME).write_bytes(b"\xff\xfe"), "manifest.json is unreadable"),
    ],
)
def test_damage_is_found_and_named(complete, damage, words):
    damage(complete)
    assert words in find_damage(complete)


def test_one_flipped_bit_in_any_file_is_found(complete):
    for file in [path for path in complete.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert f"{file.relative_to(complete).as_posix()} has a wrong checksum" == find_damage(complete)
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert find_damage(complete) is None


def test_a_manifest_further_down_is_a_file_like_any_other(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / MANIFEST_NAME).write_text("{}")
    seal(tmp_path)
    (tmp_path / "inner" / MANIFEST_NAME).write_text("[]")
    assert find_damage(tmp_path) == f"inner/{MANIFEST_NAME} has a wrong checksum"


def test_a_directory_that_does_not_exist_is_not_complete(tmp_path):
    assert find_damage(tmp_path / "nowhere") == f"{MANIFEST_NAME} is missing"


def test_small_files_are_replaced_whole(tmp_path):
    file = tmp_path / "metrics.json"
    write_json(file, {"µ": [1, 2.5]})
    assert json.loads(file.read_text(encoding="utf-8")) == {"µ": [1, 2.5]}
    with pytest.raises(TypeError):
        write_json(file, {"value": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"µ": [1, 2.5]}
    write_text(file, "text")
    assert file.read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


# --- killed writers ---------------------------------------------------------------------------------------------------

HALF_WAY = """
import sys, time
from pathlib import Path
from spanelectra.atomic_files import write_directory
with write_directory(Path(sys.argv[1]), replace=True) as partial:
    (partial / "first.bin").write_bytes(b"1" * 100_000)
    second = open(partial / "second.bin", "wb")
    second.write(b"2" * 100_000)
    print("half way", flush=True)
    time.sleep(60)
"""

OVER_AND_OVER = """
import sys
from pathlib import Path
from spanelectra.atomic_files import write_directory
for number in range(10**6):
    with write_directory(Path(sys.argv[1]), replace=True) as partial:
        (partial / "a.txt").write_text(f"{number}" * 5000)
        (partial / "b.txt").write_text(f"{number}" * 5000)
    if number == 0:
        print("first", flush=True)
"""


IN_A_WRITE = """
import sys, time
from spanelectra import atomic_files, cli
def flush(path):
    print("in a write", flush=True)
    time.sleep(60)
atomic_files._flush_to_disk = flush
sys.exit(cli.main(sys.argv[1:]))
"""


def start_writer(program: str, *arguments: str | Path) -> subprocess.Popen:
    """Start a writer and wait for its first line."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline()
    return writer


def kill(writer: subprocess.Popen) -> None:
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()


def test_a_writer_killed_half_way_leaves_nothing_that_opens_and_the_next_one_succeeds(tmp_path):
    target = tmp_path / "checkpoint-10"
    kill(start_writer(HALF_WAY, target))
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    assert left == partial_path(target)
    assert find_damage(left) == f"{MANIFEST_NAME} is missing"
    with write_directory(target) as partial:
        fill(partial)
    assert find_damage(target) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]
    assert not (target / "first.bin").exists()


def test_a_writer_killed_half_way_leaves_the_directory_it_was_to_replace_untouched(complete):
    kill(start_writer(HALF_WAY, complete))
    assert find_damage(complete) is None
    assert (complete / "inner" / "state.json").read_text() == "one"


def test_a_writer_killed_at_any_moment_of_replacing_loses_nothing(tmp_path):
    chance = random.Random(0)
    target = tmp_path / "checkpoint-10"
    for _ in range(4):
        writer = start_writer(OVER_AND_OVER, target)
        time.sleep(chance.uniform(0.02, 0.15))
        kill(writer)
        # between its two renames the old directory stands beside under another name, whole
        kept = [path for path in (target, tmp_path / ".replaced-checkpoint-10") if find_damage(path) is None]
        assert kept
        first, second = (kept[0] / name for name in ("a.txt", "b.txt"))
        assert first.read_text() == second.read_text() != ""


@pytest.mark.parametrize("command", ["vocab", "prepare"])
def test_a_command_killed_in_a_write_leaves_nothing_that_opens_and_finishes_later(rows, tmp_path, command):
    text, out_dir = rows.parent / "text", tmp_path / "out"
    arguments = {
        "vocab": ["--data_dir", str(text), "--vocab_size", "600"],
        "prepare": ["--data", str(text), "--tokenizer", str(rows / "tokenizer"), "--max_seq_length", "32"],
    }[command] + ["--out_dir", str(out_dir), "--quiet"]
    kill(start_writer(IN_A_WRITE, command, *arguments))
    assert [path.name for path in tmp_path.iterdir()] == [".partial-out"]
    assert find_damage(partial_path(out_dir)) is not None
    opens = {"vocab": load_tokenizer, "prepare": RowDataset}[command]
    with pytest.raises(UserError):
        opens(out_dir)
    assert main([command, *arguments]) == 0
    assert find_damage(out_dir) is None and opens(out_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
