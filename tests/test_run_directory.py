"""A run's directory: nothing of value is lost to a new run, and an interrupted one goes on, wherever it is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from small_runs import read_lines, small_run, weights, write_recipe
from spanelectra.atomic_files import seal
from spanelectra.callbacks import RunStopped
from spanelectra.checkpointing import own_names
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError
from spanelectra.pretraining import pretrain
from spanelectra.run_directory import settings_to_start
from spanelectra.training_args import PretrainingArguments
from tiny_tasks import write_task


@pytest.fixture(scope="module")
def finished_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied."""
    run = tmp_path_factory.mktemp("finished") / "run"
    pretrain(small_run(rows, run, tensorboard=True))
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def resume(run: Path, **settings: Any) -> dict[str, Any]:
    return pretrain(PretrainingArguments(**{"resume": str(run), "quiet": True, **settings}))


def interrupt(run: Path) -> None:
    """Leave what a kill after the first of two checkpoints leaves."""
    for name in ("model", "checkpoint-6"):
        shutil.rmtree(run / name)
    (run / "metrics.json").unlink()


class TestOverwriting:
    """An earlier run is deleted by those who ask for it, as late as can be, and nothing else ever."""

    def test_a_run_is_not_overwritten_unasked(self, rows: Path, run: Path) -> None:
        before = files_of(run)
        with pytest.raises(UserError, match=r"holds a run already.*--resume"):
            pretrain(small_run(rows, run))
        assert files_of(run) == before

    def test_what_is_left_of_a_run_cannot_be_gone_on_with(self, rows: Path, run: Path) -> None:
        (run / "config.yaml").unlink()
        with pytest.raises(UserError, match=r"holds parts of a run already\. Choose another .*--overwrite"):
            pretrain(small_run(rows, run))

    def test_a_run_is_replaced_whole(self, rows: Path, run: Path) -> None:
        (run / ".partial-checkpoint-9").mkdir()
        pretrain(small_run(rows, run, overwrite=True, max_steps=2))
        left = {"checkpoint-2", "config.yaml", "environment.json", "metrics.json", "metrics.jsonl", "model"}
        assert {entry.name for entry in run.iterdir()} == left | {"start.json", "tokenizer"}

    @pytest.mark.parametrize(
        "settings",
        [
            {"num_attention_heads": 3},
            {"sharing": "encoder", "generator_size": 0.5},
            {"mask_ratio": 0.9},
            {"data": "nowhere"},
            {"init_from": "nowhere"},
            {"lr_scheduler_type": "liner"},
        ],
    )
    def test_a_mistake_in_the_new_settings_costs_nothing(self, rows: Path, run: Path, settings: dict[str, Any]) -> None:
        before = files_of(run)
        with pytest.raises(ValueError):
            pretrain(small_run(**{"rows": rows, "out_dir": run, "overwrite": True, **settings}))
        assert files_of(run) == before

    @pytest.mark.parametrize("path", ["thesis.txt", "export/model.safetensors", "checkpoint-best/a", "config.json"])
    def test_a_run_with_foreign_files_in_it(self, rows: Path, run: Path, path: str) -> None:
        (run / path).parent.mkdir(exist_ok=True)
        (run / path).write_text("years of work")
        before = files_of(run)
        with pytest.raises(UserError, match=rf"holds other files \('{path.split('/')[0]}'\)"):
            pretrain(small_run(rows, run, overwrite=True))
        assert files_of(run) == before

    def test_a_directory_with_something_else_in_it(self, rows: Path, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.txt").write_text("years of work")
        for overwrite in (False, True):
            with pytest.raises(UserError, match="holds other files"):
                pretrain(small_run(rows, tmp_path / "run", overwrite=overwrite))
        assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"

    def test_own_names(self, run: Path) -> None:
        assert set(own_names(run)) == {entry.name for entry in run.iterdir()}
        for name in ("config.yml", "checkpoint-", "checkpoint-5a", ".partial-thesis", "my-model"):
            (run / name).touch()
        assert len(own_names(run)) == len(list(run.iterdir())) - 5
        assert own_names(run / "nowhere") == []


class TestWhatIsReadIsNotWrittenOver:
    """out_dir and what the run reads are apart."""

    @pytest.mark.parametrize(
        ("out_dir", "relation"), [("rows", "is"), ("rows/run", "lies in"), (".", "holds"), ("link/run", "lies in")]
    )
    @pytest.mark.parametrize("name", ["data", "generator", "init_from"])
    def test_directories(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out_dir: str, relation: str, name: str
    ) -> None:
        shutil.copytree(rows, tmp_path / "rows")
        (tmp_path / "link").symlink_to("rows")
        monkeypatch.chdir(tmp_path)
        before = files_of(tmp_path)
        settings = {"rows": rows, "out_dir": Path(out_dir), "overwrite": True, name: "rows"}
        if name == "generator":
            settings["stage"] = "discriminator"
        with pytest.raises(UserError, match=rf"--out_dir \S+ {relation} --{name} \S+rows"):
            pretrain(small_run(**settings))
        assert files_of(tmp_path) == before

    def test_the_generator_of_a_run_may_be_named_by_its_model(self, rows: Path, generator_run: Path) -> None:
        before = files_of(generator_run)
        settings = {"stage": "discriminator", "generator": str(generator_run / "model"), "overwrite": True}
        with pytest.raises(UserError, match="holds --generator"):
            pretrain(small_run(rows, generator_run, **settings))
        assert files_of(generator_run) == before

    def test_the_recipe(self, rows: Path, run: Path) -> None:
        settings = small_run(rows, run, recipe=str(run / "config.yaml"), overwrite=True)
        before = files_of(run)
        with pytest.raises(UserError, match="holds the recipe"):
            pretrain(settings)
        assert files_of(run) == before


class TestPaths:
    """A run's settings mean the same wherever and by whomever they are read."""

    def test_paths_are_stored_absolute(self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "rows").symlink_to(rows)
        (tmp_path / "mine.yaml").write_text("max_steps: 2\n")
        monkeypatch.chdir(tmp_path)
        pretrain(small_run(Path("rows"), Path("run"), max_steps=2, recipe="mine.yaml"))
        stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert (stored["data"], stored["out_dir"]) == (str(rows), str(tmp_path / "run"))
        assert stored["recipe"] == str(tmp_path / "mine.yaml")

    def test_a_tilde_is_the_home_directory(self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "rows").symlink_to(rows)
        monkeypatch.setenv("HOME", str(tmp_path))
        pretrain(small_run(Path("~/rows"), Path("~/run"), max_steps=2))
        assert (tmp_path / "run" / "metrics.json").is_file()
        assert resume(Path("~/run"))["steps"] == 2

    def test_a_name_of_the_hub_and_a_shipped_recipe_stay_names(self, tmp_path: Path) -> None:
        names = {"init_from": "google/electra-small-discriminator", "recipe": "tiny"}
        settings = settings_to_start(PretrainingArguments(data="x", out_dir=str(tmp_path), **names))
        assert {name: getattr(settings, name) for name in names} == names


class TestResuming:
    """A run goes on as it was begun, needing no more than its own directory and its rows."""

    @pytest.mark.parametrize(
        "settings", [{"max_steps": 9}, {"learning_rate": 1.0, "max_steps": 9}, {"overwrite": True}, {"recipe": "tiny"}]
    )
    def test_other_settings_are_refused_by_name(self, run: Path, settings: dict[str, Any]) -> None:
        with pytest.raises(UserError, match="a resumed run keeps its own settings") as refused:
            resume(run, **settings)
        assert all(f"--{name}" in str(refused.value) for name in settings) and "quiet" not in str(refused.value)

    def test_where_no_run_is(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no run there"):
            resume(tmp_path)
        with pytest.raises(UserError, match="gone: is no directory"):
            resume(tmp_path / "gone")
        (tmp_path / "config.yaml").write_text("method: bert\n")
        with pytest.raises(UserError, match=rf"checkpoint-4: .* Did you mean '{tmp_path}'\?"):
            resume(tmp_path / "checkpoint-4")
        (tmp_path / "config.yaml").write_text("task: classification\n")
        with pytest.raises(UserError, match="is a fine-tuning run: repeat its `spanelectra finetune`"):
            resume(tmp_path)

    def test_in_another_directory_with_the_run_moved(
        self, rows: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "there").mkdir()
        monkeypatch.chdir(rows.parent)
        pretrain(small_run(Path(rows.name), tmp_path / "run", tensorboard=True))
        interrupt(tmp_path / "run")
        monkeypatch.chdir(tmp_path / "there")
        (tmp_path / "run").rename("moved")
        resume(Path("moved"))
        assert weights(Path("moved")) == weights(finished_run) and not (tmp_path / "run").exists()

    def test_without_the_recipe_and_with_its_alarms(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(rows, tmp_path / "run", method="bert")
        recipe = write_recipe(settings, tmp_path)
        settings.recipe, settings.sbpo_weight = recipe, 3.0
        first = pretrain(settings)
        assert len(first["alarms"]) == 1
        interrupt(tmp_path / "run")
        Path(recipe).unlink()
        again = resume(tmp_path / "run")
        assert again["alarms"] == first["alarms"] and again["held_out"] == first["held_out"]

    @pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"sampling_source": "mixed"}])
    def test_a_discriminator_without_the_generator_that_it_started_from(
        self, rows: Path, generator_run: Path, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        shutil.copytree(generator_run, tmp_path / "generator")
        settings = {"stage": "discriminator", "generator": str(tmp_path / "generator"), "dropout": 0.1, **settings}
        first = pretrain(small_run(rows, tmp_path / "run", **settings))
        digest = weights(tmp_path / "run")
        interrupt(tmp_path / "run")
        shutil.rmtree(tmp_path / "generator")
        assert resume(tmp_path / "run")["held_out"] == first["held_out"]
        assert weights(tmp_path / "run") == digest

    @pytest.mark.parametrize("sharing", ["embeddings", "gradient_disentangled", "none"])
    def test_without_the_encoder_that_it_continues(
        self, rows: Path, generator_run: Path, tmp_path: Path, sharing: str
    ) -> None:
        from spanelectra.export import export

        export(str(generator_run), str(tmp_path / "export"), quiet=True)
        shutil.copytree(tmp_path / "export" / "generator", tmp_path / "encoder")
        settings = {"init_from": str(tmp_path / "encoder"), "sharing": sharing}
        first = pretrain(small_run(rows, tmp_path / "run", **settings))
        digest = weights(tmp_path / "run")
        interrupt(tmp_path / "run")
        shutil.rmtree(tmp_path / "encoder")
        assert resume(tmp_path / "run")["held_out"] == first["held_out"]
        assert weights(tmp_path / "run") == digest

    def test_with_the_tasks_of_its_probe_named_from_elsewhere_and_without_them(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "there" / "tasks").mkdir(parents=True)
        write_task(tmp_path / "there" / "tasks" / "good", "classification", train=20, dev=10)
        monkeypatch.chdir(tmp_path / "there")
        first = pretrain(small_run(rows, tmp_path / "run", probe_tasks="tasks", probe_steps=3))
        digest, probes = weights(tmp_path / "run"), read_lines(tmp_path / "run", "probe_good")
        assert [line["step"] for line in probes] == [3, 6]

        interrupt(tmp_path / "run")
        monkeypatch.chdir(tmp_path)
        assert resume(tmp_path / "run")["alarms"] == first["alarms"]
        found = read_lines(tmp_path / "run", "probe_good")
        assert [line["probe_good"] for line in found] == [line["probe_good"] for line in probes]

        interrupt(tmp_path / "run")
        shutil.rmtree(tmp_path / "there")
        again = resume(tmp_path / "run", quiet=False)
        # without the path, which is said, and kept out of what an export publishes
        sentence = "the encoder is probed no more, for its tasks are not what they were at the start."
        assert again["alarms"][-1] == sentence and "ALARM the encoder is probed no more" in capsys.readouterr().err
        assert [line["step"] for line in read_lines(tmp_path / "run", "probe_good")] == [3]
        assert weights(tmp_path / "run") == digest and again["held_out"] == first["held_out"]

    def test_with_other_rows(self, rows: Path, other_rows: Path, tmp_path: Path) -> None:
        shutil.copytree(rows, tmp_path / "rows")
        pretrain(small_run(tmp_path / "rows", tmp_path / "run"))
        interrupt(tmp_path / "run")
        before = files_of(tmp_path / "run")

        shutil.rmtree(tmp_path / "rows")
        shutil.copytree(other_rows, tmp_path / "rows")
        with pytest.raises(UserError, match=r"has changed since the run was started \(tokenizer"):
            resume(tmp_path / "run")

        shutil.rmtree(tmp_path / "rows")
        shutil.copytree(rows, tmp_path / "rows")
        drop_last_row(tmp_path / "rows")
        count = len(RowDataset(rows))
        with pytest.raises(UserError, match=rf"\(rows: {count - 1}, then {count}\)"):
            resume(tmp_path / "run")
        assert files_of(tmp_path / "run") == before

    def test_a_run_from_before_its_start_was_written_down(self, rows: Path, run: Path, finished_run: Path) -> None:
        interrupt(run)
        (run / "start.json").unlink()
        resume(run)
        assert weights(run) == weights(finished_run)

    def test_a_run_is_one_once_all_that_resuming_needs_is_there(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: Any) -> None:
            raise RunStopped(9)

        with monkeypatch.context() as patched:
            patched.setattr("spanelectra.run_directory.write_text", killed)
            with pytest.raises(RunStopped):
                pretrain(small_run(rows, tmp_path / "run"))
        assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [
            "environment.json",
            "start.json",
            "tokenizer",
        ]
        with pytest.raises(UserError, match="no run there"):
            resume(tmp_path / "run")
        # nor is it in the way of the same command, which replaces what it knows
        (tmp_path / "run" / "notes.txt").touch()
        with pytest.raises(UserError, match="holds other files"):
            pretrain(small_run(rows, tmp_path / "run", max_steps=2))
        (tmp_path / "run" / "notes.txt").rename(tmp_path / "run" / "metrics.json")
        with pytest.raises(UserError, match="is not empty"):
            pretrain(small_run(rows, tmp_path / "run", max_steps=2))
        (tmp_path / "run" / "metrics.json").unlink()
        pretrain(small_run(rows, tmp_path / "run", max_steps=2))

    def test_a_directory_with_a_tokenizer_alone_is_no_start_of_a_run(self, rows: Path, tmp_path: Path) -> None:
        shutil.copytree(rows / "tokenizer", tmp_path / "run" / "tokenizer")
        with pytest.raises(UserError, match="is not empty"):
            pretrain(small_run(rows, tmp_path / "run"))

    def test_processes_that_cannot_share_a_step_are_refused(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretrain(small_run(rows, tmp_path / "run"))
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(UserError, match=r"3 processes cannot share the 4 rows of a step evenly"):
            pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))

    @pytest.mark.parametrize("name", ["metrics.json", "environment.json", "rollbacks.json", "start.json"])
    def test_a_file_of_the_run_that_is_none_is_named(self, run: Path, name: str) -> None:
        if name == "start.json":
            interrupt(run)
        for content in (b"", b"\xff" * 5000, b"[" * 100_000, b"7", b"[{}]"):
            (run / name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{name} is damaged") as refused:
                resume(run)
            assert len(str(refused.value)) < 500

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"global_step": 5, "log_history": []}', '{"unknown": 1}', "[" * 100_000]
    )
    def test_a_state_that_is_none_is_named(self, run: Path, content: str) -> None:
        checkpoint = run / "checkpoint-6"
        (run / "metrics.json").unlink()
        (checkpoint / "trainer_state.json").write_text(content)
        seal(checkpoint)
        with pytest.raises(UserError, match=r"checkpoint-6/trainer_state\.json is not the state of this checkpoint"):
            resume(run)
        shutil.rmtree(checkpoint)
        resume(run)


def drop_last_row(directory: Path) -> None:
    """Make the training split a row shorter."""
    metadata = json.loads((directory / "dataset.json").read_text())
    metadata["splits"]["train"]["rows"] -= 1
    (directory / "dataset.json").write_text(json.dumps(metadata))
    file = directory / "train.bin"
    file.write_bytes(file.read_bytes()[: metadata["splits"]["train"]["rows"] * 32 * 2])
