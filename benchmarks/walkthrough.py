"""Follows one sentence through every station of a quickstart run and writes it down as docs/walkthrough.md.

    make quickstart && python benchmarks/walkthrough.py --quickstart quickstart

Nothing in the document is typed by hand but the explanations: every token, number and verdict is printed by the
library's own functions on the run's own files.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from spanelectra.data.counter_random import Stream, uniform
from spanelectra.data.packing import RowDataset
from spanelectra.data.span_masking import apply_mask_tokens, mask_rows
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.export import open_run
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.opening import open_for_inspection
from spanelectra.inspection.terminal_picture import print_picture
from spanelectra.losses import IGNORE_INDEX, replaced_token_loss, vocabulary_loss
from spanelectra.quickstart import SENTENCE
from spanelectra.replacement import replace_tokens, sample_tokens

ROOT = Path(__file__).parent.parent
SEED = 0
MASK_RATIO = 0.25


def block(*lines: str) -> str:
    return "\n".join(["```", *lines, "```"])


def wrap(words: list[str], width: int = 110) -> list[str]:
    """Words in lines of at most ``width`` characters."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def write(quickstart: Path) -> str:
    """The document."""
    run, rows = quickstart / "run", RowDataset(quickstart / "rows")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(quickstart / "tokenizer"))
    table = word_start_table(tokenizer)
    model, _, _ = open_run(str(run))
    generator, discriminator = model.generator, model.discriminator
    assert generator is not None and discriminator is not None

    ids = tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    row = np.array([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
    tokens = tokenizer.convert_ids_to_tokens(row[0].tolist())
    starts, special = table.word_starts(row), table.special_ids[row]

    numbers, epochs = np.zeros(1, np.int64), np.zeros(1, np.int64)
    inspected = open_for_inspection(run)
    # as the run masked at its end, so that these spans are those of the picture below
    policy = dataclasses.replace(inspected.policy, mask_ratio=MASK_RATIO)
    masks = mask_rows(starts, special, numbers, epochs, SEED, policy)
    masked_ids = apply_mask_tokens(
        row,
        masks,
        mask_token_id=tokenizer.mask_token_id,
        special_ids=table.special_ids,
        seed=SEED,
        epochs=epochs,
        row_numbers=numbers,
    )
    valid = masks.masked_valid[0]
    layout = [
        f"{tokens[position]:>14}   position {position:>2}   left boundary {left:>2} {tokens[left]:<12} "
        f"right boundary {right:>2} {tokens[right]:<12} place in span {place}"
        for position, left, right, place in zip(
            masks.masked_positions[0][valid],
            masks.left_boundaries[0][valid],
            masks.right_boundaries[0][valid],
            masks.span_positions[0][valid],
            strict=True,
        )
    ]
    decoys = [tokens[position] for position in masks.decoy_positions[0][masks.decoy_valid[0]]]

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    original_ids, positions = tensor(row), tensor(masks.masked_positions)
    spans = (tensor(masks.left_boundaries), tensor(masks.right_boundaries), tensor(masks.span_positions))
    labels = original_ids.gather(1, positions).masked_fill(~tensor(masks.masked_valid), IGNORE_INDEX)
    noise = uniform(SEED, epochs, numbers, Stream.REPLACEMENT_NOISE, positions.shape[1], dtype=np.float32)
    with torch.no_grad():
        generated = generator(tensor(masked_ids), positions, *spans)
        assert generated.mlm_logits is not None and generated.sbgo_logits is not None
        sampled = sample_tokens(generated.mlm_logits, tensor(noise))
        corrupted_ids, replaced = replace_tokens(original_ids, positions, labels, sampled)
        hidden_states = discriminator.encode(corrupted_ids)
        ato = discriminator.all_token_logits(hidden_states)
        sbpo = discriminator.span_boundary_logits(hidden_states, *spans)
    losses = {
        "MLM": vocabulary_loss(generated.mlm_logits, labels),
        "SBGO": vocabulary_loss(generated.sbgo_logits, labels),
        "ATO": replaced_token_loss(ato, replaced, torch.ones_like(replaced)),
        "SBPO": replaced_token_loss(sbpo, replaced.gather(1, positions), labels != IGNORE_INDEX),
    }

    text = io.StringIO()
    console = Console(file=text, width=110, highlight=False, no_color=True)
    print_picture(look(inspected, SENTENCE, seed=SEED, mask_ratio=MASK_RATIO), console)
    corrupted = tokenizer.convert_ids_to_tokens(corrupted_ids[0].tolist())
    first = tokenizer.convert_ids_to_tokens(rows.input_ids[0].tolist())
    return f"""# One sentence, station by station

Written by `python benchmarks/walkthrough.py --quickstart quickstart` from a real `make quickstart` run
({metrics["steps"]:,} steps, {metrics["tokens"] / 1e6:.1f} million tokens, seed {metrics["seed"]}): an encoder of a few
minutes, so expect modest guesses. Everything in the boxes is the library's own output.

## Raw text → documents → token ids (`data/corpus.py`, `data/tokenization.py`)

{block(SENTENCE)}

The byte-level BPE tokenizer of the run cuts it into {len(ids)} tokens; `Ġ` marks a space before a token. What starts a
word (`data/word_starts.py`) is set in brackets:

{
        block(
            *wrap(
                [
                    f"[{token}" if start else f" {token}"
                    for token, start in zip(tokens[1:-1], starts[0, 1:-1], strict=True)
                ]
            )
        )
    }

## Token ids → packed rows (`data/row_packing.py`)

In training, documents follow one another in rows of exactly {
        rows.max_seq_length
    } tokens, `[CLS]` in front, `[SEP]` between
documents and at the end, no padding. Row 0 of {len(rows):,} begins and ends like this:

{block(*wrap(first[:24]), "…", *wrap(first[-12:]))}

Here the sentence is a row of its own.

## Rows → span mask (`data/span_placement.py`, `data/span_masking.py`)

At a ratio of {MASK_RATIO} at most {int(MASK_RATIO * len(ids))} of {
        len(ids)
    } tokens are masked, in spans of whole words.
Each masked token knows the two tokens just outside its span, which are always clean:

{block(*layout)}

The generator reads

{block(*wrap(tokenizer.convert_ids_to_tokens(masked_ids[0].tolist())))}

For SBPO as many decoy spans are drawn by the same law and left alone; here their tokens are

{block(*wrap(decoys))}

## Generator → sampled replacements → discriminator

(`modeling_generator.py`, `replacement.py`, `modeling_discriminator.py`)

MLM predicts each masked token from its own hidden state, SBGO from the two boundaries and the place in the span. One
token is drawn from the MLM distribution by inverting its cumulative sum at a noise that depends on (seed, epoch, row)
alone. The discriminator reads

{block(*wrap(corrupted))}

and gives every token a verdict, ATO from the token itself and SBPO from the boundaries of its span alone (every word
that is not masked is a span of its own):

{block(*(line.rstrip() for line in text.getvalue().rstrip().splitlines()))}

## Losses (`losses.py`, `modeling_spanelectra.py`)

Each is a mean over its own tokens, here over this one sentence, in nats:

{block(*(f"{name:<5}{loss.item():.3f}" for name, loss in losses.items()))}

Training minimises their weighted sum. A token that the generator happens to restore counts as original, and no
gradient crosses the sampling.

## Trainer → checkpoint → plain Hugging Face model (`trainer.py`, `export.py`)

The run's held-out numbers at its end, over {metrics["steps"]:,} steps (guessing by frequency costs
{metrics["unigram_cross_entropy"]:.2f} nats a token):

{block(*(f"{name:<30}{value:.3f}" for name, value in metrics["held_out"].items()))}

`spanelectra export` writes the discriminator as `{type(discriminator.detector).__name__}` and the generator as
`{type(generator.language_model).__name__}`: stock classes that open without this package.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quickstart", type=Path, default=ROOT / "quickstart")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "walkthrough.md")
    arguments = parser.parse_args()
    arguments.out.write_text(write(arguments.quickstart), encoding="utf-8")


if __name__ == "__main__":
    main()
