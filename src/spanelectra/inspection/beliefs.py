"""One sentence, some spans of it and some tokens chosen by hand -> what generator and discriminator make of it.

A pure function of the model and its arguments; the terminal, the HTML picture and the page only show what it gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spanelectra.errors import UserError
from spanelectra.inspection.opening import InspectedModel
from spanelectra.inspection.picture import Candidate, Correction, Fill, Picture, TokenBelief, Word
from spanelectra.inspection.sentence import Sentence, masked_batch, random_words, read_sentence
from spanelectra.inspection.token_texts import visible
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, SpanElectraOutput

CANDIDATES = 5
DEFAULT_MASK_RATIO = 0.25
DEFAULT_TEXT = (
    "The function returns a list of the names in the current module, and raises an error if the file that was given "
    "does not exist."
)


@torch.no_grad()
def look(
    inspected: InspectedModel,
    text: str,
    masked_words: Sequence[int] | None = None,
    *,
    phrases: Sequence[str] | None = None,
    seed: int = 0,
    mask_ratio: float = DEFAULT_MASK_RATIO,
    chosen: Mapping[int, int] | None = None,
) -> Picture:
    """Mask words of a sentence, let the generator fill them and the discriminator judge every token.

    Args:
        inspected: the model.
        text: the sentence; what is longer than the encoder's longest input is left out, with a notice.
        masked_words: numbers of the words to mask, from 0; without them and phrases spans are drawn as in the run's
            training.
        phrases: words, or several in a row, to mask wherever they stand in the text.
        seed: of these spans and of the sampled tokens.
        mask_ratio: share of the tokens to mask at random, at most.
        chosen: position -> id of tokens put there by hand, in place of the sampled or the original one.

    Returns:
        The picture. SBPO judges the tokens of a masked span by its two boundaries, and every other word as a span of
        its own.

    Raises:
        UserError: for an empty text, a word, phrase or position that it has not, a token that the model has not, a span
            longer than the boundary heads know, or a text too short for spans at random.
    """
    model, max_span_length = inspected.model, inspected.model.config.max_span_length
    sentence = read_sentence(inspected.tokenizer, inspected.word_starts, text, inspected.longest_input, max_span_length)
    if phrases is not None:
        masked_words = sentence.words_of(phrases)
    elif masked_words is None:
        policy = dataclasses.replace(inspected.policy, mask_ratio=mask_ratio)
        masked_words = random_words(sentence, inspected.word_starts, policy, seed)
    masked_words = sorted(set(masked_words))
    _check_span_lengths(model, sentence, masked_words)
    mask_id = inspected.tokenizer.mask_token_id
    hide = model.generator is not None
    batch = masked_batch(sentence, inspected.word_starts, masked_words, mask_id, seed, hide=hide)
    generated = _fill_spans(model, batch)
    corrupted_ids = _with_chosen(generated.corrupted_ids, chosen or {}, len(inspected.tokenizer))
    # the discriminator's part of the model's own forward pass; without one, only the labels
    output = model(**{**batch, "corrupted_ids": corrupted_ids})
    tokens = _token_beliefs(inspected, sentence, batch, output, chosen or {})
    fills = _fills(inspected, batch, generated, corrupted_ids)
    corrections = _corrections(inspected, batch, corrupted_ids)
    return Picture(
        tokens=tokens,
        fills=fills,
        pieces=_pieces(inspected, sentence, masked_words),
        words=tuple(
            Word(first, last, inspected.texts(*sentence.row[0, first : last + 1].tolist()))
            for first, last in sentence.words
        ),
        masked_words=tuple(masked_words),
        corrections=corrections,
        chosen=dict(chosen or {}),
        seed=seed,
        notices=(
            *inspected.notices,
            *_notices(inspected, sentence, masked_words),
            *_parts_of_characters(inspected, tokens, fills, corrections),
        ),
    )


def _check_span_lengths(model: SpanElectraForPreTraining, sentence: Sentence, masked_words: Sequence[int]) -> None:
    parts = [part for part in (model.generator, model.discriminator) if part is not None]
    longest = model.config.max_span_length
    for first, last in sentence.spans(masked_words):
        if last - first + 1 > longest and any(part.span_boundary_head is not None for part in parts):
            raise UserError(
                f"a span has {last - first + 1} tokens, but the boundary heads of this model know {longest} places "
                "(max_span_length): leave a word between two shorter spans."
            )


def _fill_spans(model: SpanElectraForPreTraining, batch: dict[str, Tensor]) -> SpanElectraOutput:
    """Both heads' logits at the masked tokens, and the row with sampled tokens there."""
    output = SpanElectraOutput(loss=torch.zeros(()), corrupted_ids=batch["input_ids"])
    positions = batch["masked_positions"]
    if model.generator is None or not positions.shape[1]:
        return output
    spans = (batch["left_boundaries"], batch["right_boundaries"], batch["span_positions"])
    generated = model.generator(batch["input_ids"], positions, *spans)
    output.mlm_logits, output.sbgo_logits = generated.mlm_logits, generated.sbgo_logits
    model.replace(output, batch["original_ids"], positions, batch["labels"], batch["replacement_noise"])
    return output


