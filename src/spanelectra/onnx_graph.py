"""A stock model -> an ONNX graph, by transformers' own exporter; and how far the two differ."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.console import silent_transformers
from spanelectra.errors import UserError, reason_of

if TYPE_CHECKING:
    import onnx_ir
    import onnxruntime

GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "model.onnx.data"
AXES = ("batch_size", "sequence_length")
# A protobuf message cannot exceed 2 GiB; the weights of a larger model go into a file of their own.
LARGEST_MESSAGE = 2_000_000_000
# Sentences and tokens of what the exporter sees, and of what the graph is then compared on.
_TRACED = (2, 9)
_COMPARED = ((1, 1), (3, 17), (1, 64), (5, 33))
_LONGEST_COMPARED = 512


def check_onnx_packages() -> None:
    """Raise :class:`UserError` where a package for ONNX is missing, or one is too old."""
    try:
        import onnxruntime  # noqa: F401
        from transformers.exporters import OnnxExporter

        with silence():
            OnnxExporter()  # looks for the packages and versions that it needs
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"ONNX needs more packages ({reason}): pip install 'spanelectra[onnx]'") from error


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that model and tokenizer take."""
    return min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", tokenizer.model_max_length))


def make_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, length: int
) -> dict[str, Tensor]:
    """What the tokenizer gives and the model takes, filled at random; of several rows the last is half padding.

    Returns:
        Name -> (rows, length) int64.
    """
    random = torch.Generator().manual_seed(rows * length)
    input_ids = torch.randint(model.config.vocab_size, (rows, length), generator=random)
    attention_mask = torch.ones_like(input_ids)
    if rows > 1:
        attention_mask[-1, (length + 1) // 2 :] = 0
    # a model without types, or with a single one, knows type 0 only
    types = max(1, getattr(model.config, "type_vocab_size", 1))
    token_type_ids = torch.randint(types, (rows, length), generator=random)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    taken = set(inspect.signature(model.forward).parameters) & set(tokenizer.model_input_names)
    return {name: tensor for name, tensor in inputs.items() if name in taken}


def trace(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> onnx_ir.Model:
    """The model as an ONNX graph with two free axes, :data:`AXES`; it holds no path of this machine.

    Raises:
        UserError: where transformers' exporter does not get through the model.
    """
    from transformers.exporters import OnnxConfig, OnnxExporter

    longest = longest_input(model, tokenizer)
    inputs = make_inputs(model, tokenizer, _TRACED[0], min(_TRACED[1], longest))
    # named axes and not `dynamic=True`, which quietly fixes an axis that the model's code cannot leave free
    axes = {0: torch.export.Dim(AXES[0]), 1: torch.export.Dim(AXES[1], max=longest)}
    try:
        exported = OnnxExporter().export(model, inputs, OnnxConfig(dynamic_shapes=dict.fromkeys(inputs, axes)))
    except Exception as error:  # tracing runs the model's whole code and raises what that raises
        reason = reason_of(error)
        raise UserError(f"transformers cannot export {type(model).__name__} to ONNX ({reason})") from error
    # transformers 5.20 and older return torch's program, later ones a model around it
    graph = exported.model if isinstance(exported, torch.onnx.ONNXProgram) else exported.program
    _tidy(graph)
    return graph


def _tidy(model: onnx_ir.Model) -> None:
    """Give the axes their names, and take out the tracer's notes, which are stack traces for the most part."""
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    graph = model.graph
    names = {str(size): AXES[axis] for value in graph.inputs for axis, size in enumerate(value.shape or ())}
    for value in (*graph.inputs, *graph.outputs):
        value.shape = onnx_ir.Shape([names.get(str(size), size) for size in value.shape or ()])
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # in the tracer's symbols; runtimes work it out themselves
    for value in (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)):
        value.metadata_props.clear()


def save_graph(model: onnx_ir.Model, directory: Path) -> None:
    """Write ``model.onnx``; the weights of a model too large for one file become ``model.onnx.data``."""
    import onnx_ir

    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    is_large = sum(tensor.nbytes for tensor in tensors) > LARGEST_MESSAGE
    onnx_ir.save(model, directory / GRAPH_NAME, external_data=WEIGHTS_NAME if is_large else None)


def open_session(file: str | Path) -> onnxruntime.InferenceSession:
    """A graph in onnxruntime on the CPU, on as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails raises as well
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def compared_shapes(longest: int) -> list[tuple[int, int]]:
    """(rows, tokens) of the batches on which graph and model are compared; the exporter saw none of them."""
    shapes = [(rows, length) for rows, length in _COMPARED if length < longest]
    return [*shapes, (3, min(longest, _LONGEST_COMPARED))]


@torch.no_grad()
def largest_difference(
    session: onnxruntime.InferenceSession, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> float:
    """Compare every output of a graph with the model's own on :func:`compared_shapes`, wherever there is no padding.

    Returns:
        The largest absolute difference as a fraction of the largest absolute value of that output: not a number where
        one of the two is none, infinity where shapes differ.
    """
    differences = []
    for rows, length in compared_shapes(longest_input(model, tokenizer)):
        inputs = make_inputs(model, tokenizer, rows, length)
        read, expected = inputs["attention_mask"].bool(), model(**inputs)
        arrays = session.run(None, {spec.name: inputs[spec.name].numpy() for spec in session.get_inputs()})
        for spec, array in zip(session.get_outputs(), arrays, strict=True):
            own, found = expected[spec.name], torch.from_numpy(array)
            if own.shape != found.shape:
                return float("inf")
            if tuple(spec.shape[:2]) == AXES:
                own, found = own[read], found[read]
            scale = own.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            differences.append((own - found).abs().max() / scale)
    # torch's maximum, unlike Python's, keeps a difference that is not a number
    return torch.stack(differences).max().item()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without what torch and transformers print: stages, versions they were not tried with, and progress bars."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with silent_transformers(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
