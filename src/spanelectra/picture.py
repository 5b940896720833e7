"""The command ``spanelectra show``: one sentence, its masked spans, the generator's fills and the verdict per token.

:func:`look_at` computes, :func:`render` prints; between them is a plain dictionary.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.span_masking import SpanMaskingPolicy
from spanelectra.data.tokenization import word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.export import longest_input, open_run
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, SpanElectraOutput
from spanelectra.schedules import Schedule

DEFAULT_TEXT = (
    "The function returns a list of the names in the current module, and raises an error if the file that was given "
    "does not exist."
)
CANDIDATES = 3


def show(
    run: str, text: str = DEFAULT_TEXT, seed: int = 0, mask_ratio: float = 0.25, quiet: bool = False
) -> dict[str, Any]:
    """Mask spans of a sentence, let the run's generator fill them and its discriminator judge every token.

    Args:
        run: directory of a `spanelectra pretrain` run, one of its checkpoints, or an exported `checkpoint`.
        text: the sentence; what is longer than the encoder's longest input is cut off, with a notice.
        seed: of the masked spans and of the sampled replacements.
        mask_ratio: share of the tokens to mask, at most.
        quiet: print nothing.

    Returns:
        What was printed, see :func:`look_at`.

    Raises:
        UserError: for a run without a model, or a text too short to mask a span of it.
    """
    model, tokenizer, _ = open_run(run)
    picture = look_at(model, tokenizer, text, seed, mask_ratio)
    if not quiet:
        render(picture, Console(highlight=False))
    return picture


@torch.no_grad()
def look_at(
    model: SpanElectraForPreTraining, tokenizer: PreTrainedTokenizerBase, text: str, seed: int, mask_ratio: float
) -> dict[str, Any]:
    """What generator and discriminator make of one sentence.

    Spans are masked as in training. A model without a generator judges random tokens in their place.

    Args:
        model: in evaluation mode.

    Returns:
        ``sentence``, the pieces of the text that are ``masked`` spans or stand between them, each with its ``text``.
        ``tokens``, one dictionary for each token of the row [CLS] … [SEP]:
            ``original`` and ``corrupted``, the token before and after replacement, as text that begins with a space
            where a new word does; ``masked`` and ``replaced``; ``ato`` and ``sbpo``, the probability of 'replaced' by
            either head, ``None`` where it does not judge.
        ``fills``, one dictionary for each masked token:
            its ``position``, ``original``, ``mlm`` and ``sbgo`` (likeliest tokens with their probabilities, likeliest
            first; empty without the head) and the ``sampled`` token.
        ``notices``: sentences on what is missing or was cut.

    Raises:
        UserError: for a text too short to mask a span of it.
    """
    batch, notices = _masked_row(model, tokenizer, text, seed, mask_ratio)
    output = _run(model, batch, notices)
    assert output.corrupted_ids is not None and output.replaced is not None
    scored = batch["labels"][0] != IGNORE_INDEX
    positions = batch["masked_positions"][0][scored].tolist()
    original_ids, corrupted_ids = batch["original_ids"][0].tolist(), output.corrupted_ids[0].tolist()
    texts = _TokenTexts(tokenizer)
    ato = output.ato_logits[0].sigmoid().tolist() if output.ato_logits is not None else [None] * len(original_ids)
    sbpo = _span_probabilities(output, batch)
    tokens = [
        {
            "original": texts(original_ids[position]),
            "corrupted": texts(corrupted_ids[position]),
            "masked": position in positions,
            "replaced": bool(output.replaced[0, position]),
            "ato": ato[position],
            "sbpo": sbpo.get(position),
        }
        for position in range(len(original_ids))
    ]
    fills = [
        {
            "position": position,
            "original": tokens[position]["original"],
            "mlm": _likeliest(output.mlm_logits, slot, texts),
            "sbgo": _likeliest(output.sbgo_logits, slot, texts),
            "sampled": tokens[position]["corrupted"],
        }
        for slot, position in enumerate(positions)
    ]
    sentence = [
        {"text": texts(*(original_ids[position] for position in run)), "masked": masked}
        for masked, run in itertools.groupby(range(1, len(original_ids) - 1), key=positions.__contains__)
    ]
    return {"sentence": sentence, "tokens": tokens, "fills": fills, "notices": notices}


def _masked_row(
    model: SpanElectraForPreTraining, tokenizer: PreTrainedTokenizerBase, text: str, seed: int, mask_ratio: float
) -> tuple[dict[str, Tensor], list[str]]:
    """The sentence as a batch of one row, masked by the collator of training, and a notice where it was cut."""
    notices = []
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    room = longest_input(model) - 2
    if len(ids) > room:
        notices.append(f"the text has {len(ids)} tokens; only the first {room} fit the encoder and are shown")
        ids = ids[:room]
    row = np.array([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]], dtype=np.uint32)
    policy = SpanMaskingPolicy(
        mask_ratio=mask_ratio,
        max_span_length=model.config.max_span_length,
        decoys="sbpo" in model.config.discriminator_objectives,
    )
    collator = DataCollatorForSpanElectra(
        input_ids=row,
        word_starts=word_start_table(tokenizer),
        policy=policy,
        mask_token_id=tokenizer.mask_token_id,
        seed=seed,
        mask_ratio=Schedule.parse(mask_ratio, "mask_ratio"),
        max_span_words=Schedule.parse(policy.max_span_words, "max_span_words"),
        mask_token_ratio=float(model.generator is not None),
        random_token_ratio=float(model.generator is None),
    )
    if mask_ratio * len(ids) >= 1:
        batch = collator(RowBatch(np.zeros(1, np.int64), np.zeros(1, np.int64), 1.0))
        if bool((batch["labels"] != IGNORE_INDEX).any()):
            return batch, notices
    raise UserError(
        f"the text has {len(ids)} tokens, too few to mask a span of {mask_ratio:.0%} with a word left on either side; "
        "give a longer --text or a higher --mask_ratio."
    )


def _run(model: SpanElectraForPreTraining, batch: dict[str, Tensor], notices: list[str]) -> SpanElectraOutput:
    """The model's own forward pass; what it does not fill in for lack of a part is added."""
    if model.generator is None:
        notices.append("this run has no generator: random tokens stand in the masked spans")
        return model(**{**batch, "corrupted_ids": batch["input_ids"]})
    output = model(**batch)
    if output.corrupted_ids is None:
        notices.append("this run has no discriminator: nothing judges the generator's samples")
        positions, labels = batch["masked_positions"], batch["labels"]
        model.replace(output, batch["original_ids"], positions, labels, batch["replacement_noise"])
    return output


