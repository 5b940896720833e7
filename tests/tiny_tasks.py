"""Tasks that a tiny encoder learns in seconds, from fresh weights, and encoders and a tokenizer for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from factories import encoder_config, perturb
from spanelectra.encoder_families import build_detector
from spanelectra.export import save_tokenizer
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from squad_examples import write_squad

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
_SENTENCE = "the mill stood by a river and its wheel turned all day while boats went past under old trees"
FILLERS = _SENTENCE.split()
GOOD, BAD = ["good", "fine", "lovely"], ["bad", "poor", "dreadful"]
NAMES, PLACES = ["ida", "lund", "jack", "jill"], ["oslo", "alder", "bergen"]
NUMBERS = ["one", "two", "three", "four", "five"]
QUESTION = "which number"
WORDS = [*SPECIAL, *FILLERS, *GOOD, *BAD, *NAMES, *PLACES, *NUMBERS, *QUESTION.split()]
LONGEST = 40


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=LONGEST, **roles)


def save_encoder(family: str, directory: Path, *, detector: bool = False, seed: int = 0) -> PreTrainedModel:
    """Write a masked language model, or a replaced-token detector, with perturbed weights, and its tokenizer."""
    torch.manual_seed(seed)
    config = encoder_config(family, embedding_size=16 if family == "electra" else None)
    model = build_detector(config) if detector else AutoModelForMaskedLM.from_config(config)
    perturb(model, seed)
    model.save_pretrained(directory)
    save_tokenizer(make_tokenizer(), directory, LONGEST)
    return model


def _fillers(source: random.Random) -> list[str]:
    return source.choices(FILLERS, k=source.randint(3, 9))


def _with(words: list[str], extra: list[str], source: random.Random) -> list[str]:
    place = source.randint(0, len(words))
    return [*words[:place], *extra, *words[place:]]


def write_classification(path: Path, count: int, seed: int) -> str:
    """Sentences with one word that tells the class."""
    source, lines = random.Random(seed), ["sentence\tlabel"]
    for number in range(count):
        words = _with(_fillers(source), [source.choice(BAD if number % 2 else GOOD)], source)
        lines.append(f"{' '.join(words)}\t{'bad' if number % 2 else 'good'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def write_tagged(path: Path, count: int, seed: int) -> str:
    """Sentences with a person and a place, each of one word."""
    source, blocks = random.Random(seed), []
    for _ in range(count):
        words = _with(_fillers(source), [source.choice(NAMES), "by", source.choice(PLACES)], source)
        tags = ["B-PER" if word in NAMES else "B-LOC" if word in PLACES else "O" for word in words]
        blocks.append("\n".join(f"{word} {tag}" for word, tag in zip(words, tags, strict=True)))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return str(path)


def write_questions(path: Path, count: int, seed: int) -> str:
    """Contexts with one number, which is asked for."""
    source, paragraphs = random.Random(seed), []
    for number in range(count):
        answer = source.choice(NUMBERS)
        context = " ".join(_with(_fillers(source), [answer], source))
        answers = [{"text": answer, "answer_start": f" {context} ".index(f" {answer} ")}]
        question = {"id": str(number), "question": QUESTION, "answers": answers}
        paragraphs.append({"context": context, "qas": [question]})
    return write_squad(path, {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})


_WRITERS = {"classification": write_classification, "token": write_tagged, "qa": write_questions}
_ENDINGS = {"classification": "tsv", "token": "conll", "qa": "json"}


def write_task(directory: Path, kind: str, train: int = 160, dev: int = 40) -> dict[str, str]:
    """Train, dev and test files of a task."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = {"train": train, "dev": dev, "test": dev}
    return {
        name: _WRITERS[kind](directory / f"{name}.{_ENDINGS[kind]}", size, seed)
        for seed, (name, size) in enumerate(sizes.items())
    }


def quick(model: Path, files: dict[str, str], out_dir: Path, **settings: Any) -> FineTuningArguments:
    """Settings by which such a task is learned in seconds."""
    kind = {".tsv": "classification", ".conll": "token", ".json": "qa"}[Path(files["train"]).suffix]
    defaults: dict[str, Any] = {"task": kind, "model": str(model), "out_dir": str(out_dir), **files}
    defaults |= {"learning_rate": 3e-3, "epochs": 4, "batch_size": 16, "max_length": 32, "bf16": "false", "quiet": True}
    return FineTuningArguments(**{**defaults, **settings})
