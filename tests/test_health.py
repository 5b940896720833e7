"""Each alarm is provoked, waits for its warm-up and sounds once; a healthy run raises none."""

from __future__ import annotations

import math

import pytest
import torch

from spanelectra.health import HealthLimits, HealthMonitor
from spanelectra.metrics import detection_metrics

HEALTHY = {
    "loss": 20.0,
    "mlm_loss": 5.0,
    "ato_loss": 0.3,
    "ato_accuracy": 0.92,
    "ato_majority_accuracy": 0.9,
    "ato_auc": 0.8,
    "sbpo_accuracy": 0.7,
    "sbpo_majority_accuracy": 0.6,
    "sbpo_auc": 0.75,
}
STUCK_GENERATOR = {"mlm_loss": 7.3}
STUCK_ATO = {"ato_accuracy": 0.9, "ato_majority_accuracy": 0.9, "ato_auc": 0.51}
STUCK_SBPO = {"sbpo_accuracy": 0.55, "sbpo_majority_accuracy": 0.6, "sbpo_auc": 0.5}


def make_monitor(**settings) -> HealthMonitor:
    return HealthMonitor(**({"unigram_cross_entropy": 7.3, "max_steps": 2000} | settings))


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (STUCK_GENERATOR, ["guessing by frequency", "step 1000", "MLM loss 7.30", "cross-entropy 7.30"]),
        (
            {"correction_loss": 8.1, "correction_unigram_loss": 8.1},
            ["names originals no better", "correction loss 8.10", "--correction_weight"],
        ),
        (STUCK_ATO, ["all-token head", "commoner verdict", "0.900 against 0.900", "AUC 0.51", "--ato_weight"]),
        (STUCK_SBPO, ["span-boundary head", "0.550 against 0.600", "--sbpo_weight"]),
        ({"mlm_loss": math.nan}, ["mlm_loss is nan at step 1000", "diverged"]),
        ({"loss": math.inf}, ["loss is inf at step 1000", "diverged"]),
    ],
)
def test_each_alarm_sounds_once_and_says_what_it_saw(metrics, words):
    monitor = make_monitor()
    (alarm,) = monitor.check(1000, HEALTHY | metrics)
    assert all(word in alarm for word in words), alarm
    assert monitor.check(1500, HEALTHY | metrics) == []
    assert monitor.alarms == [alarm]


@pytest.mark.parametrize("metrics", [STUCK_GENERATOR, STUCK_ATO, STUCK_SBPO])
@pytest.mark.parametrize(
    ("max_steps", "first_warm"),
    [(2000, 1000), (600, 400), (800, 400)],  # half of the run, but 400 steps at least
)
def test_comparisons_wait_for_the_warm_up(metrics, max_steps, first_warm):
    monitor = make_monitor(max_steps=max_steps)
    assert monitor.check(first_warm - 1, HEALTHY | metrics) == []
    assert len(monitor.check(first_warm, HEALTHY | metrics)) == 1


def test_a_run_shorter_than_the_warm_up_is_not_judged():
    monitor = make_monitor(max_steps=300)
    assert monitor.check(300, HEALTHY | STUCK_GENERATOR | STUCK_ATO) == []


def test_a_loss_that_is_not_finite_needs_no_warm_up():
    assert len(make_monitor().check(1, {"ato_loss": math.nan})) == 1


def test_several_losses_that_are_not_finite_are_one_alarm_and_no_other():
    broken = HEALTHY | {"loss": math.nan, "mlm_loss": math.nan, "ato_loss": math.nan}
    assert len(make_monitor().check(1500, broken)) == 1


def test_the_discriminators_warm_up_starts_when_its_losses_do():
    monitor = make_monitor(discriminator_start=1000)  # half of the remaining 1,000 is at 1,500
    assert monitor.check(1499, HEALTHY | STUCK_ATO) == []
    assert len(monitor.check(1500, HEALTHY | STUCK_ATO)) == 1
    assert len(make_monitor(discriminator_start=1000).check(1000, HEALTHY | STUCK_GENERATOR)) == 1


def test_two_alarms_can_sound_together():
    alarms = make_monitor().check(1000, HEALTHY | STUCK_ATO | STUCK_SBPO | STUCK_GENERATOR)
    assert len(alarms) == 3


@pytest.mark.parametrize("start", [0, 600])
def test_a_healthy_run_raises_none(start):
    monitor = make_monitor(discriminator_start=start)
    for step in range(50, 2001, 50):
        done = step / 2000
        # plateau until step 700, then learning; the discriminator follows
        metrics = HEALTHY | {
            "mlm_loss": 9.2 - 1.9 * min(1, step / 100) - 2 * max(0, done - 0.35),
            "ato_auc": 0.5 + 0.3 * max(0, done - 0.3),
        }
        assert monitor.check(step, metrics) == []
    assert monitor.alarms == []


