"""Settings -> model: fresh, from a Hugging Face encoder, or from the generator of the first stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.checkpointing import TOKENIZER_DIRECTORY, find_model, list_checkpoints
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.cooccurrence import cooccurrence_embeddings
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.encoder_families import encoder_of, make_encoder_config, scale_encoder_config
from spanelectra.errors import UserError
from spanelectra.modeling_generator import SpanElectraGenerator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, share_weights
from spanelectra.shared_embeddings import materialise
from spanelectra.training_args import PretrainingArguments
from spanelectra.weight_transfer import (
    initialise_discriminator,
    initialise_generator,
    read_encoder_config,
    warm_start,
)

Report = Callable[[str], None]


def build_model(
    settings: PretrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    report: Report,
    *,
    corrupted_data: bool = False,
) -> SpanElectraForPreTraining:
    """Build the model of a run.

    Args:
        settings: resolved settings.
        tokenizer: of the prepared rows.
        length: tokens in a row.
        report: told, in a sentence each, where weights come from.
        corrupted_data: whether the data holds the fake spans already, so that no generator needs to draw them.

    Raises:
        UserError: for shapes, vocabularies or weights that do not fit.
    """
    torch.manual_seed(settings.seed)
    if settings.init_from:
        encoder = _encoder_to_continue("init_from", settings.init_from, tokenizer, length)
    else:
        encoder = make_encoder_config(
            settings.encoder,
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.num_hidden_layers,
            num_attention_heads=settings.num_attention_heads,
            intermediate_size=settings.intermediate_size,
            embedding_size=settings.embedding_size,
            max_position_embeddings=max(settings.max_position_embeddings, length),
            dropout=settings.dropout,
            token_ids={name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")},
        )
    if settings.stage == "discriminator":
        model = _discriminator_model(settings, tokenizer, length, encoder, report, corrupted_data)
    else:
        generator_encoder = None
        if settings.init_generator_from:
            source = settings.init_generator_from
            generator_encoder = _encoder_to_continue("init_generator_from", source, tokenizer, length)
        model = _joint_model(settings, encoder, generator_encoder, report)
    if settings.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    return model


def _encoder_to_continue(
    flag: str, directory: str, tokenizer: PreTrainedTokenizerBase, length: int
) -> PreTrainedConfig:
    encoder = read_encoder_config(directory, f"--{flag}")
    _check_tokenizer(f"--{flag} {directory}", directory, encoder, tokenizer)
    _check_positions(f"--{flag} {directory}", encoder, length)
    return encoder


def _check_tokenizer(
    source: str, directory: str, encoder: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The rows' tokenizer must be the one that lies with the weights: in a run, beside a checkpoint, or in the model.

    An encoder may have more entries than its tokenizer: some pad the vocabulary to a round number.
    """
    if encoder.vocab_size < len(tokenizer):
        raise UserError(
            f"{source}: its vocabulary has {encoder.vocab_size} entries, the rows' tokenizer {len(tokenizer)}. "
            f"Prepare the rows with --tokenizer {directory}."
        )
    path = Path(directory).expanduser()
    for place in (path / TOKENIZER_DIRECTORY, path, path.resolve().parent / TOKENIZER_DIRECTORY):
        if (place / "tokenizer.json").is_file():
            if tokenizer_fingerprint(load_tokenizer(str(place))) != tokenizer_fingerprint(tokenizer):
                raise UserError(
                    f"{source} was trained with another tokenizer than --data was prepared with. "
                    f"Prepare the rows with --tokenizer {place}."
                )
            return


def _check_positions(source: str, encoder: PreTrainedConfig, length: int) -> None:
    if encoder.max_position_embeddings < length:
        raise UserError(
            f"{source}: it takes {encoder.max_position_embeddings} positions, the rows have {length}. "
            "Prepare shorter rows."
        )


def _boundary_settings(settings: PretrainingArguments) -> dict[str, Any]:
    return {
        "sampling_source": settings.sampling_source,
        # what the run arrives at; the trainer says what it is on the way
        "sampling_temperature": settings.temperature_schedule()(1.0),
        "max_span_length": settings.max_span_length,
        "span_position_size": settings.span_position_size,
    }


