"""Which tokens occur near one another -> token embeddings to start from, in seconds.

The positive pointwise mutual information of tokens and their neighbours, cut to its largest singular values, is what
skip-gram with negative sampling factorises too (Levy & Goldberg 2014). Where neighbours to the left and to the right
are told apart, embeddings know more of syntax (Ling et al. 2015, "Two/Too Simple Adaptations of Word2Vec for Syntax
Problems"). It takes seconds, and spares the encoder the steps in which it would learn no more than this.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

WINDOW = 5
# Neighbours' frequencies are raised to this power, so that rare ones count less (Levy, Goldberg & Dagan 2015, 3.2).
CONTEXT_SMOOTHING = 0.75
# More tokens than this change little and cost memory: the counts are of pairs.
MAX_TOKENS = 50_000_000
_ROWS_AT_ONCE = 16384
_POWER_ITERATIONS = 4


def right_neighbour_counts(rows: NDArray[np.integer], vocab_size: int, window: int = WINDOW) -> scipy.sparse.csr_matrix:
    """How often a token stands to the right of another in one row, at most ``window`` apart; at distance d it is 1/d.

    Args:
        rows: (rows, length) token ids.
        vocab_size: number of entries.
        window: largest distance.

    Returns:
        (vocab_size, vocab_size) float32, the token on the left first.
    """
    counts = scipy.sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        block = np.asarray(rows[first : first + _ROWS_AT_ONCE]).astype(np.int32)
        for distance in range(1, min(window, block.shape[1] - 1) + 1):
            left, right = block[:, :-distance].ravel(), block[:, distance:].ravel()
            weights = np.full(len(left), 1 / distance, dtype=np.float32)
            counts += scipy.sparse.coo_matrix((weights, (left, right)), shape=counts.shape).tocsr()
    return counts


def positive_mutual_information(
    counts: scipy.sparse.csr_matrix, ignored_ids: Collection[int] = ()
) -> scipy.sparse.csr_matrix:
    """max(0, log p(a, b) / (p(a) p(b)^0.75)), in nats, of tokens and contexts; pairs that do not occur have 0.

    Args:
        counts: (vocabulary, contexts) how often they occur together. Contexts are tokens, or tokens in places: the
            vocabulary once or several times over.
        ignored_ids: tokens whose pairs are left out: special ones.

    Returns:
        (vocabulary, contexts) float32.
    """
    pairs = counts.tocoo()
    vocab_size = counts.shape[0]
    ignored = np.zeros(vocab_size, dtype=bool)
    ignored[list(ignored_ids)] = True
    kept = ~(ignored[pairs.row] | ignored[pairs.col % vocab_size]) & (pairs.data > 0)
    row, column, weight = pairs.row[kept], pairs.col[kept], pairs.data[kept].astype(np.float64)
    totals = np.bincount(row, weights=weight, minlength=vocab_size)
    contexts = np.bincount(column, weights=weight, minlength=counts.shape[1]) ** CONTEXT_SMOOTHING
    information = np.log(weight) - np.log(totals[row]) - np.log(contexts[column] / contexts.sum())
    positive = information > 0
    values = (information[positive].astype(np.float32), (row[positive], column[positive]))
    return scipy.sparse.csr_matrix(values, shape=counts.shape)


def cooccurrence_embeddings(
    rows: NDArray[np.integer],
    vocab_size: int,
    size: int,
    *,
    directional: bool = False,
    window: int = WINDOW,
    ignored_ids: Collection[int] = (),
    seed: int = 0,
) -> NDArray[np.float32]:
    """Embeddings in which tokens with similar neighbours lie close together.

    Args:
        rows: (rows, length) token ids; of more than :data:`MAX_TOKENS` every so manieth row is read.
        vocab_size: number of entries.
        size: width.
        directional: whether a neighbour to the left is another context than the same one to the right.
        window: largest distance of neighbours.
        ignored_ids: special tokens.
        seed: of the randomised decomposition.

    Returns:
        (vocab_size, size) float32, centred, with a standard deviation of 1 over the tokens that occur; all zero for
        those that do not, and for the ignored ones.
    """
    # a second of imports that runs without this start need not wait for
    from sklearn.utils.extmath import randomized_svd

    step = max(1, -(-rows.size // MAX_TOKENS))
    right = right_neighbour_counts(rows[::step], vocab_size, window)
    counts = scipy.sparse.hstack([right, right.T]).tocsr() if directional else (right + right.T).tocsr()
    information = positive_mutual_information(counts, ignored_ids)
    rank = min(size, vocab_size - 1)
    left, values, _ = randomized_svd(information, rank, n_iter=_POWER_ITERATIONS, random_state=seed)
    embeddings = np.zeros((vocab_size, size), dtype=np.float32)
    embeddings[:, :rank] = left * np.sqrt(values)
    occurring = np.diff(information.indptr) > 0
    if occurring.any():
        # what all vectors have in common tells none from another (Mu & Viswanath 2018)
        embeddings[occurring] -= embeddings[occurring].mean(axis=0)
        embeddings[occurring] /= embeddings[occurring].std()
    embeddings[~occurring] = 0
    return embeddings