def _with_chosen(corrupted_ids: Tensor | None, chosen: Mapping[int, int], vocabulary: int) -> Tensor:
    """A copy with tokens put in by hand."""
    assert corrupted_ids is not None
    changed, length = corrupted_ids.clone(), corrupted_ids.shape[1]
    for position, token_id in chosen.items():
        if not 0 < position < length - 1:
            raise UserError(f"there is no token {position} to replace: the text has tokens 1 to {length - 2}.")
        if not 0 <= token_id < vocabulary:
            raise UserError(f"there is no token with the id {token_id}: the vocabulary has {vocabulary}, from 0.")
        changed[0, position] = token_id
    return changed


def _pieces(inspected: InspectedModel, sentence: Sentence, masked_words: Sequence[int]) -> tuple[tuple[str, bool], ...]:
    """The text between spans and in them, each decoded as a whole: a character may be of several tokens."""
    ids = sentence.row[0].tolist()
    pieces, end = [], 1
    for first, last in [*sentence.spans(masked_words), (len(ids) - 1, len(ids) - 1)]:
        pieces += [(inspected.texts(*ids[end:first]), False), (inspected.texts(*ids[first : last + 1]), True)]
        end = last + 1
    # the last span is [SEP], which ends the text
    return tuple((text, is_masked) for text, is_masked in pieces[:-1] if text)


def _token_beliefs(
    inspected: InspectedModel,
    sentence: Sentence,
    batch: dict[str, Tensor],
    output: SpanElectraOutput,
    chosen: Mapping[int, int],
) -> tuple[TokenBelief, ...]:
    assert output.corrupted_ids is not None
    original_ids, token_ids = batch["original_ids"][0].tolist(), output.corrupted_ids[0].tolist()
    ato = output.ato_logits[0].sigmoid().tolist() if output.ato_logits is not None else [None] * len(token_ids)
    sbpo: dict[int, float] = {}
    boundaries: dict[int, tuple[int, int]] = {}
    if output.sbpo_logits is not None:
        positions, left, right = (
            torch.cat([batch[masked], batch[decoy]], dim=1)[0].tolist()
            for masked, decoy in (
                ("masked_positions", "decoy_positions"),
                ("left_boundaries", "decoy_left_boundaries"),
                ("right_boundaries", "decoy_right_boundaries"),
            )
        )
        sbpo = dict(zip(positions, output.sbpo_logits[0].sigmoid().tolist(), strict=True))
        boundaries = dict(zip(positions, zip(left, right, strict=True), strict=True))
    masked = set(batch["masked_positions"][0].tolist())
    word_of = {
        position: number for number, (first, last) in enumerate(sentence.words) for position in range(first, last + 1)
    }
    return tuple(
        TokenBelief(
            position=position,
            word=word_of.get(position),
            original_id=original_id,
            original=inspected.texts(original_id),
            token_id=token_id,
            text=inspected.texts(token_id),
            masked=position in masked,
            chosen=position in chosen,
            replaced=token_id != original_id,
            ato=ato[position],
            sbpo=sbpo.get(position),
            boundaries=boundaries.get(position),
        )
        for position, (original_id, token_id) in enumerate(zip(original_ids, token_ids, strict=True))
    )


