"""Which tokens are hardest to generate and to detect: one pass of a run's model over its held-out rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from spanelectra.checkpointing import CONFIG_NAME, find_model
from spanelectra.corrupted_rows import row_batches
from spanelectra.data.tokenization import tokenizer_fingerprint
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.inspection.token_texts import TokenTexts
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, SpanElectraOutput
from spanelectra.recipe_files import load_recipe
from spanelectra.report.run_record import RunRecord
from spanelectra.report.tolerance import mapping
from spanelectra.run_data import read_data
from spanelectra.training_args import PretrainingArguments


@dataclass(frozen=True)
class TokenScore:
    """How hard one token of the vocabulary is, over all its occurrences.

    Attributes:
        token: its text; a space at its beginning says that a new word begins.
        count: how many of its occurrences were scored.
        loss: mean loss in nats.
        share: of its occurrences, those that the model got wrong.
    """

    token: str
    count: int
    loss: float
    share: float


@dataclass(frozen=True)
class TokenDifficulty:
    """The hardest tokens of a run, hardest first.

    Attributes:
        rows, tokens: how much held-out text was read, and how many of its tokens were masked.
        least: occurrences that a token needs to be listed.
        generate: masked tokens whose loss is highest, by the token that stood in the text; by head, ``mlm`` and
            ``sbgo``. Wrong is a best guess that is another token.
        missed: replaced tokens that ATO takes for original, by the token that was put in.
        suspected: original tokens that ATO takes for replaced.
    """

    rows: int
    tokens: int
    least: int
    generate: dict[str, list[TokenScore]]
    missed: list[TokenScore]
    suspected: list[TokenScore]


class _Tally:
    """Occurrences, losses and mistakes of every token of the vocabulary."""

    def __init__(self, size: int) -> None:
        self.sums = np.zeros((3, size))

    def add(self, ids: Tensor, losses: Tensor, wrong: Tensor) -> None:
        places = ids.numpy()
        for row, weights in zip(self.sums, (None, losses.double().numpy(), wrong.double().numpy()), strict=True):
            row += np.bincount(places, weights, minlength=len(row))

    def hardest(self, tokenizer: Any, least: int, most: int) -> list[TokenScore]:
        """Tokens of ``least`` occurrences or more, the ``most`` with the highest mean loss."""
        count, loss, wrong = self.sums
        often: NDArray[np.intp] = np.flatnonzero(count >= least)
        texts = TokenTexts(tokenizer)
        order = often[np.argsort(-(loss[often] / count[often]), kind="stable")][:most]
        return [
            TokenScore(
                texts(token),
                int(count[token]),
                float(loss[token] / count[token]),
                float(wrong[token] / count[token]),
            )
            for token in order.tolist()
        ]


@torch.no_grad()
def token_difficulty(record: RunRecord, rows: int = 256, least: int = 5, most: int = 15) -> TokenDifficulty:
    """Read held-out rows, masked as the run's own evaluations mask them, and score every token.

    Args:
        record: of a pre-training run.
        rows: how many to read, at most.
        least: occurrences below which a token's mean says nothing.
        most: tokens in a list.

    Raises:
        UserError: where the run has no whole model, or its rows are gone or have no held-out part.
    """
    model = SpanElectraForPreTraining.from_pretrained(find_model(record.directory)).eval()
    settings = PretrainingArguments(**load_recipe(str(record.directory / CONFIG_NAME)))
    data = read_data(settings)
    fingerprint = mapping(record.start.get("data")).get("tokenizer_fingerprint")
    if fingerprint not in (None, tokenizer_fingerprint(data.tokenizer)):
        raise UserError(f"{settings.data} was prepared anew with another tokenizer since the run was started.")
    if data.collate_held_out is None:
        raise UserError(f"{settings.data} has no held-out rows.")
    tallies: defaultdict[str, _Tally] = defaultdict(lambda: _Tally(len(data.tokenizer)))
    count, masked = min(rows, data.held_out_rows), 0
    for numbers in row_batches(count, settings.per_device_eval_batch_size):
        batch = data.collate_held_out(RowBatch(numbers, np.zeros_like(numbers), 1.0))
        masked += int((batch["labels"] != IGNORE_INDEX).sum())
        _score(model(**batch), batch, tallies)
    return TokenDifficulty(
        count,
        masked,
        least,
        {head: tallies[head].hardest(data.tokenizer, least, most) for head in ("mlm", "sbgo") if head in tallies},
        tallies["missed"].hardest(data.tokenizer, least, most),
        tallies["suspected"].hardest(data.tokenizer, least, most),
    )


def _score(output: SpanElectraOutput, batch: dict[str, Tensor], tallies: dict[str, _Tally]) -> None:
    """Add one batch to the tallies of the heads that the model has."""
    scored = batch["labels"] != IGNORE_INDEX
    for head, logits in (("mlm", output.mlm_logits), ("sbgo", output.sbgo_logits)):
        if logits is not None:
            truth, guesses = batch["labels"][scored], logits[scored].float()
            tallies[head].add(truth, cross_entropy(guesses, truth, reduction="none"), guesses.argmax(-1) != truth)
    if output.ato_logits is None or output.replaced is None or output.corrupted_ids is None:
        return
    logits, replaced = output.ato_logits.float(), output.replaced
    losses = binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
    wrong = (logits > 0) != replaced
    for name, chosen in (("missed", replaced), ("suspected", ~replaced)):
        tallies[name].add(output.corrupted_ids[chosen], losses[chosen], wrong[chosen])
