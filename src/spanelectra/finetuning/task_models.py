"""An encoder and a task -> a stock ``AutoModelFor…`` model with a fresh head."""

from __future__ import annotations

import copy

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import EncoderSource
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.task import TargetScale, Task


def build_task_model(source: EncoderSource, task: Task, settings: FineTuningArguments, seed: int) -> PreTrainedModel:
    """Build a stock model of the task's class around a copy of the encoder; everything above the encoder is fresh.

    A detector's head is left behind: it has two labels, too, and would be taken for a trained classifier's. ModernBERT
    classifies by the mean over all tokens: a discriminator is asked about every token, and [CLS] is never replaced.

    Args:
        source: the encoder; not changed.
        task: gives the class and the labels.
        settings: ``dropout`` and ``random_weights`` are read.
        seed: of the fresh weights; torch's global generator is seeded with it.

    Raises:
        UserError: where transformers has no model of this class for the encoder's family, or none whose numbers can be
            put into other units.
    """
    config = copy.deepcopy(source.encoder.config)
    for name, value in task.config_changes().items():
        setattr(config, name, value)
    if settings.dropout is not None:
        # every family has names of its own, which all say it; None stands for another field's value
        for name in [name for name, value in config.to_dict().items() if "dropout" in name and value is not None]:
            setattr(config, name, settings.dropout)
    if config.model_type == "modernbert":
        config.classifier_pooling = "mean"
    torch.manual_seed(seed)
    try:
        model = getattr(transformers, task.model_class).from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise UserError(
            f"transformers has no {task.model_class} for the family '{config.model_type}': {str(error).splitlines()[0]}"
        ) from error
    if task.target_scale is not None:
        # before hours of training, not after
        _output_layer(model)
    if not settings.random_weights:
        _take_encoder(model, source)
    return model


@torch.no_grad()
def _take_encoder(model: PreTrainedModel, source: EncoderSource) -> None:
    target, weights = encoder_of(model).state_dict(), source.encoder.state_dict()
    for name, tensor in target.items():
        # of the head, as far as fine-tuning goes
        if name.startswith("pooler.") and name not in weights:
            continue
        if name not in weights or weights[name].shape != tensor.shape:
            raise UserError(f"{source.name} cannot fill {name} {tuple(tensor.shape)} of {type(model).__name__}.")
        tensor.copy_(weights[name])


@torch.no_grad()
def fold_target_scale(model: PreTrainedModel, scale: TargetScale) -> None:
    """Make a model that was trained on standardised labels answer in the units of the files, whoever opens it.

    The last linear layer of the head takes deviation and mean into its weights.
    """
    last = _output_layer(model)
    last.weight.mul_(scale.deviation)
    last.bias.mul_(scale.deviation).add_(scale.mean)


def _output_layer(model: PreTrainedModel) -> nn.Linear:
    """The layer whose one output is a regression's answer."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != 1 or layers[-1].bias is None:
        raise UserError(f"regression: {type(model).__name__} does not end in a linear layer with a bias.")
    return layers[-1]
