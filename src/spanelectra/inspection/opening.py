"""A run, one of its checkpoints, or an export -> the model to look into, and what it cannot show."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.checkpointing import CHECKPOINT_DIRECTORY, model_type
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.console import silent_transformers
from spanelectra.data.span_masking import SpanMaskingPolicy
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.data.word_starts import WordStartTable, word_start_table
from spanelectra.encoder_families import VERDICT_LABELS
from spanelectra.errors import UserError, reason_of
from spanelectra.export import PARTS, longest_input, open_run, run_settings
from spanelectra.inspection.token_texts import TokenTexts
from spanelectra.masking_setup import masking_policy
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.weight_transfer import read_encoder_config

_STOCK_CLASSES = "a …ForMaskedLM, an ElectraForPreTraining, or a …ForTokenClassification of original and replaced"


@dataclass(frozen=True)
class InspectedModel:
    """A model in evaluation mode, with what it takes to show text to it.

    Attributes:
        model: with a generator, a discriminator or both.
        tokenizer: the model's.
        source: the directory as it was given.
        policy: by which spans are drawn at random: the run's own law of span lengths, or the default.
        notices: sentences on what the model has not, and therefore cannot show.
    """

    model: SpanElectraForPreTraining
    tokenizer: PreTrainedTokenizerBase
    source: str
    policy: SpanMaskingPolicy
    notices: tuple[str, ...]

    @functools.cached_property
    def word_starts(self) -> WordStartTable:
        """The tokenizer's table of word starts."""
        return word_start_table(self.tokenizer)

    @functools.cached_property
    def texts(self) -> TokenTexts:
        """Token ids -> text."""
        return TokenTexts(self.tokenizer)

    @property
    def longest_input(self) -> int:
        """The most tokens that every encoder takes, [CLS] and [SEP] included."""
        return longest_input(self.model)


def open_for_inspection(directory: str | Path) -> InspectedModel:
    """Open what ``spanelectra pretrain`` or ``spanelectra export`` wrote.

    Args:
        directory: a run, one of its checkpoints, the directory of an export, or its ``discriminator``, ``generator`` or
            ``checkpoint`` alone. An export is opened by its checkpoint where that lies beside the two.

    Raises:
        UserError: where there is no such model, it is damaged, or its parts do not belong together.
    """
    path = Path(directory).expanduser()
    parts = {name: path / name for name in PARTS if (path / name / "config.json").is_file()}
    if (path / CHECKPOINT_DIRECTORY / "config.json").is_file() and parts:
        parts = {}
    elif (path / "config.json").is_file() and not parts:
        config = read_encoder_config(path, "--model") if model_type(path) != SpanElectraConfig.model_type else None
        parts = {_part_of(path, config): path} if config is not None else {}
    if parts:
        model, tokenizer = _open_stock_parts(parts)
    else:
        model, tokenizer, _ = open_run(path)
    notices = _notices(model, is_export=bool(parts))
    policy = _span_policy(directory, model)
    if policy is None:
        policy = SpanMaskingPolicy(max_span_length=model.config.max_span_length)
        if parts:
            notices.append("how the run masked is not told by its models: spans at random follow the defaults")
    return InspectedModel(model, tokenizer, str(directory), policy, tuple(notices))


def _span_policy(directory: str | Path, model: SpanElectraForPreTraining) -> SpanMaskingPolicy | None:
    """The run's masking, where its settings are there; single words for a run that masked single tokens."""
    settings = run_settings(directory)
    if settings is None:
        return None
    policy = dataclasses.replace(masking_policy(settings), max_span_length=model.config.max_span_length, decoys=True)
    return policy if policy.masking == "span" else dataclasses.replace(policy, masking="span", max_span_words=1)


def _part_of(directory: Path, config: PreTrainedConfig) -> str:
    """Whether a stock model is a generator or a discriminator."""
    (name,) = config.architectures or ("a model without a head",)
    if name.endswith("ForMaskedLM"):
        return "generator"
    is_detector = name.endswith("ForTokenClassification") and config.id2label == VERDICT_LABELS
    if name == "ElectraForPreTraining" or is_detector:
        return "discriminator"
    raise UserError(f"--model {directory} is {name}; only {_STOCK_CLASSES} can be looked into.")


def _open_stock_parts(
    parts: dict[str, Path],
) -> tuple[SpanElectraForPreTraining, PreTrainedTokenizerBase]:
    """Put stock models where a run has its own, so that everything else is the same for both."""
    stock, tokenizers = {}, {}
    for name, directory in parts.items():
        config = read_encoder_config(directory, "--model")
        if _part_of(directory, config) != name:
            raise UserError(f"{directory} holds no {name}: it is {(config.architectures or ['?'])[0]}.")
        stock[name] = _load(directory, config)
        tokenizers[name] = load_tokenizer(directory)
    if len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers.values()}) > 1:
        raise UserError("generator and discriminator have different tokenizers; they are not of one export.")
    both = len(stock) == len(PARTS)
    model = SpanElectraForPreTraining(
        SpanElectraConfig(
            generator_config=stock["generator"].config if "generator" in stock else None,
            discriminator_config=stock["discriminator"].config if "discriminator" in stock else None,
            objectives=["ato"] if "discriminator" in stock else ["mlm"],
            sharing="none",
            freeze_generator=both,
        )
    )
    if model.generator is not None:
        model.generator.language_model = stock["generator"]
    if model.discriminator is not None:
        model.discriminator.detector = stock["discriminator"]
    return model.eval(), next(iter(tokenizers.values()))


def _load(directory: Path, config: PreTrainedConfig) -> PreTrainedModel:
    stock_class = getattr(transformers, (config.architectures or [""])[0])
    with silent_transformers():
        try:
            model, info = stock_class.from_pretrained(directory, output_loading_info=True)
        except Exception as error:  # transformers and safetensors raise what they like
            reason = reason_of(error)
            raise UserError(f"{directory}: the weights cannot be read ({reason}).") from error
    if info["missing_keys"]:
        raise UserError(f"{directory}: weights are missing, {sorted(info['missing_keys'])[0]} for one; export again.")
    return model


def _notices(model: SpanElectraForPreTraining, *, is_export: bool) -> list[str]:
    notices = []
    if model.generator is None:
        notices.append(
            "there is no generator, hence no candidates: random tokens stand in the masked spans (in the page any "
            "token can be edited by hand)"
        )
    if model.discriminator is None:
        notices.append("there is no discriminator: nothing judges the tokens")
    if model.discriminator is not None and not {"ato", "sbpo"} & set(model.config.objectives or ()):
        notices.append("the discriminator was trained to correct alone: its verdicts mean nothing")
    heads = (("generator", "SBGO"), ("discriminator", "SBPO"))
    missing = [
        head for part, head in heads if (own := getattr(model, part)) is not None and own.span_boundary_head is None
    ]
    if missing:
        reason = (
            "an exported model has no span-boundary heads"
            if is_export
            else "the model has no head that predicts from span boundaries"
        )
        advice = "; look into the run, or the export's checkpoint, for them" if is_export else ""
        notices.append(f"{reason}, hence no {' and no '.join(missing)}{advice}")
    return notices