def _joint_model(
    settings: PretrainingArguments,
    encoder: PreTrainedConfig,
    generator_encoder: PreTrainedConfig | None,
    report: Report,
) -> SpanElectraForPreTraining:
    """Generator and discriminator, or the generator alone where no objective trains a discriminator."""
    joint = bool(settings.discriminator_objectives)
    assert settings.generator_size is not None
    # a checkpoint's layers can be copied, its width cannot be cut
    size = 1.0 if settings.init_from else settings.generator_size
    generator_config = generator_encoder or scale_encoder_config(encoder, size, settings.generator_depth)
    config = SpanElectraConfig(
        generator_config=generator_config,
        discriminator_config=encoder if joint else None,
        objectives=settings.objectives,
        sharing="none" if settings.init_from or not joint else settings.sharing,
        **_boundary_settings(settings),
    )
    model = SpanElectraForPreTraining(config)
    if settings.init_from:
        assert model.generator is not None
        if model.discriminator is not None:
            report(str(initialise_discriminator(model.discriminator, settings.init_from)))
        report(str(initialise_generator(model.generator, settings.init_generator_from or settings.init_from)))
        if model.discriminator is not None:
            # shared only now, so that both were filled as stock models
            config.sharing = settings.sharing
            config.check()
            share_weights(model.generator, model.discriminator, config.sharing)
    return model


