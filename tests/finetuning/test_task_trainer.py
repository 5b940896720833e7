"""The trainer: the seed decides everything, dev is scored when it should be, and the best weights are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from factories import encoder_config
from spanelectra.callbacks import TrainingDiverged
from spanelectra.console import make_console
from spanelectra.finetuning import task_trainer
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.inference import predict_logits
from spanelectra.finetuning.task_trainer import FineTuningTrainer, default_learning_rate, use_bfloat16
from spanelectra.finetuning.text_examples import read_examples
from tiny_tasks import make_tokenizer, quick

COUNT = 32


def features(tiny: Path, name: str, count: int = COUNT) -> list[dict[str, Any]]:
    """Features of the classification task, with labels."""
    settings = FineTuningArguments(task="classification").resolved()
    path = str(tiny / "classification" / f"{name}.tsv")
    examples = read_examples(path, settings, labelled=True).examples
    tokenizer = make_tokenizer()
    return [
        {**tokenizer(example.text), "labels": int(example.label == "good"), "example": number}
        for number, example in enumerate(examples[:count])
    ]


def make_trainer(
    tiny: Path, seed: int = 0, scores: list[float] | None = None, dropout: float = 0.1, **settings: Any
) -> FineTuningTrainer:
    """A trainer of a tiny ModernBERT; dev's accuracy, or the next of ``scores``, is the metric."""
    dev = features(tiny, "dev")
    given = iter(scores or ())

    def score_dev(logits: Sequence[Any]) -> dict[str, float]:
        right = [int(values.argmax() == feature["labels"]) for values, feature in zip(logits, dev, strict=True)]
        return {"accuracy": next(given) if scores else 100 * sum(right) / len(right), "other": 1.0}

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(encoder_config("modernbert", dropout=dropout))
    tokenizer = make_tokenizer()
    resolved = quick(tiny, {"train": "t.tsv", "dev": "d.tsv"}, tiny / "out", batch_size=8, **settings).resolved()
    return FineTuningTrainer(
        model=model,
        tokenizer=tokenizer,
        settings=resolved,
        train_features=features(tiny, "train"),
        dev_features=[{name: value for name, value in feature.items() if name != "labels"} for feature in dev],
        collate=lambda batch: tokenizer.pad(batch, return_tensors="pt"),
        score_dev=score_dev,
        metric="accuracy",
        seed=seed,
        out_dir=str(tiny / "out"),
        console=make_console(quiet=True),
    )


def weights(trainer: FineTuningTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_the_seed_decides_everything_and_nothing_else(tiny: Path) -> None:
    found = []
    for seed, drawn in ((0, 0), (0, 5), (1, 0)):
        trainer = make_trainer(tiny, seed, epochs=2)
        # whatever others draw meanwhile
        torch.randn(drawn)
        trainer.fit()
        found.append((weights(trainer), trainer.best.history))
    for name, tensor in found[0][0].items():
        assert torch.equal(tensor, found[1][0][name])
    assert found[0][1] == found[1][1] != found[2][1]
    assert not list((tiny / "out").glob("*"))


def test_the_best_weights_are_put_back(tiny: Path) -> None:
    trainer = make_trainer(tiny, scores=[50.0, 80.0, 80.0, 60.0])
    kept: list[dict[str, torch.Tensor]] = []
    score = trainer.score_dev
    trainer.score_dev = lambda logits: (kept.append(weights(trainer)), score(logits))[1]
    trainer.fit()
    assert (trainer.best.score, trainer.best.step) == (80.0, 8)
    assert [entry["step"] for entry in trainer.best.history] == [4, 8, 12, 16]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in trainer.model.state_dict().items())
    assert any(not torch.equal(tensor, kept[3][name]) for name, tensor in trainer.model.state_dict().items())


