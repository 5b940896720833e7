"""What docs/reliability.md promises: each line with its tests, and its figure from what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checked_out import ROOT, at

RESULTS = ROOT / "docs" / "reliability.json"


def read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


@dataclass(frozen=True)
class Promise:
    """A line of the table.

    Attributes:
        text: what is promised.
        tests: as pytest calls them, from `tests`; without parameters, all cases.
        figure: what was measured, in words, from :class:`Figures`.
    """

    text: str
    tests: tuple[str, ...]
    figure: Callable[[Figures], str] = lambda figures: ""


class Figures:
    """What was measured so far."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = read_json(RESULTS).get("tests", {})
        storms = read_json(ROOT / "docs" / "kill_storm.json")
        self.storm: dict[str, Any] = storms.get("commands", {})
        self.storm_at = at(storms)
        self.fuzzing: dict[str, Any] = read_json(ROOT / "docs" / "fuzz.json")

    def measured(self, test: str, name: str, places: int = 1) -> str:
        """The largest of what the cases of a test measured under a name."""
        values = self.tests.get(test, {}).get("measured", {}).get(name, [])
        return f"{max(values):.{places}f}" if values else "(not measured yet)"

    def largest(self, test: str, name: str) -> str:
        """The same in powers of ten."""
        values = self.tests.get(test, {}).get("measured", {}).get(name, [])
        return f"{max(values):.1e}" if values else "(not measured yet)"


def _of_storms(figures: Figures, names: tuple[str, ...]) -> str:
    storms = [figures.storm[name] for name in names]
    kills, inside, lost = (sum(s[key] for s in storms) for key in ("kills", "inside_a_write", "complete_bytes_lost"))
    finished = sum(s["finished"] for s in storms)
    return (
        f"{kills} kills, {inside} of them proven to fall inside a write; {lost} complete directories damaged or lost; "
        f"{finished} times the command finished, equal to the bit to one that nobody disturbed "
        f"(measured {figures.storm_at})"
    )