def load_generator(run: str | Path, report: Report) -> SpanElectraForPreTraining:
    """Open the model of a run that trained a generator.

    Args:
        run: or a saved model.
        report: told where the run has not ended, and which of its checkpoints is taken.

    Raises:
        UserError: where it holds none, or one whose weights are no numbers: its samples would be all the same, which a
            discriminator learns to tell in no time.
    """
    directory = find_model(run)
    if directory in list_checkpoints(run):
        report(f"{run} has no finished model that is whole: its newest whole checkpoint is taken, {directory.name}")
    trained = SpanElectraForPreTraining.from_pretrained(directory)
    if trained.generator is None:
        raise UserError(f"--generator {run}: this run trained no generator. Run --stage generator first.")
    if trained.discriminator is not None:
        report(f"{run} has a discriminator, too: of it only the generator is taken")
    broken = [name for name, weight in trained.generator.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise UserError(f"--generator {run}: {broken[0]} holds what is no number; its training diverged.")
    return trained


def check_generator_fits(
    generator: str, trained: SpanElectraForPreTraining, tokenizer: PreTrainedTokenizerBase, length: int
) -> None:
    """Check that a trained generator can read rows of another directory.

    Args:
        generator: the run (or saved model) that it is from.
        trained: its model.
        tokenizer, length: of the rows.

    Raises:
        UserError: for another tokenizer or vocabulary, or rows longer than its positions.
    """
    assert trained.generator is not None
    _check_tokenizer(f"--generator {generator}", str(find_model(generator)), trained.generator.config, tokenizer)
    _check_positions(f"--generator {generator}", trained.generator.config, length)


def _discriminator_model(
    settings: PretrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    encoder: PreTrainedConfig,
    report: Report,
    corrupted_data: bool,
) -> SpanElectraForPreTraining:
    """A discriminator started from a trained generator, which stays, frozen, where samples must be drawn from it."""
    draws_samples = settings.generator is not None and not corrupted_data
    trained = load_generator(settings.generator, report) if settings.generator else None
    if settings.generator and trained is not None:
        check_generator_fits(settings.generator, trained, tokenizer, length)
    generator_config = trained.generator.config if trained is not None and trained.generator is not None else None
    if generator_config is not None and not settings.init_from and not settings.has_chosen_shape():
        encoder = copy.deepcopy(generator_config)
        report(f"discriminator: the generator's shape ({encoder.num_hidden_layers} layers of {encoder.hidden_size})")
    config = SpanElectraConfig(
        generator_config=generator_config if draws_samples else None,
        discriminator_config=encoder,
        objectives=settings.objectives,
        sharing="none",
        freeze_generator=draws_samples,
        **_boundary_settings(settings),
    )
    model = SpanElectraForPreTraining(config)
    assert model.discriminator is not None
    generator = trained.generator if trained is not None else None
    if generator is not None and model.generator is not None:
        copy_generator(generator, model.generator)
    if settings.init_from:
        report(str(initialise_discriminator(model.discriminator, settings.init_from)))
    elif generator is not None:
        report(str(warm_start(model.discriminator, generator, settings.warm_start)))
    return model


def copy_generator(trained: SpanElectraGenerator, target: SpanElectraGenerator) -> None:
    """Fill a fresh generator with a trained one's weights, its shared embeddings made ordinary.

    Raises:
        UserError: where sampling needs a boundary head that was not trained.
    """
    target.language_model.load_state_dict(materialise(trained.language_model).state_dict())
    if target.span_boundary_head is not None:
        if trained.span_boundary_head is None:
            raise UserError("sampling_source needs a generator trained with SBGO; this one was not. Sample from mlm.")
        heads = trained.span_boundary_head, target.span_boundary_head
        (length, size), wanted = (head.position_embeddings.weight.shape for head in heads)
        if (length, size) != wanted:
            raise UserError(
                "sampling_source takes the generator's span-boundary head, and both models have heads of one size: add "
                f"--max_span_length {length} --span_position_size {size}, as the generator was trained."
            )
        target.span_boundary_head.load_state_dict(trained.span_boundary_head.state_dict())


@torch.no_grad()
def start_from_cooccurrence(
    model: SpanElectraForPreTraining,
    input_ids: NDArray[np.integer[Any]],
    special_ids: Collection[int],
    seed: int,
    *,
    directional: bool = False,
) -> str:
    """Fill the token embeddings with what tokens occur together; those that do not occur keep their fresh vectors.

    Args:
        model: fresh; embeddings that generator and discriminator share are filled once.
        input_ids: (rows, length) training rows.
        special_ids: tokens left as they are.
        seed: of the decomposition.
        directional: whether neighbours to the left and to the right are told apart.

    Returns:
        What was filled, in a sentence.
    """
    tables = [
        (table, stock.config.initializer_range)
        for stock in _stock_models(model)
        if isinstance(table := stock.get_input_embeddings(), nn.Embedding)
    ]
    sizes = [table.embedding_dim for table, _ in tables]
    vectors = cooccurrence_embeddings(
        input_ids,
        tables[0][0].num_embeddings,
        max(sizes),
        directional=directional,
        ignored_ids=special_ids,
        seed=seed,
    )
    found = torch.from_numpy(vectors)
    occurring = found.abs().sum(dim=1) > 0
    for table, scale in tables:
        # the leading columns are the narrower decomposition
        columns = found[occurring, : table.embedding_dim]
        table.weight[occurring] = (columns / columns.std() * scale).to(table.weight)
    return f"embeddings: {int(occurring.sum()):,} of {len(found):,} tokens start from what they occur with"


@torch.no_grad()
def start_from_unigram(model: SpanElectraForPreTraining, token_counts: NDArray[np.int64]) -> str:
    """Fill the biases of vocabulary projections with log frequencies (Meister et al. 2023, "A natural bias").

    A bias moves by a learning rate a step, so that from zero it takes thousands of steps to say that a token is rare.
    Until then tied embeddings have to say it, by which those of rare tokens all come to point the same way.

    Args:
        model: fresh; filled is the generator's projection, and that of the discriminator's correction where it has one.
        token_counts: (vocabulary,) of the training rows; one is added to each, for what never occurs.

    Returns:
        What was filled, in a sentence.
    """
    language_models = [model.generator.language_model] if model.generator is not None else []
    if model.discriminator is not None and model.discriminator.corrector is not None:
        language_models.append(model.discriminator.corrector)
    counts = torch.from_numpy(token_counts) + 1.0
    for language_model in language_models:
        language_model.get_output_embeddings().bias.copy_((counts / counts.sum()).log())
    return f"output biases: {len(counts):,} tokens start from how often they occur"


def compile_encoders(model: SpanElectraForPreTraining) -> str | None:
    """Compile the encoders in place; returns why not, where no compiler works here, and leaves them eager."""
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        probe = torch.compile(lambda x: torch.relu(x) * 2)
        probe(torch.ones(8, device=device, requires_grad=True)).sum().backward()
    except Exception as error:  # whatever the compiler's backend raises, eager still works
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        return f"torch.compile does not work here ({reason}); going on without it"
    for stock in _stock_models(model):
        encoder_of(stock).compile()
    return None


def enable_gradient_checkpointing(model: SpanElectraForPreTraining) -> None:
    """Recompute activations in the backward pass instead of keeping them."""
    for stock in _stock_models(model):
        # the new name warns no one, where transformers has it
        has_new_name = hasattr(stock, "activation_checkpointing_enable")
        getattr(stock, "activation_checkpointing_enable" if has_new_name else "gradient_checkpointing_enable")()


def _stock_models(model: SpanElectraForPreTraining) -> list[PreTrainedModel]:
    """The Hugging Face models inside, generator first."""
    models = [model.generator.language_model] if model.generator is not None else []
    return models + ([model.discriminator.detector] if model.discriminator is not None else [])