def test_losses_are_means_over_all_steps_since_the_last_evaluation(tiny: Path) -> None:
    trainer = make_trainer(tiny, epochs=2)
    trainer.fit()
    steps = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 8
    found = [entry["loss"] for entry in trainer.best.history]
    assert found == pytest.approx([sum(steps[:4]) / 4, sum(steps[4:]) / 4])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 2}, [4, 8]),
        ({"epochs": 1.5}, [4, 6]),
        ({"epochs": 0.1}, [1]),
        ({"epochs": 1, "evaluations_per_epoch": 3}, [1, 2, 3, 4]),
        ({"epochs": 1, "evaluations_per_epoch": 9}, [1, 2, 3, 4]),
    ],
)
def test_dev_is_scored_on_schedule_and_once_at_the_last_step(
    settings: dict[str, Any], expected: list[int], tiny: Path
) -> None:
    trainer = make_trainer(tiny, **settings)
    trainer.fit()
    assert [entry["step"] for entry in trainer.best.history] == expected
    assert trainer.state.global_step == expected[-1]


def test_patience_ends_a_run(tiny: Path) -> None:
    trainer = make_trainer(tiny, scores=[60.0, 70.0, 70.0, 65.0, 90.0, 90.0], epochs=6, patience=2)
    trainer.fit()
    assert [entry["step"] for entry in trainer.best.history] == [4, 8, 12, 16]
    assert trainer.best.step == 8


@pytest.mark.parametrize("step", [1, 6])
def test_a_loss_that_is_no_number_ends_the_run(step: int, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tiny, seed=3)
    compute = trainer.compute_loss

    def broken(*arguments: Any, **keywords: Any) -> Any:
        loss = compute(*arguments, **keywords)
        return loss * (math.nan if trainer.state.global_step + 1 == step else 1)

    monkeypatch.setattr(trainer, "compute_loss", broken)
    with pytest.raises(TrainingDiverged, match=rf"(loss|grad_norm) is nan at step {step} of seed 3: lower"):
        trainer.fit()


def test_the_rate_rises_and_falls_in_each_layer(tiny: Path) -> None:
    trainer = make_trainer(tiny, warmup_ratio=0.25, layerwise_lr_decay=0.5, learning_rate=1e-3)
    rates: list[list[float]] = []
    log = trainer.log

    def record(logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            rates.append(sorted({group["lr"] for group in trainer.optimizer.param_groups}))
        log(logs, start_time)

    trainer.log = record  # type: ignore[method-assign]
    trainer.fit()
    # 16 steps, 4 of them warm up; head, two layers, embeddings
    expected = [0.25, 0.5, 0.75, 1.0, *((16 - step) / 12 for step in range(5, 17))]
    for found, share in zip(rates, expected, strict=True):
        assert found == pytest.approx(sorted({1e-3 * share * 0.5**depth for depth in range(4)}))


def test_a_model_trained_in_bfloat16_answers_in_the_precision_that_is_asked_for(tiny: Path) -> None:
    trainer, dev = make_trainer(tiny, epochs=0.5, bf16="true"), features(tiny, "dev", 8)
    trainer.fit()
    alone = AutoModelForSequenceClassification.from_config(trainer.model.config)
    alone.load_state_dict(trainer.model.state_dict())
    answers = {}
    for bf16 in (False, True):
        answers[bf16] = trainer.logits(dev, bf16=bf16)
        expected = predict_logits(alone, trainer.processing_class, dev, 8, bf16=bf16)
        assert all((left == right).all() for left, right in zip(answers[bf16], expected, strict=True))
    assert any((left != right).any() for left, right in zip(*answers.values(), strict=True))


def test_defaults_of_rate_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {128: 1e-3, 192: 1e-3, 256: 3e-4, 384: 1e-4, 512: 1e-4, 768: 5e-5}
    assert {width: default_learning_rate(width) for width in rates} == rates
    for has_units in (False, True):
        monkeypatch.setattr(task_trainer, "has_bfloat16_units", lambda has_units=has_units: has_units)
        settings = [FineTuningArguments(bf16=choice) for choice in ("auto", "true", "false")]  # type: ignore[arg-type]
        assert [use_bfloat16(choice) for choice in settings] == [has_units, True, False]
