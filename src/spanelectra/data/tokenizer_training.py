"""Train byte-level BPE and WordPiece tokenizers, and write them as Hugging Face directories.

Byte-level BPE loses nothing: decoding gives back the text byte for byte (or, lower-cased, the lower-cased text).
WordPiece normalises as BERT does and knows only the characters that it was trained on; a word with another is [UNK].
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from spanelectra.atomic_files import write_json
from spanelectra.errors import UserError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer, models, processors

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # their ids are 0 to 4
CONTINUING_PREFIX = "##"
ALPHABET_LIMIT = 1000  # characters that WordPiece keeps, the most frequent ones


def train_byte_level(
    texts: Iterable[str], vocab_size: int, min_frequency: int, lowercase: bool, show_progress: bool
) -> Tokenizer:
    """Train GPT-2's kind of BPE, whose alphabet is always all 256 bytes; raises ``UserError`` where they do not fit."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _check_vocab_size(vocab_size, f"{len(alphabet)} bytes", len(alphabet))
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=_special_tokens(),
        initial_alphabet=alphabet,
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _post_processor()
    return tokenizer


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Count how often each character occurs."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    return characters


def train_wordpiece(
    texts: Iterable[str],
    characters: Counter[str],
    vocab_size: int,
    min_frequency: int,
    lowercase: bool,
    show_progress: bool,
) -> Tokenizer:
    """Train BERT's kind of WordPiece; raises ``UserError`` where the alphabet does not fit.

    The alphabet, "##" forms included, is chosen and numbered here: the trainer would number it by the order of a hash
    table, another one in every run.

    Args:
        texts: what to train on.
        characters: how often each character occurs in it, before normalisation.
        vocab_size, min_frequency, lowercase, show_progress: as for ``vocab``.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        counts.update(dict.fromkeys(normalizer.normalize_str(character), count))
    counts.pop(" ", None)
    alphabet = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:ALPHABET_LIMIT])
    continuing = [CONTINUING_PREFIX + character for character in alphabet if _can_continue_a_word(character)]
    described = f"{len(alphabet)} characters, {len(continuing)} of them also inside words,"
    _check_vocab_size(vocab_size, described, len(alphabet + continuing))

    def pipeline(model: models.WordPiece) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix=CONTINUING_PREFIX, cleanup=False)
        return tokenizer

    trained = pipeline(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *continuing],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUING_PREFIX,
        show_progress=show_progress,
    )
    trained.train_from_iterator(texts, trainer)
    # A new tokenizer, because in the trained one the alphabet counts as special tokens.
    model = models.WordPiece(trained.get_vocab(), unk_token="[UNK]", continuing_subword_prefix=CONTINUING_PREFIX)
    tokenizer = pipeline(model)
    tokenizer.add_special_tokens(_special_tokens())
    tokenizer.post_processor = _post_processor()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path, model_name: str, max_seq_length: int) -> None:
    """Write what ``AutoTokenizer`` opens, and the classic vocabulary files of the model."""
    from transformers import PreTrainedTokenizerFast

    roles = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_seq_length,
        clean_up_tokenization_spaces=False,
        name=model_name,
        **roles,
    ).save_pretrained(directory)
    # transformers 5 writes a class name that transformers 4 does not know; this one opens in both.
    configuration_path = directory / "tokenizer_config.json"
    configuration = json.loads(configuration_path.read_text(encoding="utf-8"))
    configuration["tokenizer_class"] = "PreTrainedTokenizerFast"
    # transformers 4 would add token types
    configuration["model_input_names"] = ["input_ids", "attention_mask"]
    write_json(configuration_path, configuration)
    tokenizer.model.save(str(directory))


def _check_vocab_size(vocab_size: int, alphabet: str, alphabet_size: int) -> None:
    minimum = alphabet_size + len(SPECIAL_TOKENS)
    if vocab_size < minimum:
        raise UserError(
            f"vocab_size {vocab_size} is smaller than the alphabet: {alphabet} and {len(SPECIAL_TOKENS)} special "
            f"tokens need {minimum}. Give --vocab_size {minimum} or more."
        )


def _can_continue_a_word(character: str) -> bool:
    """Whether BERT's pre-tokeniser ever joins the character to one before it."""
    from tokenizers import normalizers, pre_tokenizers

    text = normalizers.BertNormalizer(lowercase=False).normalize_str("a" + character)
    return len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)) == 1


def _special_tokens() -> list[AddedToken]:
    from tokenizers import AddedToken

    # [MASK] takes the space before it, as a word does: "the [MASK] sat" is filled with a word that brings its space.
    return [AddedToken(token, special=True, normalized=False, lstrip=token == "[MASK]") for token in SPECIAL_TOKENS]


def _post_processor() -> processors.TemplateProcessing:
    """``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``, the second segment with type id 1."""
    from tokenizers import processors

    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
