"""Two hosts: two network namespaces of this machine, joined by a cable that the test can pull."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from small_runs import losses_of, read_lines, small_run, start_command, weights, write_recipe
from spanelectra.checkpointing import list_checkpoints, newest_complete_checkpoint

pytestmark = pytest.mark.slow
ADDRESSES = ("10.231.77.1", "10.231.77.2")
PORT = 29577


class Hosts:
    """Two network namespaces with an address each, that reach one another and nothing else."""

    def __init__(self) -> None:
        self.names = [f"spanelectra-{os.getpid()}-{number}" for number in (0, 1)]
        self.processes: list[subprocess.Popen[bytes]] = []

    def connect(self) -> None:
        """Make them, and a cable between them."""
        for name in self.names:
            ip("netns", "add", name)
        ends = ["eth0", "netns", self.names[0], "type", "veth", "peer", "name", "eth0", "netns", self.names[1]]
        ip("link", "add", *ends)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            self.run(name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self.run(name, "link", "set", device, "up")

    @staticmethod
    def run(name: str, *arguments: str) -> None:
        """`ip` on one of the hosts."""
        ip("-netns", name, *arguments)

    def pull_the_cable(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self.run(self.names[1], "link", "set", "eth0", "down")

    def remove(self) -> None:
        for process in self.processes:
            # torchrun passes it on, and kills what does not listen
            process.terminate()
        for process in self.processes:
            process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def launch(self, *arguments: str) -> list[subprocess.Popen[bytes]]:
        """``torchrun … spanelectra pretrain`` on both, as a user would: with --node_rank and --master_addr."""
        for number, name in enumerate(self.names):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
            place = ["--node_rank", str(number), "--master_addr", ADDRESSES[0], "--master_port", str(PORT)]
            command = ["ip", "netns", "exec", name, *torchrun, *place, "-m", "spanelectra.cli", "pretrain", *arguments]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.processes.append(process)
        return self.processes


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` here")
    hosts = Hosts()
    try:
        hosts.connect()
    except subprocess.CalledProcessError as error:
        hosts.remove()
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode()}")
    yield hosts
    hosts.remove()


def wait_for(processes: list[subprocess.Popen[bytes]], seconds: float) -> list[str]:
    """What the processes said, once all have ended."""
    return [process.communicate(timeout=seconds)[1].decode() for process in processes]


def test_they_train_to_the_bit_like_two_processes_of_one_host(rows: Path, tmp_path: Path, hosts: Hosts) -> None:
    settings: dict[str, Any] = {"logging_steps": 1, "dropout": 0.1, "save_steps": 3}
    processes = hosts.launch("--recipe", write_recipe(small_run(rows, tmp_path / "two", **settings), tmp_path))
    said = wait_for(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], said
    recipe = write_recipe(small_run(rows, tmp_path / "one", **settings), tmp_path)
    launcher = ("--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
    process = start_command("--recipe", recipe, launcher=launcher)
    (errors,) = wait_for([process], 300)
    assert process.returncode == 0, errors
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    lines = [[losses_of(line) for line in read_lines(tmp_path / name)] for name in ("two", "one")]
    assert lines[0] == lines[1] and len(lines[0]) == 6


def test_a_cable_that_is_pulled_ends_both_and_the_run_goes_on_later(
    rows: Path, tmp_path: Path, hosts: Hosts, record_property: Callable[[str, object], None]
) -> None:
    settings = small_run(rows, tmp_path / "run", max_steps=100_000, save_steps=5, eval_steps=0, ddp_timeout=20)
    processes = hosts.launch("--recipe", write_recipe(settings, tmp_path))
    deadline = time.monotonic() + 240
    while not list_checkpoints(tmp_path / "run"):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.1)
    hosts.pull_the_cable()
    pulled = time.monotonic()
    said = wait_for(processes, 120)
    record_property("seconds to the end", time.monotonic() - pulled)
    assert all(process.returncode != 0 for process in processes)
    assert any("another one has ended or does not answer" in text for text in said), said
    checkpoint, passed_over = newest_complete_checkpoint(tmp_path / "run")
    assert checkpoint is not None and not passed_over
