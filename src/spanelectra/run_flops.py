"""FLOPs of every step of a run, whatever its settings change on the way: batch, sequence length, what is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spanelectra.argument_groups import OBJECTIVES
from spanelectra.data.row_cutting import RowCutting
from spanelectra.flops import row_training_flops
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.training_args import PretrainingArguments


def row_flops_over_run(
    model: SpanElectraForPreTraining,
    settings: PretrainingArguments,
    row_length: int,
    cutting: RowCutting | None,
    scored: Callable[[int], int],
    progress: NDArray[np.float64],
) -> NDArray[np.float64]:
    """FLOPs of training on one whole row of the data at moments of a run.

    Args:
        model: what is trained; weights are not looked at.
        settings: resolved.
        row_length: tokens of a whole row.
        cutting: how rows become shorter ones; ``None`` for whole rows.
        scored: tokens of a row, or of a part of one -> its masked positions.
        progress: (n,) moments from 0 at the start to 1 at the end.

    Returns:
        (n,) FLOPs.
    """
    lengths = np.full(progress.shape, row_length) if cutting is None else cutting.lengths(progress)
    weights = settings.loss_weights_at(progress)
    # a run has few kinds of steps, however many steps it has: a kind is a length, and a bit for each objective
    kinds = lengths << len(OBJECTIVES)
    for bit, name in enumerate(OBJECTIVES):
        kinds |= (weights[name] > 0).astype(np.int64) << bit
    distinct, kind_of = np.unique(kinds, return_inverse=True)
    costs = []
    for kind in distinct.tolist():
        length = kind >> len(OBJECTIVES)
        active = [name for bit, name in enumerate(OBJECTIVES) if kind >> bit & 1]
        costs.append(row_length // length * row_training_flops(model, length, scored(length), active))
    return np.array(costs)[kind_of]
