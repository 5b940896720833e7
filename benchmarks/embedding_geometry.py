"""Do the token embeddings of rare tokens all point the same way? A Markdown table, a line for every run.

    python benchmarks/embedding_geometry.py --data ROWS RUN [RUN …]

Tied to the vocabulary projection, the embedding of a token that is rarely the answer is pushed away from the mean of
all hidden states in every step, until such tokens are one to the encoder (Gao et al. 2019, "Representation
degeneration problem in training natural language generation models"). Shown is the mean cosine of two different tokens
of a class of frequency, and the mean length of a vector beside it, without special tokens. A run may be finished or
not: its newest model or checkpoint is read.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from results_page import table
from spanelectra.checkpointing import find_model
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.tokenization import word_start_table
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.shared_embeddings import materialise

# ranks by frequency, from the commonest
CLASSES = ((0, 200), (200, 1000), (1000, 3000), (3000, 6000), (6000, 9000))


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine of two different rows of (count, width)."""
    directions = torch.nn.functional.normalize(vectors, dim=1)
    count = len(directions)
    return ((directions.sum(0).square().sum() - count) / (count * (count - 1))).item()


def token_embeddings(run: str) -> Tensor:
    """(vocabulary, width) of the encoder that a run keeps."""
    model = SpanElectraForPreTraining.from_pretrained(find_model(run))
    kept = model.discriminator.detector if model.discriminator is not None else model.generator.language_model
    return materialise(kept).get_input_embeddings().weight.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True, help="prepared rows, for how often tokens occur")
    arguments = parser.parse_args()
    rows = RowDataset(arguments.data)
    counts = torch.from_numpy(rows.token_counts.copy())
    counts[torch.from_numpy(word_start_table(rows.tokenizer()).special_ids)] = -1
    order = counts.argsort(descending=True)
    lines = []
    for run in arguments.runs:
        embeddings = token_embeddings(run)
        vectors = [embeddings[order[first:last]] for first, last in CLASSES]
        lines.append([run, *(f"{mean_cosine(each):.2f} ({each.norm(dim=1).mean():.2f})" for each in vectors)])
    print(table(["mean cosine (mean length) by rank", *(f"{first:,} to {last:,}" for first, last in CLASSES)], lines))


if __name__ == "__main__":
    main()