def _span_probabilities(output: SpanElectraOutput, batch: dict[str, Tensor]) -> dict[int, float]:
    """Position -> SBPO's probability of 'replaced', for tokens of masked and decoy spans."""
    if output.sbpo_logits is None or output.sbpo_scored is None:
        return {}
    positions = torch.cat([batch["masked_positions"], batch["decoy_positions"]], dim=1)[0]
    scored, probabilities = output.sbpo_scored[0], output.sbpo_logits[0].sigmoid()
    return dict(zip(positions[scored].tolist(), probabilities[scored].tolist(), strict=True))


class _TokenTexts:
    """Token ids -> their text as it stands inside a sentence, with a space before it where a new word begins."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # decoded after some other token, a token shows whether a space comes before it, in every kind of tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"][:1]
        self._text_before = self._decode(self._before)

    def __call__(self, *token_ids: int) -> str:
        return self._decode([*self._before, *token_ids]).removeprefix(self._text_before)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _likeliest(logits: Tensor | None, slot: int, texts: _TokenTexts) -> list[dict[str, Any]]:
    """(1, count, vocabulary) logits -> the likeliest tokens of one masked token, likeliest first."""
    if logits is None:
        return []
    probabilities, ids = logits[0, slot].float().softmax(-1).topk(min(CANDIDATES, logits.shape[-1]))
    return [
        {"token": texts(token_id), "probability": probability}
        for token_id, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


def render(picture: dict[str, Any], console: Console) -> None:
    """Print what :func:`look_at` gave. Everything that colour says is said by a number or a letter as well."""
    tokens = picture["tokens"]
    heads = [name for name in ("ato", "sbpo") if any(token[name] is not None for token in tokens)]
    masked = sum(token["masked"] for token in tokens)
    console.print(Text(f"Masked: {masked} of {len(tokens) - 2} tokens, in «spans»", style="bold"))
    console.print(Padding(_sentence_with_spans(picture["sentence"]), (0, 0, 1, 2)))
    if any(fill["mlm"] or fill["sbgo"] for fill in picture["fills"]):
        console.print(Text("Filled: the generator's likeliest tokens, and the one drawn", style="bold"))
        console.print(_fills_table(picture["fills"]))
    heading = "Judged: the chance of each token to be a replacement, in %" if heads else "Corrupted: the drawn tokens"
    console.print(Text(heading, style="bold"))
    for line in _verdict_lines(tokens, heads, console.width):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    legend = ["R: replaced; =: masked, but restored by chance."]
    legend += ["ATO reads the token itself."] if "ato" in heads else []
    legend += ["SBPO reads only the two tokens beside a span, a masked one or a decoy."] if "sbpo" in heads else []
    legend += [f"Note: {notice}." for notice in picture["notices"]]
    console.print(Text("\n".join(legend), style="dim"))


def _printable(text: str) -> str:
    """Text with everything that does not print, such as line breaks and escape codes, written out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _visible(token: str) -> str:
    """A token without the space before it."""
    body = token.removeprefix(" ")
    return _printable(body) if body.strip(" ") else "␣" * max(1, len(body))


