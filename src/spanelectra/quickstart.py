"""The command ``spanelectra quickstart``: the whole road on English text that every CPython carries.

The language reference topics behind Python's ``help()`` and the docstrings of the standard library are a few megabytes
of real prose about one subject: enough to see a generator and a discriminator learn within minutes on a processor.
"""

from __future__ import annotations

import ast
import inspect
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spanelectra.atomic_files import MANIFEST_NAME, find_damage, write_directory
from spanelectra.console import make_console, say
from spanelectra.data.output_directory import check_output_directory
from spanelectra.errors import UserError

# Not prose about the language, or not everywhere.
_SKIPPED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "__pycache__",
    "pydoc_data",
}

# What the quickstart promises, and checks.
NATS_BELOW_UNIGRAM = 0.5
LEAST_ATO_AUC = 0.6

TEXT_DIRECTORY = "text"
_OTHER_DIRECTORIES = ("tokenizer", "rows", "run", "export")
# what is written, and what a kill leaves of it
_OWN_NAMES = {
    f"{prefix}{name}" for name in (TEXT_DIRECTORY, *_OTHER_DIRECTORIES) for prefix in ("", ".partial-", ".replaced-")
}

SENTENCE = "If the file cannot be opened, an exception is raised and the function returns None to the caller."


def python_prose() -> Iterator[tuple[str, str]]:
    """Yield (name, text): each topic of ``help()``, then each standard library module's docstrings.

    Source files are parsed, never imported.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic-{name}", topics[name]
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).parts
        if _SKIPPED_FOLDERS & set(parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
        text = "\n\n".join(inspect.cleandoc(docstring) for docstring in docstrings if docstring)
        if text:
            yield ".".join(parts).removesuffix(".py"), text


def quickstart(
    out_dir: str = "quickstart", seed: int = 0, overwrite: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Text, vocabulary, rows, joint pre-training, export, and a picture of one sentence.

    Args:
        out_dir: directory to write: text, tokenizer, rows, run, export.
        seed: of the run.
        overwrite: replace an earlier quickstart in out_dir.
        quiet: print nothing but the picture.

    Returns:
        ``metrics.json`` of the run, with ``learned``: whether the promises were kept.

    Raises:
        UserError: where out_dir holds something that may not be replaced, or this Python carries no such text.
    """
    from spanelectra.callbacks import RunStopped
    from spanelectra.data.packing import prepare
    from spanelectra.data.tokenization import vocab
    from spanelectra.export import export
    from spanelectra.inspection.command import inspect as look_into
    from spanelectra.pretraining import pretrain
    from spanelectra.training_args import PretrainingArguments

    target, console = Path(out_dir).expanduser(), make_console(quiet)
    check_output_directory(target, _OWN_NAMES, overwrite=overwrite, replaced=False)
    _check_text_is_ours(target / TEXT_DIRECTORY)
    target.mkdir(parents=True, exist_ok=True)

    console.rule("1. text")
    with write_directory(target / TEXT_DIRECTORY, replace=True) as partial:
        documents = dict(python_prose())
        if not documents:
            raise UserError("this Python carries neither help topics nor docstrings; use your own text instead.")
        for name, text in documents.items():
            (partial / f"{name}.txt").write_text(text, encoding="utf-8")
    size = sum(len(text) for text in documents.values()) / 1e6
    console.print(f"{len(documents)} documents, {size:.1f} million characters of Python's own documentation")

    console.rule("2. vocabulary")
    text = str(target / TEXT_DIRECTORY / "*.txt")
    paths = {name: str(target / name) for name in _OTHER_DIRECTORIES}
    vocab(text, paths["tokenizer"], vocab_size=4000, document_separator="file", overwrite=True, quiet=quiet)
    console.rule("3. rows")
    prepare(
        text,
        paths["tokenizer"],
        paths["rows"],
        max_seq_length=128,
        document_separator="file",
        validation_fraction=0.05,
        overwrite=True,
        quiet=quiet,
    )
    console.rule("4. joint pre-training")
    settings = PretrainingArguments.from_recipe(
        "quickstart", data=paths["rows"], out_dir=paths["run"], seed=seed, overwrite=True, quiet=quiet
    )
    try:
        metrics = pretrain(settings)
    except RunStopped:
        say(console, "to go on so makes the run alone, without export and picture; quickstart --overwrite begins anew")
        raise
    console.rule("5. export")
    export(paths["run"], paths["export"], overwrite=True, quiet=quiet)
    console.rule("6. one sentence")
    look_into(SENTENCE, paths["run"], terminal=True, seed=seed)
    console.rule("7. did it learn?")
    metrics["learned"] = judge(metrics, console)
    exported = target / "export"
    console.print(
        f"two encoders: {exported / 'discriminator'} and {exported / 'generator'}\n"
        f"curves: {paths['run']}/report.html\n"
        f"next: spanelectra inspect --model {paths['run']}   your own text: README.md, in four commands",
        highlight=False,
    )
    return metrics


def _check_text_is_ours(directory: Path) -> None:
    """Text is replaced only where every file is as an earlier quickstart wrote it."""
    if not directory.exists():
        return
    damage = find_damage(directory)
    if damage is None:
        known = {MANIFEST_NAME, *json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))}
        foreign = sorted(entry.name for entry in directory.iterdir() if entry.name not in known)
        damage = f"{foreign[0]} is new" if foreign else None
    if damage is not None:
        raise UserError(f"{directory} is not as a quickstart wrote it ({damage}); choose another --out_dir.")


def judge(metrics: dict[str, Any], console: Any) -> bool:
    """Say whether a run beat its baselines by what the quickstart promises."""
    held_out, unigram = metrics["held_out"], metrics["unigram_cross_entropy"]
    gain, auc = unigram - held_out["mlm_loss"], held_out["ato_auc"]
    console.print(
        f"held-out MLM loss {held_out['mlm_loss']:.2f} nats, guessing by frequency {unigram:.2f}: {gain:.2f} below "
        f"(promised: at least {NATS_BELOW_UNIGRAM})",
        highlight=False,
    )
    console.print(
        f"held-out ATO AUC over all tokens {auc:.3f}, guessing 0.5 (promised: at least {LEAST_ATO_AUC}): how often a "
        "replaced token looks more replaced than an original one does",
        highlight=False,
    )
    learned = gain >= NATS_BELOW_UNIGRAM and auc >= LEAST_ATO_AUC
    console.print("it learned" if learned else "[bold red]it did not learn as much as promised[/bold red]")
    return learned
