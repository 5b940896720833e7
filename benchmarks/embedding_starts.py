"""What embeddings of co-occurrence know before anything is trained: a Markdown table, a line for every kind.

    python benchmarks/embedding_starts.py --data ROWS --tasks TASKS

Logistic regressions on embeddings alone, for they are seconds where a fine-tuning is minutes: the sentiment of SST-2's
sentences from the mean of their tokens (accuracy on dev, of all sentences and of draws of 500), and the entity types of
CoNLL-2003's words from their own tokens and those of the words beside them (F1 of words on dev, without B- and I-).
Mean and standard deviation over seeds, of the decomposition and of the draws. Seconds are those of the decomposition,
counts included.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from results_page import table
from spanelectra.data.cooccurrence import cooccurrence_embeddings
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.word_starts import word_start_table
from spanelectra.environment import describe_environment
from spanelectra.finetuning.conll_files import read_conll
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.text_examples import read_examples

KINDS: dict[str, dict[str, Any]] = {
    "window 2": {"window": 2},
    "window 5 (cooccurrence)": {},
    "window 10": {"window": 10},
    "sides apart, window 2": {"directional": True, "window": 2},
    "sides apart, window 5 (directional_cooccurrence)": {"directional": True},
    "sides apart, window 10": {"directional": True, "window": 10},
    "window 5, twice as wide": {"size": 256},
}
SIZE, FEW = 128, 500

Features = NDArray[np.float32]
Split = tuple[Features, list[str]]


def sentences(embeddings: Features, tokenizer: Any, path: Path) -> Split:
    """(sentences, width) means of their tokens, and their labels."""
    settings = FineTuningArguments(task="classification").resolved()
    examples = read_examples(str(path), settings, labelled=True).examples
    ids = tokenizer([example.text for example in examples], add_special_tokens=False)["input_ids"]
    return np.stack([embeddings[each].mean(axis=0) for each in ids]), [str(example.label) for example in examples]


def words(embeddings: Features, tokenizer: Any, path: Path) -> Split:
    """(words, 3 x width) of each word and the two beside it, means of their tokens; and their entity types."""
    features, types = [], []
    for sentence in read_conll(str(path)):
        ids = tokenizer([f" {word}" for word in sentence.words], add_special_tokens=False)["input_ids"]
        means = np.stack([embeddings[each].mean(axis=0) for each in ids])
        padded = np.pad(means, ((1, 1), (0, 0)))
        features.append(np.hstack([padded[:-2], means, padded[2:]]))
        types += [tag.rpartition("-")[2] for tag in sentence.tags or []]
    return np.vstack(features), types


def scores(embeddings: Features, tokenizer: Any, tasks: Path, seed: int) -> tuple[float, float, float]:
    """SST-2, draws of 500 of it, CoNLL-2003; times 100."""
    train, dev = (sentences(embeddings, tokenizer, tasks / "sst2" / f"{split}.tsv") for split in ("train", "dev"))
    drawn = np.random.default_rng(seed).permutation(len(train[1]))[:FEW]
    few = (train[0][drawn], [train[1][index] for index in drawn])
    accuracies = [
        accuracy_score(dev[1], LogisticRegression(max_iter=1000).fit(*split).predict(dev[0])) for split in (train, few)
    ]
    train, dev = (words(embeddings, tokenizer, tasks / "conll2003" / f"eng.{split}") for split in ("train", "testa"))
    found = LogisticRegression(max_iter=60).fit(*train).predict(dev[0])
    entities = sorted(set(train[1]) - {"O"})
    f1 = f1_score(dev[1], found, labels=entities, average="micro")
    return 100 * accuracies[0], 100 * accuracies[1], 100 * f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="prepared rows")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with sst2 and conll2003")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = RowDataset(arguments.data)
    tokenizer = rows.tokenizer()
    special_ids = np.flatnonzero(word_start_table(tokenizer).special_ids)
    lines = []
    for name, kind in {"fresh": None, **KINDS}.items():
        found, seconds = [], []
        for seed in range(arguments.seeds):
            start = time.perf_counter()
            if kind is None:
                embeddings = np.random.default_rng(seed).normal(size=(len(tokenizer), SIZE)).astype(np.float32)
            else:
                settings = {"size": SIZE, **kind}
                embeddings = cooccurrence_embeddings(
                    rows.input_ids, len(tokenizer), ignored_ids=special_ids, seed=seed, **settings
                )
            seconds.append(time.perf_counter() - start)
            found.append(scores(embeddings, tokenizer, arguments.tasks, seed))
        cells = [f"{statistics.fmean(each):.1f} ± {statistics.stdev(each):.1f}" for each in zip(*found, strict=True)]
        lines.append([name, *cells, f"{statistics.median(seconds):.0f}"])
        print(lines[-1], flush=True)
    print(table(["embeddings", "SST-2", "500 of it", "CoNLL-2003, words", "seconds"], lines))
    environment = describe_environment()
    print(f"{arguments.seeds} seeds; {environment['processor']}, {environment['threads']} thread(s); one run")


if __name__ == "__main__":
    main()
