"""A tokenizer for the text: the command ``vocab`` trains one; any fast Hugging Face tokenizer can be loaded.

How one is trained is in :mod:`spanelectra.data.tokenizer_training`; which tokens start a word is told by
:mod:`spanelectra.data.word_starts`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from spanelectra.atomic_files import write_directory
from spanelectra.console import make_console, silent_transformers
from spanelectra.data.corpus import (
    CorpusStatistics,
    DocumentSeparator,
    documents_in_words,
    iterate_documents,
)
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.reporting import corpus_lines, print_summary
from spanelectra.data.text_files import did_you_mean_path
from spanelectra.data.tokenizer_training import count_characters, save_tokenizer, train_byte_level, train_wordpiece
from spanelectra.data.word_starts import WordStartTable, word_start_table
from spanelectra.errors import UserError, reason_of
from spanelectra.hub import check_model_name, out_of_reach
from spanelectra.recipe_files import checked_value

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["WordStartTable", "load_tokenizer", "tokenizer_fingerprint", "vocab", "word_start_table"]

TokenizerType: TypeAlias = Literal["BPE", "BERT"]
TRAINING_PIECE_CHARACTERS = 1 << 16  # the trainer gathers a few hundred texts before it counts them
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt")
# Files of which one at least holds the vocabulary of any tokenizer that transformers opens.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken")


def vocab(
    data_dir: str | list[str],
    out_dir: str,
    tokenizer_type: TokenizerType = "BPE",
    vocab_size: int = 10000,
    min_frequency: int = 2,
    model_name: str = "spanelectra",
    lowercase: bool = False,
    max_seq_length: int = 512,
    document_separator: DocumentSeparator = "blank_line",
    text_column: str = "text",
    encoding: str = "utf-8",
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a tokenizer on text and write it as a directory that ``AutoTokenizer.from_pretrained`` opens.

    Beside ``tokenizer.json`` and ``tokenizer_config.json`` the directory holds the classic ``vocab.json`` and
    ``merges.txt`` (BPE) or ``vocab.txt`` (BERT). The same data gives the same files, byte for byte.

    Args:
        data_dir: files, folders, globs or the name of a dataset; several are read in the order given.
        out_dir: directory to write; it appears complete or not at all.
        tokenizer_type: "BPE", byte-level as in GPT-2, or "BERT", WordPiece as in BERT.
        vocab_size: tokens in the vocabulary, the five special tokens and the alphabet (256 bytes, or the characters
            of the text, at most 1,000 of them) included.
        min_frequency: how often a pair of tokens must occur to become one.
        model_name: a name for the tokenizer, kept in its configuration.
        lowercase: turn text to lower case; "BERT" then strips accents, too.
        max_seq_length: the tokenizer's ``model_max_length``, special tokens included.
        document_separator: "file", "blank_line" or "line": what ends a document, in the summary's count.
        text_column: the field of JSON Lines, CSV, TSV and Parquet records that holds the text.
        encoding: of text files.
        overwrite: replace a tokenizer that ``out_dir`` holds.
        quiet: print nothing; warnings are in the summary, too.

    Returns:
        The summary: ``vocab_size`` as trained, ``documents``, ``megabytes``, ``seconds``, ``warnings`` and more.

    Raises:
        UserError: data that cannot be read, a vocabulary smaller than its alphabet, an ``out_dir`` in use.
    """
    started = time.perf_counter()
    tokenizer_type = checked_value(tokenizer_type, TokenizerType, "tokenizer_type")
    if min_frequency < 1:
        raise UserError(f"min_frequency is {min_frequency}: it must be at least 1.")
    if max_seq_length < 8:
        raise UserError(f"max_seq_length is {max_seq_length}: it must be at least 8.")
    directory = check_output_directory(out_dir, FILES, overwrite=overwrite)
    statistics = CorpusStatistics()

    def texts(statistics: CorpusStatistics) -> Iterator[str]:
        documents = iterate_documents(
            data_dir,
            document_separator=document_separator,
            text_column=text_column,
            encoding=encoding,
            statistics=statistics,
            piece_characters=TRAINING_PIECE_CHARACTERS,
        )
        return (document.text for document in documents)

    console = make_console(quiet)
    show_progress = console.is_terminal and not console.quiet
    if tokenizer_type == "BPE":
        tokenizer = train_byte_level(texts(statistics), vocab_size, min_frequency, lowercase, show_progress)
    else:
        characters = count_characters(texts(CorpusStatistics()))
        tokenizer = train_wordpiece(texts(statistics), characters, vocab_size, min_frequency, lowercase, show_progress)
    with write_directory(directory, replace=overwrite) as partial:
        save_tokenizer(tokenizer, partial, model_name, max_seq_length)

    seconds = time.perf_counter() - started
    trained_size = tokenizer.get_vocab_size()
    warnings = []
    if trained_size < vocab_size:
        warnings.append(
            f"the vocabulary has {trained_size:,} tokens, not {vocab_size:,}: too few pairs of tokens occur "
            f"{min_frequency} times. Give more text, or lower --min_frequency or --vocab_size."
        )
    lines = {"type": f"{tokenizer_type}{', lower-cased' if lowercase else ''}", "vocabulary": trained_size}
    lines |= {"documents": f"{statistics.documents:,} ({documents_in_words(statistics, document_separator)})"}
    print_summary(f"{model_name}: {out_dir}", lines | corpus_lines(statistics, seconds), warnings, quiet=quiet)
    return {
        "out_dir": str(out_dir),
        "model_name": model_name,
        "tokenizer_type": tokenizer_type,
        "vocab_size": trained_size,
        "max_seq_length": max_seq_length,
        "documents": statistics.documents,
        "files": statistics.files,
        "skipped_files": len(statistics.skipped),
        "megabytes": statistics.bytes_read / 1e6,
        "seconds": seconds,
        "warnings": warnings,
    }