@pytest.mark.parametrize(
    "metrics",
    [
        {"ato_accuracy": 0.9, "ato_majority_accuracy": 0.9, "ato_auc": 0.6},  # ranks well, threshold not reached yet
        {"ato_accuracy": 0.91, "ato_majority_accuracy": 0.9, "ato_auc": 0.52},  # beats the majority
        {"mlm_loss": 7.2},  # beats frequency by more than the margin
        {"correction_loss": 8.0, "correction_unigram_loss": 8.1},
    ],
)
def test_one_sign_of_learning_is_enough(metrics):
    assert make_monitor().check(1500, HEALTHY | metrics) == []


def test_what_is_not_known_or_not_trained_is_not_compared():
    assert make_monitor(unigram_cross_entropy=None).check(1500, HEALTHY | STUCK_GENERATOR) == []
    assert make_monitor().check(1500, {"tokens_per_second": 5e3}) == []
    one_class = {"ato_accuracy": 0.0, "ato_majority_accuracy": 1.0}  # no AUC
    assert make_monitor().check(1500, one_class) == []


def test_limits_can_be_set():
    limits = HealthLimits(warm_up_steps=2, warm_up_progress=0.0, unigram_margin=1.0)
    assert len(make_monitor(limits=limits).check(2, {"mlm_loss": 6.4})) == 1
    assert make_monitor(limits=limits).check(2, {"mlm_loss": 6.2}) == []


@pytest.mark.parametrize("positives", range(1, 60, 2))
def test_a_discriminator_that_always_says_original_is_found_from_its_own_metrics(positives):
    torch.manual_seed(positives)
    replaced = torch.arange(211) < positives
    metrics = detection_metrics("ato", torch.full((211,), -2.0), replaced)
    assert len(make_monitor().check(1500, metrics)) == 1


class TestSpikes:
    @staticmethod
    def alarms_of(losses: list[float], name: str = "mlm_loss", **settings) -> list[str]:
        monitor = make_monitor(**settings)
        for number, loss in enumerate(losses, start=1):
            monitor.check(50 * number, {name: min(loss, 7.0), f"{name}_max": loss}, held_out=False)
        return monitor.alarms

    # as losses fall at the start of a run, and wander later
    CURVE = (9.3, 8.1, 7.6, 7.4, 7.3, 7.3, 7.2, 7.0, 6.9, 7.1, 6.8, 6.9, 6.7, 6.8, 6.6)

    def test_a_curve_that_falls_and_wanders_has_none(self):
        assert self.alarms_of(list(self.CURVE)) == []
        assert self.alarms_of([7.0 + 0.3 * (-1) ** number for number in range(60)]) == []

    @pytest.mark.parametrize("name", ["mlm_loss", "sbgo_loss", "ato_loss", "sbpo_loss"])
    def test_each_is_flagged_where_it_begins(self, name):
        alarms = self.alarms_of([*self.CURVE, 9.8, 9.7, *self.CURVE[-5:], 11.0], name)
        assert [f"{name} rose to 9.800 before step 800" in alarms[0], "11.000 before step 1150" in alarms[1]] == [
            True
        ] * 2
        assert len(alarms) == 2 and "from 7.100 at most as a rule" in alarms[0]

    def test_a_new_level_is_flagged_once(self):
        assert len(self.alarms_of([*self.CURVE, *[12.0] * 40])) == 1

    def test_a_few_lines_are_no_rule_and_what_is_not_a_number_is_none_either(self):
        assert self.alarms_of([7.0] * 4 + [20.0]) == []
        assert self.alarms_of([7.0] * 5 + [math.nan, 7.0]) == []
        assert len(self.alarms_of([7.0] * 5 + [20.0])) == 1

    def test_held_out_losses_are_not_looked_at(self):
        monitor = make_monitor()
        for loss in [7.0] * 10 + [20.0]:
            monitor.check(100, {"mlm_loss_max": loss})
        assert monitor.alarms == []


def test_steps_that_were_left_out_are_said_once():
    monitor = make_monitor()
    (alarm,) = monitor.check(50, {"nonfinite_steps": 2.0}, held_out=False)
    assert alarm.startswith("2 of 50 steps had a loss or a gradient that is not a number")
    assert monitor.check(100, {"nonfinite_steps": 5.0}, held_out=False) == []
    assert make_monitor().check(50, {"nonfinite_steps": 0.0}, held_out=False) == []
