"""Sentences with entities, a file of them, and tokenizers of every kind trained on their words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from spanelectra.data.tokenization import load_tokenizer, vocab
from spanelectra.finetuning.conll_files import Sentence
from spanelectra.finetuning.task import Feature, Logits
from spanelectra.finetuning.word_windows import NO_WORD

# in IOB1: B- only where two entities of a type touch
SENTENCES = [
    "Ida/I-PER Lund/I-PER walked/O from/O Alder/I-LOC to/O Grey/I-LOC Mills/I-LOC ./O",
    "The/O Alder/I-ORG Times/I-ORG met/O Ida/I-PER Ida/B-PER Lund/I-PER in/O Oslo/I-LOC ./O",
    "Nobody/O walked/O ./O",
    "Café/I-ORG Münster/I-ORG ,/O Oslo/I-LOC :/O 1,250/O krone/O #/O 7/O",
]
KINDS = ("BPE", "BPE-lower", "BERT", "BERT-lower", "roberta", "metaspace")


def split_tags(sentences: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Words and tags of sentences like those above."""
    pairs = [[token.rsplit("/", 1) for token in sentence.split()] for sentence in sentences]
    return [([word for word, _ in pair], [tag for _, tag in pair]) for pair in pairs]


def write_conll(path: Path, sentences: Sequence[str]) -> str:
    """Write two columns."""
    blocks = ["\n".join(f"{w} {t}" for w, t in zip(*pair, strict=True)) for pair in split_tags(sentences)]
    text = "\n\n".join(blocks) + "\n"
    path.write_text(text, encoding="utf-8")
    return str(path)


def make_examples(sentences: Sequence[str]) -> list[Sentence]:
    """Sentences as a task reads them, without a file."""
    examples: list[Sentence] = []
    line = 1
    for words, tags in split_tags(sentences):
        examples.append(Sentence(words, tags, list(range(line, line + len(words))), "file.conll"))
        line += len(words) + 1
    return examples


def logits_of(labels: list[str], examples: Sequence[Sentence], features: Sequence[Feature]) -> list[Logits]:
    """Logits that say the examples' labels where a word is read, and noise elsewhere."""
    random = np.random.default_rng(0)
    logits = []
    for feature in features:
        scores = random.normal(size=(len(feature["input_ids"]), len(labels))).astype(np.float32)
        for position, word in enumerate(feature["words"]):
            if word != NO_WORD:
                label = labels.index((examples[feature["example"]].tags or [])[word])
                scores[position] = np.arange(len(labels)) == label
        logits.append(scores)
    return logits


def make_tokenizer(kind: str, directory: Path) -> PreTrainedTokenizerBase:
    """Ours, BPE and WordPiece, lower-cased or not; one as RoBERTa's, and a Unigram one with "▁" before words."""
    text = [" ".join(words) for words, _ in split_tags(SENTENCES)]
    if kind.startswith("B"):
        path = directory / f"{kind}.txt"
        path.write_text("\n".join(text * 5), encoding="utf-8")
        name, _, lower = kind.partition("-")
        vocab(str(path), str(directory / kind), name, vocab_size=330, lowercase=bool(lower), quiet=True)  # type: ignore[arg-type]
        return load_tokenizer(directory / kind)
    specials = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    if kind == "roberta":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(text, trainer)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        unigram = trainers.UnigramTrainer(
            vocab_size=80, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
        tokenizer.train_from_iterator(text, unigram)
        # as T5's: nothing before the text
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    roles = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>", **roles)
