"""The page of an exported model states what is known, says nothing that is not, and warns of what was not trained."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from transformers import BertModel, ElectraForMaskedLM, ElectraForPreTraining, ModernBertForTokenClassification

from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.model_card import model_card


def card(part: str = "discriminator", family: str = "electra", metrics: Any = None, **settings: Any) -> str:
    stock_class = {"electra": ElectraForPreTraining, "modernbert": ModernBertForTokenClassification, "bert": BertModel}
    stock = (ElectraForMaskedLM if part == "generator" else stock_class[family])(encoder_config(family))
    return model_card(part, stock, joint_config(family, **settings), metrics or {})


@pytest.mark.parametrize(
    ("part", "family", "task"),
    [
        ("discriminator", "electra", None),
        ("discriminator", "modernbert", "token-classification"),
        ("generator", "electra", "fill-mask"),
    ],
)
def test_the_front_matter_is_yaml_with_the_task_that_a_pipeline_has(part: str, family: str, task: str | None) -> None:
    front = yaml.safe_load(card(part, family).split("---")[1])
    assert front["library_name"] == "transformers" and family in front["tags"]
    assert front.get("pipeline_tag") == task


def test_objectives_sharing_and_shape_are_those_of_the_model() -> None:
    text = card(objectives=["mlm", "ato"], sharing="gradient_disentangled")
    assert "MLM, masked" in text and "ATO, all-token" in text
    assert "SBGO" not in text and "SBPO" not in text and "Spans of whole words" not in text
    assert "shared: gradient_disentangled" in text
    assert "electra, 2 layers of width 32, 4 heads" in text and "| vocabulary | 100 tokens |" in text


def test_the_correction_objective_is_named_and_its_head_said_to_be_elsewhere() -> None:
    text = card(objectives=["mlm", "ato", "correction"])
    assert "- Correction: the discriminator predicts" in text and "comes without the head that corrects;" in text
    assert "that corrects" not in card("generator", objectives=["mlm", "ato", "correction"])
    assert "orrect" not in card()


def test_a_frozen_generator_is_said_to_be() -> None:
    text = card(objectives=["ato", "sbpo"], sharing="none", freeze_generator=True)
    assert "was frozen" in text and "shared:" not in text


@pytest.mark.parametrize("metrics", [{}, {"held_out": {}, "versions": None, "tokens": None}])
def test_what_is_not_known_is_left_out(metrics: dict[str, Any]) -> None:
    text = card(metrics=metrics)
    assert "None" not in text and "held-out metric" not in text and "made with" not in text


def test_numbers_of_the_run_are_there_with_their_baseline() -> None:
    metrics = {
        "seed": 0,
        "tokens": 1234567,
        "held_out": {"ato_auc": 0.71, "mlm_loss": float("inf"), "note": "text"},
        "unigram_cross_entropy": 6.5,
        "versions": {"torch": "2.13", "numpy": "2.0"},
    }
    text = card(metrics=metrics)
    for line in ("| seed | 0 |", "| tokens | 1,234,567 |", "| `ato_auc` | 0.71 |", "| made with | torch 2.13 |"):
        assert line in text
    assert "nats (compare `mlm_loss`) | 6.5 |" in text and "inf" not in text and "`note`" not in text
    # a discriminator stage has no loss to compare it with
    assert "compare `mlm_loss`" not in card(metrics=metrics | {"held_out": {"ato_auc": 0.71}})


@pytest.mark.parametrize(
    ("part", "family", "objectives", "limit"),
    [
        ("discriminator", "electra", ["mlm", "sbpo"], "Its token head was not trained"),
        ("generator", "electra", ["sbgo"], "Its [MASK] head was not trained"),
        ("discriminator", "bert", ["mlm", "ato"], "It has no trained pooler"),
    ],
)
def test_parts_that_were_not_trained_are_warned_of(part: str, family: str, objectives: list[str], limit: str) -> None:
    config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=objectives, sharing="none")
    assert limit in (
        card(part, family, objectives=objectives)
        if part == "discriminator"
        else model_card(part, ElectraForMaskedLM(encoder_config("electra")), config, {})
    )
    assert limit not in card(part, "electra")
