"""Metrics against slow counting: pairs for the AUC, tokens for the rest."""

from __future__ import annotations

import math

import pytest
import torch

from factories import joint_model, make_batch
from spanelectra.losses import IGNORE_INDEX
from spanelectra.metrics import PretrainingMetrics, detection_metrics


def slow_metrics(logits: list[float], replaced: list[bool]) -> dict[str, float]:
    """Every verdict and every pair of a replaced and an original token, one by one."""
    pairs = list(zip(logits, replaced, strict=True))
    hits = sum((logit > 0) == label for logit, label in pairs)
    said = [label for logit, label in pairs if logit > 0]
    found = [logit > 0 for logit, label in pairs if label]
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, is_replaced in pairs
        if is_replaced
        for low, other in pairs
        if not other
    ]
    return {
        "accuracy": hits / len(pairs),
        "majority_accuracy": max(sum(replaced), len(pairs) - sum(replaced)) / len(pairs),
        **({"precision": sum(said) / len(said)} if said else {}),
        **({"recall": sum(found) / len(found)} if found else {}),
        **({"auc": sum(wins) / len(wins)} if wins else {}),
    }


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("decimals", [1, 5])  # few decimals give many equal logits
def test_detection_metrics_equal_counting(scale, rate, decimals):
    generator = torch.Generator().manual_seed(0)
    replaced = torch.rand(150, generator=generator) < rate
    logits = scale * torch.round(torch.randn(150, generator=generator) + replaced, decimals=decimals)
    metrics = detection_metrics("ato", logits, replaced)
    expected = slow_metrics(logits.tolist(), replaced.tolist())
    assert metrics.keys() == {f"ato_{name}" for name in expected}
    for name, value in expected.items():
        assert metrics[f"ato_{name}"] == pytest.approx(value, abs=1e-6), name


def test_auc_tells_confident_logits_apart():
    # the sigmoid of all of these is 1.0 in float32
    logits, replaced = torch.tensor([20.0, 30.0, 40.0, 50.0]), torch.tensor([False, False, True, True])
    assert detection_metrics("ato", logits, replaced)["ato_auc"] == 1.0
    assert detection_metrics("ato", -logits, replaced)["ato_auc"] == 0.0


@pytest.mark.parametrize("positives", range(1, 40, 3))
def test_a_constant_verdict_has_exactly_the_majoritys_accuracy(positives):
    replaced = torch.arange(83) < positives
    metrics = detection_metrics("ato", torch.full((83,), -1.0), replaced)
    assert metrics["ato_accuracy"] == metrics["ato_majority_accuracy"]
    assert metrics["ato_auc"] == 0.5


@pytest.mark.parametrize("label", [True, False])
def test_auc_is_left_out_where_only_one_class_is_present(label):
    metrics = detection_metrics("sbpo", torch.randn(9), torch.full((9,), label))
    assert "sbpo_auc" not in metrics
    assert metrics["sbpo_majority_accuracy"] == 1.0


def test_precision_and_recall_are_left_out_where_they_are_not_defined():
    replaced = torch.arange(8) < 3
    silent = detection_metrics("ato", torch.full((8,), -1.0), replaced)
    assert "ato_precision" not in silent and silent["ato_recall"] == 0.0
    nothing_to_find = detection_metrics("ato", torch.full((8,), 1.0), torch.zeros(8, dtype=torch.bool))
    assert "ato_recall" not in nothing_to_find and nothing_to_find["ato_precision"] == 0.0