def load_tokenizer(directory: str | Path, what: str = "tokenizer") -> PreTrainedTokenizerFast:
    """Open a fast tokenizer from a local directory or by its name on the Hugging Face Hub.

    Args:
        directory: directory or name.
        what: it is, to whoever gave it; a model's tokenizer lies with it.

    Raises:
        UserError: nothing there, not a fast tokenizer, or one without [CLS], [SEP], [PAD] or [MASK].
    """
    from transformers import AutoTokenizer

    name = str(Path(directory).expanduser())
    try:
        check_model_name(name, "tokenizer_config.json")
        if Path(name).is_dir():
            # of some models transformers makes a tokenizer of nothing, which knows no word
            _check_vocabulary(Path(name))
        # transformers looks into config.json beside it, and does not know the type of our full model
        with silent_transformers():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # the Hub, the network and the tokenizer classes raise what they like
        reason = reason_of(error)
        if Path(name).is_file():
            raise UserError(f"'{directory}' is a file; give the directory of a {what}.") from None
        if Path(name).is_dir():
            if "sentencepiece or tiktoken" in reason:
                # neither would help
                reason = "there is no tokenizer.json, and the other files make none."
            raise UserError(f"'{directory}' holds no tokenizer that opens: {reason}") from None
        hint = did_you_mean_path(Path(name))
        if sentence := out_of_reach(str(directory), error):
            raise UserError(f"{sentence}{hint}") from None
        reason = "" if isinstance(error, FileNotFoundError) else f" ({reason})"
        raise UserError(f"'{directory}' is neither a directory nor a {what} on the Hub.{hint}{reason}") from None
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer '{directory}' is not a fast one; it needs a tokenizer.json.")
    missing = [role for role in ("cls", "sep", "pad", "mask") if getattr(tokenizer, f"{role}_token") is None]
    if missing:
        listed = ", ".join(f"[{role.upper()}]" for role in missing)
        raise UserError(f"The tokenizer '{directory}' has no {listed} token; train one with `spanelectra vocab`.")
    # encoders do not chat; templates would be written beside the tokenizer, in files that they name themselves
    tokenizer.chat_template = None
    return tokenizer


def _check_vocabulary(directory: Path) -> None:
    """Raise :class:`UserError` where a directory has none of the files that may hold a tokenizer's vocabulary."""
    if any(file for pattern in _VOCABULARIES for file in directory.glob(pattern)):
        return
    # prepared rows and runs carry theirs in a folder
    inner = directory / "tokenizer"
    hint = f"Did you mean '{inner}'?" if (inner / "tokenizer.json").is_file() else "Give a directory that has one."
    raise UserError(f"'{directory}' holds no tokenizer: there is none of {', '.join(_VOCABULARIES)}. {hint}")


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> str:
    """Return a SHA-256 in hexadecimal of what turns text into ids; saving and loading leave it as it is.

    It covers the normaliser, the pre-tokeniser, the model with its vocabulary and merges, and the added tokens; not
    the post-processor, truncation and padding, which prepared rows do not pass through.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    state = json.loads(backend.to_str())
    content = {part: state[part] for part in ("normalizer", "pre_tokenizer", "model")}
    added = ((token["id"], token["content"], token["special"]) for token in state["added_tokens"])
    content["added_tokens"] = sorted(added)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