def _of_fuzzing(figures: Figures) -> str:
    if not figures.fuzzing:
        return "(not measured yet)"
    total, readers, promised = (figures.fuzzing[key] for key in ("total", "readers", "promised"))
    found = sum(len(reader["mended"]) + len(reader["open"]) for reader in readers.values())
    left = sum(len(reader["open"]) for reader in readers.values())
    return (
        f"{_counted(total['cases'], 'file')} for {len(readers)} of {_counted(len(promised), 'reader')}, "
        f"{_counted(round(total['processor_seconds'] / 60), 'minute')} of processor time "
        f"({total['seconds'] / 60:.0f} by the clock on a busy machine); {_counted(found, 'kind')} of defect found, "
        f"{left} open"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _of_terminations(figures: Figures) -> str:
    storm = figures.storm["pretrain"]
    return (
        f"{storm['terminations']} SIGTERMs at random moments; the slowest took "
        f"{storm['slowest_termination_seconds']:.1f} s (measured {figures.storm_at})"
    )


PROCESSES = "test_several_processes.py::"
MEMORY = "test_hostile_input.py::TestMemory::"
PROMISES = {
    "Exact resume": (
        Promise(
            "A run ended by `kill -9`, SIGTERM or Ctrl-C and resumed has the weights and held-out metrics, to the bit, "
            "of one that was not; over the end of an epoch, with loader processes and without",
            ("test_pretraining.py::test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not",),
        ),
        Promise(
            "So in every stage (joint, generator, discriminator, on corrupted rows), with 0 and 2 loader processes and "
            "accumulated gradients: parameters, optimiser, every logged number; the history without gaps or repeats",
            ("test_pretraining.py::test_every_stage_goes_on_to_the_bit_and_over_the_end_of_an_epoch",),
        ),
        Promise(
            "Fine-tuning: finished seeds are kept; one that was interrupted by `kill -9`, SIGTERM or Ctrl-C is trained "
            "anew, to the same bits",
            (
                "finetuning/test_fine_tuning.py::test_a_signal_keeps_finished_seeds_and_the_run_goes_on",
                "finetuning/test_fine_tuning.py::test_a_killed_run_goes_on_to_the_same_end",
            ),
        ),
        Promise(
            "SIGTERM writes a checkpoint and exits with 143 within seconds",
            ("test_callbacks.py::TestSignals::test_the_first_one_ends_the_step_with_a_checkpoint",),
            _of_terminations,
        ),
        Promise(
            "A run needs nothing but its directory and its rows: it goes on after it was moved, from elsewhere, "
            "without the generator, encoder or recipe it started from; where its probe's tasks are gone it says "
            "so and goes on",
            ("test_run_directory.py::TestResuming", "test_run_directory.py::TestPaths"),
        ),
    ),
    "Atomic checkpoints": (
        Promise(
            "Pull the plug on `pretrain` at any moment, in the middle of a write, too: no complete checkpoint is lost",
            ("test_atomic_files.py::test_a_writer_killed_at_any_moment_of_replacing_loses_nothing",),
            lambda figures: _of_storms(figures, ("pretrain",)),
        ),
        Promise(
            "Weights in safetensors, the rest opens with `weights_only=True`; no pickle anywhere",
            (
                "test_trainer.py::TestCheckpoints::test_what_is_in_one",
                "test_trainer.py::TestCheckpoints::test_no_other_file_of_the_run_is_a_pickle",
            ),
        ),
        Promise(
            "A damaged checkpoint is named and passed over; a flipped bit in any file is damage",
            (
                "test_pretraining.py::test_a_damaged_checkpoint_is_named_and_passed_over",
                "test_checkpointing.py::test_a_damaged_newest_checkpoint_is_passed_over_by_name",
                "test_atomic_files.py::test_one_flipped_bit_in_any_file_is_found",
            ),
        ),
        Promise(
            "The newest N checkpoints and the best one are kept",
            (
                "test_trainer.py::TestCheckpoints::test_the_newest_are_kept",
                "test_trainer.py::TestCheckpoints::test_the_best_one_is_kept_besides_and_found_again_after_a_kill",
            ),
        ),
        Promise(
            "A full disk, a spent quota or a limit on file sizes ends any command with a sentence, keeps what was "
            "complete, and the run goes on to the same bits once there is room",
            ("test_full_disk.py",),
        ),
    ),
    "The other commands": (
        Promise(
            "`vocab`, `prepare` and `corrupt`, killed half-way, leave nothing that opens; running again finishes",
            (
                "test_atomic_files.py::test_a_command_killed_in_a_write_leaves_nothing_that_opens_and_finishes_later",
                "data/test_packing.py::test_a_killed_run_leaves_nothing_that_opens",
                "test_corruption.py::test_a_kill_half_way_leaves_nothing_that_opens",
            ),
            lambda figures: _of_storms(figures, ("vocab", "prepare", "corrupt")),
        ),
    ),
    "Several processes": (
        Promise(
            "The same rows in every step, each once an epoch, on 1, 2 and 4 processes, and the same losses: "
            "micro-batches are the same ones, and gradients are added up in another order",
            (f"{PROCESSES}test_every_row_is_seen_once_an_epoch_and_in_the_same_step_by_however_many",),
            lambda figures: (
                "losses of 1, 2 and 4 processes differ by at most a part of "
                + figures.largest(
                    f"{PROCESSES}test_every_row_is_seen_once_an_epoch_and_in_the_same_step_by_however_many",
                    "relative difference of losses",
                )
                + " (tolerance 1e-4: some 1e-7 a step by rounding, which training magnifies)"
            ),
        ),
        Promise(
            "Twice the micro-batch on one process is alike, but not the same: each loss is a mean over the tokens of "
            "its own micro-batch",
            ("test_trainer.py::TestTwoProcesses::test_they_train_like_one_with_twice_the_batch",),
            lambda figures: "tolerance 5%",
        ),
        Promise(
            "A checkpoint of 2 processes resumes on 2 to the bit, on 1 and on 4 with the same rows and losses",
            (f"{PROCESSES}test_a_checkpoint_of_two_processes_resumes_on_one_and_on_four",),
            lambda figures: (
                "after six more steps weights differ by "
                + figures.largest(
                    f"{PROCESSES}test_a_checkpoint_of_two_processes_resumes_on_one_and_on_four", "share of the way"
                )
                + " of the way they went"
            ),
        ),
        Promise(
            "One process killed ends the others in less than a minute, with an error that says so",
            (f"{PROCESSES}test_one_process_killed_ends_the_others_in_less_than_a_minute",),
            lambda figures: (
                figures.measured(
                    f"{PROCESSES}test_one_process_killed_ends_the_others_in_less_than_a_minute", "seconds to the end"
                )
                + " s at most, of 2 and of 4"
            ),
        ),
        Promise(
            "Two hosts train to the bit like two processes of one",
            ("test_two_hosts.py::test_they_train_to_the_bit_like_two_processes_of_one_host",),
            lambda figures: "two network namespaces and a cable between them",
        ),
        Promise(
            "A cable that is pulled ends both, and the newest checkpoint is whole",
            ("test_two_hosts.py::test_a_cable_that_is_pulled_ends_both_and_the_run_goes_on_later",),
            lambda figures: (
                figures.measured(
                    "test_two_hosts.py::test_a_cable_that_is_pulled_ends_both_and_the_run_goes_on_later",
                    "seconds to the end",
                )
                + " s with `--ddp_timeout 20`"
            ),
        ),
        Promise(
            "Launchers that would shard the model are refused with a sentence; why there is no FSDP: docs/scaling.md",
            (
                f"{PROCESSES}test_a_launcher_that_would_split_the_model_up_is_refused",
                f"{PROCESSES}test_torch_shards_the_model_over_processors",
            ),
        ),
    ),
    "Numerical safety": (
        Promise(
            "A step whose loss or gradient is not a number changes nothing and is counted; without waiting for "
            "the device",
            ("test_numerical_safety.py::TestLeavingOut", "test_numerical_safety.py::TestCounting"),
        ),
        Promise(
            "After `--max_nonfinite_steps` (10) in a row the run goes back to its last good checkpoint at half the "
            "learning rate; after `--max_rollbacks` (3) it stops with a diagnosis; killed in between it is the same "
            "run",
            ("test_numerical_safety.py::TestGoingBack", "test_numerical_safety.py::TestWhereTo"),
        ),
        Promise(
            "Of several processes all leave out the same steps",
            ("test_numerical_safety.py::test_of_two_processes_both_leave_out_and_go_back_where_one_is_broken",),
        ),
        Promise("Spikes of a loss are flagged where they begin", ("test_health.py::TestSpikes",)),
    ),
    "Hostile files": (
        Promise(
            "Whatever is in a file, its reader takes it or refuses it by a sentence, in bounded time and memory, and "
            "writes nothing outside: text, compressed text, jsonl, csv, tsv, parquet, tables, CoNLL, SQuAD, YAML, "
            "histories, tokenizers, rows, corrupted rows, every file of a checkpoint",
            ("test_hostile_input.py::TestMutations", "test_hostile_input.py::TestFound"),
            _of_fuzzing,
        ),
        Promise(
            "Nothing in a file is executed: pickles, code beside a model, YAML's tags",
            (
                "test_hostile_input.py::TestNothingInAFileIsExecuted",
                "test_dependencies.py::test_nothing_in_the_source_opens_pickles_or_foreign_code",
            ),
        ),
        Promise(
            "Nothing is written outside the output directory, whatever files, columns, labels or templates are called",
            ("test_hostile_input.py::TestNothingIsWrittenOutside",),
        ),
        Promise(
            "Memory stays bounded: compressed bombs, a line of 5 GB (text is read in parts, records are refused), "
            "models of absurd size",
            (
                f"{MEMORY}test_a_bomb",
                f"{MEMORY}test_a_single_frame_of_blocks_that_stand_for_much",
                f"{MEMORY}test_a_parquet_file_that_says_one_long_text_over_and_over",
                f"{MEMORY}test_five_gigabytes_of_nothing_in_a_line",
                f"{MEMORY}test_a_line_of_five_gigabytes",
                f"{MEMORY}test_a_configuration_of_a_model_that_no_machine_holds",
            ),
            lambda figures: (
                f"bombs of 512 MiB: {figures.measured(f'{MEMORY}test_a_bomb', 'peak MiB', 0)} MiB at most; of 5 GB: "
                f"{figures.measured(f'{MEMORY}test_a_line_of_five_gigabytes', 'peak MiB', 0)} MiB"
            ),
        ),
    ),
    "The supply chain": (
        Promise(
            "Every dependency is pinned to one version, and its licence permissive (docs/licences.md)",
            (
                "test_dependencies.py::test_every_dependency_is_pinned_to_one_version",
                "test_dependencies.py::test_every_licence_is_known_and_permissive",
            ),
        ),
    ),
}