def _candidate(inspected: InspectedModel, probabilities: Tensor, token_id: int) -> Candidate:
    """A token with its probability among all, (vocabulary,)."""
    return Candidate(token_id, inspected.texts(token_id), probabilities[token_id].item())


def _likeliest(inspected: InspectedModel, probabilities: Tensor) -> tuple[Candidate, ...]:
    ids = probabilities.topk(min(CANDIDATES, len(probabilities))).indices.tolist()
    return tuple(_candidate(inspected, probabilities, token_id) for token_id in ids)


def _fills(
    inspected: InspectedModel, batch: dict[str, Tensor], generated: SpanElectraOutput, corrupted_ids: Tensor
) -> tuple[Fill, ...]:
    probabilities = {
        head: logits[0].float().softmax(-1)
        for head, logits in (("mlm", generated.mlm_logits), ("sbgo", generated.sbgo_logits))
        if logits is not None
    }
    if not probabilities:
        return ()
    fills = []
    for slot, position in enumerate(batch["masked_positions"][0].tolist()):
        heads = {head: by_slot[slot] for head, by_slot in probabilities.items()}
        original, current = (
            {head: _candidate(inspected, of_head, int(ids[0, position])) for head, of_head in heads.items()}
            for ids in (batch["original_ids"], corrupted_ids)
        )
        mlm, sbgo = (_likeliest(inspected, heads[head]) if head in heads else () for head in ("mlm", "sbgo"))
        fills.append(Fill(position=position, mlm=mlm, sbgo=sbgo, original=original, current=current))
    return tuple(fills)


def _corrections(inspected: InspectedModel, batch: dict[str, Tensor], corrupted_ids: Tensor) -> tuple[Correction, ...]:
    discriminator = inspected.model.discriminator
    positions = (corrupted_ids != batch["original_ids"]).nonzero()[:, 1]
    if discriminator is None or discriminator.corrector is None or not len(positions):
        return ()
    # the model's own forward pass scores masked positions, and not those that a person chose
    logits = discriminator.correction_logits(discriminator.encode(corrupted_ids), positions.unsqueeze(0))
    return tuple(
        Correction(
            position=position,
            likeliest=_likeliest(inspected, probabilities),
            original=_candidate(inspected, probabilities, int(batch["original_ids"][0, position])),
            current=_candidate(inspected, probabilities, int(corrupted_ids[0, position])),
        )
        for position, probabilities in zip(positions.tolist(), logits[0].float().softmax(-1), strict=True)
    )


def _notices(inspected: InspectedModel, sentence: Sentence, masked_words: Sequence[int]) -> list[str]:
    notices = []
    if sentence.cut_tokens:
        room = inspected.longest_input - 2
        notices.append(
            f"the text has {room + sentence.cut_tokens} tokens; only the first {room} fit the encoder and are shown"
        )
    special = inspected.word_starts.special_ids[sentence.row[0]]
    if any(special[first - 1] or special[last + 1] for first, last in sentence.spans(masked_words)):
        notices.append("a span touches the text's end: in training a word is left on either side of every span")
    return notices


def _parts_of_characters(
    inspected: InspectedModel,
    tokens: Sequence[TokenBelief],
    fills: Sequence[Fill],
    corrections: Sequence[Correction],
) -> list[str]:
    """What is said where a token is shown that is a part of a character."""
    shown = [token_id for token in tokens for token_id in (token.original_id, token.token_id)]
    shown += [candidate.token_id for fill in fills for candidate in (*fill.mlm, *fill.sbgo)]
    shown += [candidate.token_id for correction in corrections for candidate in correction.likeliest]
    part = next((token_id for token_id in shown if inspected.texts.is_part(token_id)), None)
    if part is None:
        return []
    example = visible(inspected.texts(part))
    return [f"a token such as {example} is a part of a character, which this vocabulary spells in several"]