def _sentence_with_spans(pieces: list[dict[str, Any]]) -> Text:
    sentence = Text()
    for piece in pieces:
        text = _printable(piece["text"])
        body = text.lstrip(" ")
        # the space before a span, or before the sentence, is not part of it
        sentence.append(" " * (len(text) - len(body)) if sentence else "")
        sentence.append(f"«{body}»" if piece["masked"] else body, style="underline" if piece["masked"] else "")
    return sentence


def _fills_table(fills: list[dict[str, Any]]) -> Table:
    has_boundary_head = any(fill["sbgo"] for fill in fills)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("original", "MLM", *(["SBGO"] if has_boundary_head else []), "drawn"):
        table.add_column(heading)
    for fill in fills:
        heads = [fill["mlm"], *([fill["sbgo"][:1]] if has_boundary_head else [])]
        cells = [", ".join(f"{_visible(best['token'])} {best['probability']:.2f}" for best in head) for head in heads]
        same = " (the same)" if fill["sampled"] == fill["original"] else ""
        table.add_row(*map(Text, (_visible(fill["original"]), *cells, _visible(fill["sampled"]) + same)))
    return table


def _verdict_lines(tokens: list[dict[str, Any]], heads: list[str], width: int) -> list[Text]:
    """The corrupted sentence over as many lines as it takes, with the verdicts on each token beneath it."""
    names = ["", *(f"{head.upper()} %" for head in heads), "truth"]
    blocks: list[list[Text]] = []
    for token in tokens:
        probabilities = [token[head] for head in heads]
        cells = [_visible(token["corrupted"])]
        cells += ["" if probability is None else f"{100 * probability:.0f}" for probability in probabilities]
        cells.append("R" if token["replaced"] else "=" if token["masked"] else "")
        styles = [_colour(token["ato"]), *map(_colour, probabilities), "bold"]
        column = max(map(cell_len, cells))
        # tokens of one word stand closer together
        gap = 2 if token["corrupted"].startswith(" ") else 1
        if not blocks or cell_len(blocks[-1][0].plain) + gap + column > width:
            blocks.append([Text(f"  {name:<6}") for name in names])
        for line, cell, style in zip(blocks[-1], cells, styles, strict=True):
            line.append(" " * gap)
            line.append(cell, style=style)
            line.append(" " * (column - cell_len(cell)))
    lines = [line for block in blocks for line in (*block, Text())]
    for line in lines:
        line.rstrip()
    return lines


def _colour(probability: float | None) -> str:
    if probability is None:
        return ""
    return "bold red" if probability >= 0.5 else "yellow" if probability >= 0.2 else "green"