def test_nothing_scored_gives_no_metrics():
    assert detection_metrics("ato", torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == {}
    assert PretrainingMetrics().compute() == {}


def test_logits_that_are_not_finite_do_not_end_the_run_before_its_alarm():
    metrics = detection_metrics("ato", torch.full((6,), math.nan), torch.arange(6) < 2)
    assert metrics["ato_accuracy"] == pytest.approx(4 / 6)


@torch.no_grad()
@pytest.mark.parametrize("batches", [1, 3])
def test_gathered_metrics_equal_counting_over_all_batches(batches):
    model = joint_model("electra", objectives=["mlm", "sbgo", "ato", "sbpo", "correction"])
    costs = torch.rand(model.config.generator_config.vocab_size)
    gathered = PretrainingMetrics(unigram_costs=costs)
    by_frequency = []
    right, sbgo_right, entropies, changed, corrected = [], [], [], [], []
    verdicts = {name: ([], []) for name in ("ato", "ato_masked", "sbpo", "sbpo_masked")}
    losses = {"loss": [], "mlm_loss": [], "sbgo_loss": [], "ato_loss": [], "sbpo_loss": [], "correction_loss": []}

    def note(name, logit, label):
        verdicts[name][0].append(float(logit))
        verdicts[name][1].append(bool(label))

    for seed in range(batches):
        batch = make_batch(seed)
        # one token that the generator gets right, so that its accuracy is not 0
        best = model(**batch).mlm_logits[0, 0].argmax()
        batch["original_ids"][0, 3] = batch["labels"][0, 0] = best
        output = model(**batch)
        gathered.update_losses(output)
        gathered.update(output, batch["masked_positions"], batch["labels"])
        losses["loss"].append(output.loss.item())
        for name, loss in output.losses.items():
            losses[f"{name}_loss"].append(loss.item())
        for row in range(3):
            for position in range(16):
                note("ato", output.ato_logits[row, position], output.replaced[row, position])
            for column, label in enumerate(batch["labels"][row].tolist()):
                if label == IGNORE_INDEX:
                    continue
                position = batch["masked_positions"][row, column]
                is_replaced = output.corrupted_ids[row, position] != batch["original_ids"][row, position]
                right.append(int(output.mlm_logits[row, column].argmax()) == label)
                sbgo_right.append(int(output.sbgo_logits[row, column].argmax()) == label)
                weights = [math.exp(value) for value in output.mlm_logits[row, column].tolist()]
                entropies.append(-sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights))
                changed.append(bool(is_replaced))
                if is_replaced:
                    corrected.append(int(output.correction_logits[row, column].argmax()) == label)
                    by_frequency.append(costs[label].item())
                note("ato_masked", output.ato_logits[row, position], is_replaced)
                note("sbpo", output.sbpo_logits[row, column], is_replaced)
                note("sbpo_masked", output.sbpo_logits[row, column], is_replaced)
            for column in range(5):
                if batch["decoy_scored"][row, column]:
                    note("sbpo", output.sbpo_logits[row, 5 + column], False)

    def mean(values):
        return sum(values) / len(values)

    expected = {name: mean(values) for name, values in losses.items()}
    expected |= {
        "generator_accuracy": mean(right),
        "sbgo_accuracy": mean(sbgo_right),
        "generator_entropy": mean(entropies),
        "replaced_rate": mean(changed),
        "correction_accuracy": mean(corrected),
        "correction_unigram_loss": mean(by_frequency),
    }
    for prefix, (logits, replaced) in verdicts.items():
        counted = slow_metrics(logits, replaced)
        expected |= {f"{prefix}_{name}": value for name, value in counted.items() if not math.isnan(value)}
    metrics = gathered.compute()
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-5), name
    assert metrics["generator_accuracy"] > 0
    gathered.reset()
    assert gathered.compute() == {}


@torch.no_grad()
def test_a_batch_with_nothing_masked_gives_no_number_that_json_cannot_hold(batch):
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    gathered = PretrainingMetrics()
    gathered.update(joint_model("electra")(**batch), batch["masked_positions"], batch["labels"])
    metrics = gathered.compute()
    assert "generator_accuracy" not in metrics and "ato_accuracy" in metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_in_training_what_is_not_a_number_is_left_out_and_the_largest_loss_told():
    model, training, held_out = joint_model("electra"), PretrainingMetrics(training=True), PretrainingMetrics()
    kept = []
    for seed in range(4):
        output = model(**make_batch(seed))
        if seed == 2:
            for tensor in (output.loss, output.losses["mlm"], output.ato_logits, output.mlm_logits):
                tensor.detach().fill_(math.nan)
        else:
            kept.append(output.losses["mlm"].item())
        for metrics in (training, held_out):
            metrics.update_losses(output)
            metrics.update(output, make_batch(seed)["masked_positions"], make_batch(seed)["labels"])
    computed = training.compute()
    assert all(math.isfinite(value) for value in computed.values())
    assert computed["mlm_loss"] == pytest.approx(sum(kept) / 3) and computed["mlm_loss_max"] == max(kept)
    assert training.nonfinite_losses() == ["loss", "mlm_loss"]
    hidden_nothing = held_out.compute()
    assert math.isnan(hidden_nothing["mlm_loss"]) and "mlm_loss_max" not in hidden_nothing


def test_without_any_number_there_is_none():
    metrics, output = PretrainingMetrics(training=True), joint_model("electra")(**make_batch())
    output.loss.detach().fill_(math.nan)
    metrics.update_losses(output)
    assert math.isnan(metrics.compute()["loss"]) and math.isnan(metrics.compute()["loss_max"])
