"""Tasks, a tokenizer and examples for the tests of classification and regression."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from spanelectra.finetuning.classification import Classification
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.text_examples import Example

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f", "g", "h"]


def task(**settings: Any) -> Classification:
    return Classification(
        FineTuningArguments(
            **{"task": "classification", "model": "m", "train": "t", "dev": "d", "out_dir": "o", **settings}
        ).resolved()
    )


def tokenizer(*, separates: bool = True) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if separates:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=8,  # so that longer texts would be warned of
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def examples(labels: Sequence[str | float | None], text: str = "a", pair: str | None = None) -> list[Example]:
    return [Example(f"{text} {n}", pair, label, "file.tsv", n + 1) for n, label in enumerate(labels)]


def scored(labels: Sequence[Any], predicted: Sequence[Any], **settings: Any) -> dict[str, float]:
    classification = task(**settings)
    if not settings.get("regression"):
        classification.load_state({"labels": sorted({*labels, *predicted, "0", "1"})})
    return classification.score(examples(labels), [{"predicted": answer} for answer in predicted])
