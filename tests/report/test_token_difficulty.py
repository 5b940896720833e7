"""The hardest tokens, against a slow count token by token."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from report_runs import copy_run
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.inspection.token_texts import TokenTexts
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.report.run_record import read_runs
from spanelectra.report.token_difficulty import TokenScore, token_difficulty
from spanelectra.run_data import read_data
from spanelectra.training_args import PretrainingArguments

EVERYTHING = 10_000


@torch.no_grad()
def slow_count(run: Path, rows: int) -> dict[str, dict[int, list[tuple[float, bool]]]]:
    """List -> token -> (loss, wrong) of each occurrence."""
    model = SpanElectraForPreTraining.from_pretrained(run / "model").eval()
    data = read_data(PretrainingArguments(**yaml.safe_load((run / "config.yaml").read_text())))
    assert data.collate_held_out is not None
    found: dict[str, dict[int, list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for row in range(rows):
        batch = data.collate_held_out(RowBatch(np.array([row]), np.zeros(1, np.int64), 1.0))
        output = model(**batch)
        assert output.corrupted_ids is not None and output.replaced is not None and output.ato_logits is not None
        for slot, label in enumerate(batch["labels"][0].tolist()):
            if label != IGNORE_INDEX:
                for head, logits in (("mlm", output.mlm_logits), ("sbgo", output.sbgo_logits)):
                    assert logits is not None
                    chances = logits[0, slot].softmax(-1)
                    found[head][label].append((-chances[label].log().item(), int(chances.argmax()) != label))
        for place, token in enumerate(output.corrupted_ids[0].tolist()):
            belief, replaced = output.ato_logits[0, place].sigmoid().item(), bool(output.replaced[0, place])
            loss = -np.log(belief if replaced else 1 - belief)
            found["missed" if replaced else "suspected"][token].append((loss, (belief > 0.5) != replaced))
    return found


def test_every_token_is_scored_as_a_slow_count_scores_it(joint: Path) -> None:
    (found,) = read_runs([joint])
    difficulty = token_difficulty(found, rows=6, least=2, most=EVERYTHING)
    slow = slow_count(joint, 6)
    tokenizer = read_data(PretrainingArguments(**found.settings)).tokenizer
    assert difficulty.rows == 6 and difficulty.tokens == sum(map(len, slow["mlm"].values()))
    lists = {**difficulty.generate, "missed": difficulty.missed, "suspected": difficulty.suspected}
    for name, scores in lists.items():
        expected = {token: hits for token, hits in slow[name].items() if len(hits) >= 2}
        assert scores and len(scores) == len(expected), name
        means = sorted((-np.mean([loss for loss, _ in hits]), len(hits)) for hits in expected.values())
        assert [(-score.loss, score.count) for score in scores] == [(pytest.approx(x, rel=1e-4), n) for x, n in means]
        wrong = sum(sum(flag for _, flag in hits) for hits in expected.values())
        assert sum(round(score.share * score.count) for score in scores) == wrong
        texts = TokenTexts(tokenizer)
        assert {score.token for score in scores} <= {texts(token) for token in expected}


def test_the_lists_are_short_and_hardest_first(joint: Path) -> None:
    difficulty = token_difficulty(read_runs([joint])[0], rows=8, least=2, most=2)
    losses = [score.loss for score in difficulty.generate["mlm"]]
    assert len(losses) == 2 and losses == sorted(losses, reverse=True)
    assert all(isinstance(score, TokenScore) and score.count >= 2 for score in difficulty.suspected)


def test_a_generator_alone_has_nothing_to_detect(generator_run: Path) -> None:
    difficulty = token_difficulty(read_runs([generator_run])[0], least=1)
    assert set(difficulty.generate) == {"mlm", "sbgo"} and not difficulty.missed and not difficulty.suspected


def test_rows_that_were_made_anew_are_not_read(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("checkpoint-*",))
    start = json.loads((run / "start.json").read_text())
    start["data"]["tokenizer_fingerprint"] = "another"
    (run / "start.json").write_text(json.dumps(start))
    with pytest.raises(UserError, match="another tokenizer"):
        token_difficulty(read_runs([run])[0])


def test_rows_that_are_gone_are_a_users_matter(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("checkpoint-*",))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings, "data": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="gone"):
        token_difficulty(read_runs([run])[0])
