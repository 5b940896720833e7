"""Commands that leave at once what the real ones leave after hours."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_tier import SMALL, write_tier

from efficiency import run as program
from efficiency.tiers import read_tier
from efficiency.units import Command, Places
from efficiency.workers import Workers
from spanelectra.atomic_files import write_directory


class FakeProcess:
    """Writes what a command would leave: settings at once, results when it is looked at often enough."""

    processor_seconds = 1.0

    def __init__(self, command: Command, log: Path, fails: bool, look: Callable[[], None]) -> None:
        log.write_text("a loss that is no number\n", encoding="utf-8")
        self.command, self.fails, self.look, self.looks, self.told = command, fails, look, 0, False
        words = dict(itertools.pairwise(command.words))
        self.out = Path(words.get("--out_dir") or words.get("--resume") or words["--out"])
        if not self.out.suffix:
            self.out.mkdir(exist_ok=True)
        if "--max_steps" in words:
            names = ("learning_rate", "muon_learning_rate", "max_steps", "seed")
            lines = [f"{name}: {words[f'--{name}']}\n" for name in names]
            (self.out / "config.yaml").write_text("".join(lines), encoding="utf-8")

    def poll(self) -> int | None:
        self.look()
        self.looks += 1
        if self.told:
            return 143
        if self.looks < 3:
            return None
        if self.fails:
            return 1
        self._write_results()
        return 0

    def terminate(self) -> None:
        self.told = True

    kill = terminate

    def _write_results(self) -> None:
        kind = self.command.words[0]
        if kind == "probe":
            result = {"metric": "accuracy", "layers": [1.0, 2.0], "fresh_layers": [0.5, 0.5]}
            self.out.write_text(json.dumps({"tasks": {"sst2": result}}), encoding="utf-8")
            return
        content: dict[str, Any] = {"metric": "f1", "collapsed": [], "summary": {"dev": {}}}
        content["runs"] = [{"dev": {"f1": 40.0}}]
        if "--test" in self.command.words:
            content["summary"]["test"] = {}
            content["runs"] = [{"dev": {"f1": 40.0}, "test": {"f1": 30.0}}]
        if kind == "pretrain":
            numbers = ("steps", "tokens", "training_flops", "wall_seconds", "tokens_per_second")
            content = {**dict.fromkeys(numbers, 7), "held_out": {"mlm_loss": 1.0}, "alarms": []}
            content["unigram_cross_entropy"] = 2.0
            with write_directory(self.out / "model", replace=True) as partial:
                (partial / "weights").write_text("weights", encoding="utf-8")
        (self.out / "metrics.json").write_text(json.dumps(content), encoding="utf-8")


class FakeRunner:
    """An experiment whose commands are fakes; remembers all of them."""

    def __init__(self, tmp_path: Path, rows: Path, only: str, fails: str = "nothing", tier_text: str = SMALL) -> None:
        for name in ("train.tsv", "dev.tsv", "test.tsv"):
            (tmp_path / name).write_text(name, encoding="utf-8")
        places = Places(rows, tmp_path, tmp_path / "work")
        tier = read_tier(write_tier(tmp_path, tier_text))
        self.experiment = program.Experiment(tier, places, tmp_path / "results.jsonl", program.read_filters(only, tier))
        self.commands: list[tuple[str, ...]] = []
        self.said: list[str] = []
        self.fails = fails

    def run(self, stop_at: int | None = None, look: Callable[[], None] = lambda: None) -> Workers:
        """Run what is left, or until so many commands were started; ``look`` is called at every look at one."""

        def launch(command: Command, log: Path) -> FakeProcess:
            self.commands.append(command.words)
            if stop_at is not None and len(self.commands) >= stop_at:
                workers.stop()
            return FakeProcess(command, log, self.fails in str(log), look)

        experiment = self.experiment
        workers = Workers(
            2,
            experiment.next_unit,
            experiment.next_command,
            experiment.finish,
            launch,
            self.said.append,
            experiment.failed_name,
            interval=0.0,
        )
        workers.run()
        return workers
