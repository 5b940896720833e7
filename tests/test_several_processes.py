"""Two and four processes under torchrun: every row once, resuming on other numbers, and one that is killed."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from small_runs import losses_of, read_lines, small_run, start_command, write_recipe
from spanelectra.checkpointing import list_checkpoints, newest_complete_checkpoint
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError
from spanelectra.pretraining import pretrain
from spanelectra.several_processes import means_lost_process, rearranged, wait_for_all
from spanelectra.training_args import PretrainingArguments

# Notes which rows each process puts into which micro-batch, and in which epoch.
NOTE_ROWS = """
import json, os, sys
from spanelectra import cli
from spanelectra.data.data_collator import DataCollatorForSpanElectra as Collator
collate, file = Collator.__call__, NOTES + "." + os.environ.get("RANK", "0")
def noted(self, batch):
    if batch.progress < 1:
        with open(file, "a") as stream:
            stream.write(json.dumps([batch.progress, batch.rows.tolist(), batch.epochs.tolist()]) + "\\n")
    return collate(self, batch)
Collator.__call__ = noted
sys.exit(cli.main(sys.argv[1:]))
"""


def launch(
    processes: int, *arguments: str, program: str | None = None, log_dir: Path | None = None
) -> subprocess.Popen[bytes]:
    """``spanelectra pretrain`` under torchrun, or alone for one process; ``log_dir`` gets what each process says."""
    if processes == 1:
        return start_command(*arguments, program=program)
    options = ("--nproc_per_node", str(processes), "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
    if log_dir is not None:
        options = (*options, "--tee", "3", "--log_dir", str(log_dir))
    return start_command(*arguments, launcher=options, program=program)


def finish(process: subprocess.Popen[bytes]) -> str:
    """Wait for the end of a command that should succeed; returns what it said."""
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors.decode()
    return errors.decode()


class TestSharing:
    """The rows of a step, shared out anew."""

    @pytest.mark.parametrize(
        ("size", "accumulation", "before", "now", "expected"),
        [
            (4, 1, 2, 1, (4, 2)),  # the same micro-batches, one after the other
            (4, 2, 2, 4, (4, 1)),
            (4, 1, 2, 4, (2, 1)),  # too few: smaller ones
            (6, 1, 2, 3, (4, 1)),
            (4, 3, 1, 2, (3, 2)),
            (4, 2, 2, 2, (4, 2)),
        ],
    )
    def test_a_step_keeps_its_rows(
        self, monkeypatch: pytest.MonkeyPatch, size: int, accumulation: int, before: int, now: int, expected: Any
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", str(now))
        settings = PretrainingArguments(per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
        new = rearranged(settings, before)
        assert (new.per_device_train_batch_size, new.gradient_accumulation_steps) == expected
        assert expected[0] * expected[1] * now == size * accumulation * before

    def test_where_that_cannot_be_it_says_what_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(UserError, match=r"3 processes cannot share the 8 rows .* takes 1, 2, 4, 8\."):
            rearranged(PretrainingArguments(per_device_train_batch_size=4), 2)

    def test_a_constant_schedule_is_a_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "4")
        new = rearranged(PretrainingArguments(per_device_train_batch_size="0:4 1:4"), 2)
        assert (new.per_device_train_batch_size, new.gradient_accumulation_steps) == (2, 1)

    def test_micro_batches_that_grow_are_shared_out_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = PretrainingArguments(per_device_train_batch_size="0:1 1:4", gradient_accumulation_steps=3)
        monkeypatch.setenv("WORLD_SIZE", "2")
        new = rearranged(settings, 4)
        assert (new.per_device_train_batch_size, new.gradient_accumulation_steps) == ("0:1 1:4", 6)
        for now in ("5", "8"):
            monkeypatch.setenv("WORLD_SIZE", now)
            sentence = rf"{now} processes cannot share the 12 micro-batches .* it takes 1, 2, 3, 4, 6, 12\."
            with pytest.raises(UserError, match=sentence):
                rearranged(settings, 4)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_would_split_the_model_up_is_refused(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(UserError, match=f"holds a whole model, but accelerate is set to {name}: start it by torchrun"):
        pretrain(small_run(rows, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# torch itself can: what keeps runs from it is written in docs/scaling.md
SHARDED = """
import sys, torch, torch.distributed as distributed
sys.path.insert(0, TESTS)
from factories import joint_model, make_batch
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from spanelectra.numerical_safety import NonFiniteSteps
distributed.init_process_group("gloo")
for sharing in ("embeddings", "gradient_disentangled", "none"):
    losses = []
    for shards in (False, True):
        torch.manual_seed(0)
        model, counts = joint_model("electra", sharing=sharing), NonFiniteSteps()
        if shards:
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        for step in range(4):
            loss = model(**make_batch(step)).loss * (float("nan") if step == 2 else 1.0)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.found_inf = counts.update(norm.full_tensor() if shards else norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert counts.total == 1
    torch.testing.assert_close(losses[:4], losses[4:], equal_nan=True, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.slow
def test_torch_shards_the_model_over_processors(tmp_path: Path) -> None:
    (tmp_path / "sharded.py").write_text(SHARDED.replace("TESTS", repr(str(Path(__file__).parent))))
    finish(launch(2, program=str(tmp_path / "sharded.py")))


def test_one_process_waits_for_none_and_loses_none() -> None:
    wait_for_all()
    assert not means_lost_process(RuntimeError("Connection closed by peer"))


def test_a_lost_process_is_told_from_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for text in (
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:43122",
        "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 30000ms for recv operation",
    ):
        assert means_lost_process(RuntimeError(text))
    assert means_lost_process(torch.distributed.DistNetworkError("unknown"))
    assert not means_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not means_lost_process(ValueError("timed out"))


@pytest.mark.slow
def test_every_row_is_seen_once_an_epoch_and_in_the_same_step_by_however_many(
    rows: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    count = len(RowDataset(rows))
    steps = 2 * count // 16 + 3
    seen: list[Counter[tuple[float, int, int]]] = []
    for processes, accumulation in ((1, 4), (2, 2), (4, 1)):
        settings = small_run(rows, tmp_path / str(processes), max_steps=steps, gradient_accumulation_steps=accumulation)
        settings.logging_steps, settings.save_steps, settings.eval_steps, settings.dropout = 1, 0, 0, 0.1
        notes, program = tmp_path / f"notes-{processes}", tmp_path / "program.py"
        program.write_text(NOTE_ROWS.replace("NOTES", repr(str(notes))))
        finish(launch(processes, "--recipe", write_recipe(settings, tmp_path), program=str(program)))
        files = [Path(f"{notes}.{rank}") for rank in range(processes)]
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        seen.append(Counter((p, row, epoch) for p, r, e in lines for row, epoch in zip(r, e, strict=True)))
        for epoch in (0, 1):
            assert Counter(row for _, row, e in seen[-1].elements() if e == epoch) == Counter(range(count))
    assert seen[0] == seen[1] == seen[2], "and in the same step"
    # the same micro-batches, whose gradients are added up in another order: 1e-7 a step, which training magnifies
    losses = [[losses_of(line) for line in read_lines(tmp_path / str(processes))] for processes in (1, 2, 4)]
    assert len(losses[0]) == len(losses[1]) == len(losses[2]) == steps
    differences = [
        abs(ours[name] / one[name] - 1)
        for several in losses[1:]
        for ours, one in zip(several, losses[0], strict=True)
        for name in one
        if math.isfinite(one[name])
    ]
    record_property("relative difference of losses", max(differences))
    assert max(differences) < 1e-4


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_resumes_on_one_and_on_four(
    rows: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    settings = small_run(rows, tmp_path / "whole", max_steps=12, save_steps=6, dropout=0.1, logging_steps=1)
    settings.gradient_accumulation_steps = 2
    finish(launch(2, "--recipe", write_recipe(settings, tmp_path)))
    whole = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    start = load_file(tmp_path / "whole" / "checkpoint-6" / "model.safetensors")
    for processes in (1, 2, 4):
        run = Path(shutil.copytree(tmp_path / "whole", tmp_path / str(processes)))
        shutil.rmtree(run / "checkpoint-12")
        shutil.rmtree(run / "model")
        (run / "metrics.json").unlink()
        said = finish(launch(processes, "--resume", str(run)))
        resumed = load_file(run / "model" / "model.safetensors")
        lines = [[losses_of(line) for line in read_lines(place)] for place in (run, tmp_path / "whole")]
        if processes == 2:
            assert all(torch.equal(resumed[name], whole[name]) for name in whole) and lines[0] == lines[1]
            continue
        assert f"2 process(es) started the run, {processes} go on" in said
        # the same micro-batches, masks, samples and dropout; gradients are added up in another order
        for ours, theirs in zip(*lines, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        moved = max(float((whole[name] - start[name]).abs().max()) for name in whole)
        difference = max(float((whole[name] - resumed[name]).abs().max()) for name in whole)
        record_property("share of the way", difference / moved)
        assert difference < 0.01 * moved, (difference, moved)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_one_process_killed_ends_the_others_in_less_than_a_minute(
    rows: Path, tmp_path: Path, processes: int, record_property: Callable[[str, object], None]
) -> None:
    settings = small_run(rows, tmp_path / "run", max_steps=100_000, save_steps=5, eval_steps=0)
    launcher = launch(processes, "--recipe", write_recipe(settings, tmp_path), log_dir=tmp_path / "logs")
    deadline = time.monotonic() + 240
    while not list_checkpoints(tmp_path / "run"):
        assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()[1].decode()
        time.sleep(0.1)
    workers = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    assert len(workers) == processes
    victim = next(worker for worker in workers if worker.environ()["RANK"] == str(processes - 1))
    victim.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = launcher.communicate(timeout=60)
    record_property("seconds to the end", time.monotonic() - killed)
    assert launcher.returncode != 0 and time.monotonic() - killed < 60
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert b"another one has ended or does not answer: look for its own error" in errors, errors.decode()
    # the launcher adds a trace of its own to what its processes say
    said = [file.read_text() for file in (tmp_path / "logs").rglob("stderr.log") if file.parent.name == "0"]
    assert len(said) == 1 and "Traceback" not in said[0] and said[0].count("error: process 0") == 1, said
    assert newest_complete_checkpoint(tmp_path / "run")[0] is not None


# A probe that takes longer than processes wait for one another in a step.
PROBE_SLOWLY = """
import sys, time
from spanelectra import cli
from spanelectra.finetuning.probe_callback import ProbeCallback
scores = ProbeCallback._scores
def slowly(self, encoder):
    time.sleep(8)
    return scores(self, encoder)
ProbeCallback._scores = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_others_wait_for_a_probe_that_takes_long(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks" / "mine").mkdir(parents=True)
    lines = [f"{'good' if number % 2 else 'bad'} sentence {number}\t{number % 2}" for number in range(40)]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "tasks" / "mine" / name).write_text("text\tlabel\n" + "\n".join(lines))
    (tmp_path / "tasks" / "mine" / "task.yaml").write_text("task: classification\n")
    settings = small_run(rows, tmp_path / "run", probe_tasks=str(tmp_path / "tasks"), probe_steps=3, ddp_timeout=5)
    program = tmp_path / "program.py"
    program.write_text(PROBE_SLOWLY)
    finish(launch(2, "--recipe", write_recipe(settings, tmp_path), program=str(program)))
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count('"probe_mine"') == 2
