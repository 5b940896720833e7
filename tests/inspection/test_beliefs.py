"""What is shown of a sentence is what the model computes, whoever chose the spans and the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.span_masking import SpanMaskingPolicy
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.inspection.beliefs import CANDIDATES, look
from spanelectra.inspection.opening import InspectedModel, open_for_inspection
from spanelectra.losses import IGNORE_INDEX
from spanelectra.schedules import Schedule
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."


@pytest.fixture(scope="module")
def tokenizer(rows: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    return load_tokenizer(rows / "tokenizer")


def inspected_model(directory: Path, tokenizer: PreTrainedTokenizerFast, config: Any) -> InspectedModel:
    write_run(directory / "run", tokenizer, config)
    return open_for_inspection(directory / "run")


@pytest.fixture(scope="module")
def inspected(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> InspectedModel:
    return inspected_model(tmp_path_factory.mktemp("beliefs"), tokenizer, joint_config())


@torch.no_grad()
@pytest.mark.parametrize("source", ["mlm", "sbgo", "mixed"])
@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_the_numbers_are_those_of_a_training_step(
    family: str, source: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Spans at random: the collator of training and the model's forward pass give the same."""
    inspected = inspected_model(tmp_path, tokenizer, joint_config(family, sampling_source=source))
    picture = look(inspected, TEXT, seed=3)
    collator = DataCollatorForSpanElectra(
        input_ids=np.array([tokenizer(TEXT)["input_ids"]]),
        word_starts=word_start_table(tokenizer),
        policy=SpanMaskingPolicy(mask_ratio=0.25, max_span_length=inspected.model.config.max_span_length),
        mask_token_id=tokenizer.mask_token_id,
        seed=3,
        mask_ratio=Schedule.parse(0.25, "mask_ratio"),
        max_span_words=Schedule.parse(10, "max_span_words"),
    )
    batch = collator(RowBatch(np.array([0]), np.array([0]), 1.0))
    output = inspected.model(**batch)
    tokens = picture.tokens
    assert [token.ato for token in tokens] == pytest.approx(output.ato_logits[0].sigmoid().tolist(), abs=1e-6)
    assert [token.replaced for token in tokens] == output.replaced[0].tolist()
    assert [token.token_id for token in tokens] == output.corrupted_ids[0].tolist()
    assert [token.original_id for token in tokens] == batch["original_ids"][0].tolist()
    scored = batch["labels"][0] != IGNORE_INDEX
    positions = batch["masked_positions"][0][scored].tolist()
    assert [token.position for token in tokens if token.masked] == positions
    assert [fill.position for fill in picture.fills] == positions
    sbpo = output.sbpo_logits[0][: len(scored)][scored].sigmoid().tolist()
    assert [tokens[position].sbpo for position in positions] == pytest.approx(sbpo, abs=1e-6)
    for slot, fill in enumerate(picture.fills):
        for name, logits in (("mlm", output.mlm_logits), ("sbgo", output.sbgo_logits)):
            if logits is None:
                continue
            probabilities = logits[0, slot].softmax(-1)
            best = probabilities.topk(CANDIDATES)
            assert [item.token_id for item in getattr(fill, name)] == best.indices.tolist()
            assert [item.probability for item in getattr(fill, name)] == pytest.approx(best.values.tolist(), abs=1e-6)
            for item in (fill.original[name], fill.current[name]):
                assert item.probability == pytest.approx(probabilities[item.token_id].item(), abs=1e-6)
        assert fill.original["mlm"].token_id == tokens[fill.position].original_id
        assert fill.current["mlm"].token_id == tokens[fill.position].token_id


@torch.no_grad()
def test_what_the_discriminator_would_put_back(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """At tokens that were replaced, by a sample or by hand: asked one by one, by the stock class around its encoder."""
    inspected = inspected_model(tmp_path, tokenizer, joint_config(objectives=["mlm", "ato", "correction"]))
    picture = look(inspected, TEXT, [2, 3])
    by_hand, restored = picture.words[5].first, picture.words[2].first
    chosen = {by_hand: inspected.texts.token_id("a", " a"), restored: picture.tokens[restored].original_id}
    picture = look(inspected, TEXT, [2, 3], chosen=chosen)
    replaced = [token.position for token in picture.tokens if token.replaced]
    assert [correction.position for correction in picture.corrections] == replaced
    assert by_hand in replaced and restored not in replaced and len(replaced) > 1
    token_ids = torch.tensor([[token.token_id for token in picture.tokens]])
    logits = inspected.model.discriminator.corrector(input_ids=token_ids).logits[0]
    for correction in picture.corrections:
        probabilities, token = logits[correction.position].softmax(-1), picture.tokens[correction.position]
        best = probabilities.topk(CANDIDATES)
        assert [item.token_id for item in correction.likeliest] == best.indices.tolist()
        assert [item.probability for item in correction.likeliest] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert (correction.original.token_id, correction.current.token_id) == (token.original_id, token.token_id)
        for item in (correction.original, correction.current):
            assert item.probability == pytest.approx(probabilities[item.token_id].item(), abs=1e-5)
    assert look(inspected, TEXT, []).corrections == ()


def test_without_the_head_nothing_is_put_back(inspected: InspectedModel) -> None:
    assert look(inspected, TEXT, [2]).corrections == ()


@torch.no_grad()
def test_chosen_spans_and_tokens_by_hand(inspected: InspectedModel) -> None:
    """The slow way: each head asked for each token by itself."""
    model, tokenizer = inspected.model, inspected.tokenizer
    picture = look(inspected, TEXT, [2, 3, 6])
    spans = [(picture.words[2].first, picture.words[3].last), picture.words[6][:2]]
    masked = [position for first, last in spans for position in range(first, last + 1)]
    assert [token.position for token in picture.tokens if token.masked] == masked
    words = [word[:2] for number, word in enumerate(picture.words) if number not in (2, 3, 6)]

    chosen = {masked[0]: inspected.texts.token_id("of", " in"), words[0][0]: inspected.texts.token_id("a", "a")}
    picture = look(inspected, TEXT, [2, 3, 6], chosen=chosen)
    original = torch.tensor([tokenizer(TEXT)["input_ids"]])
    hidden = original.clone()
    hidden[0, masked] = tokenizer.mask_token_id
    corrupted = torch.tensor([[token.token_id for token in picture.tokens]])
    for position, token in enumerate(picture.tokens):
        assert token.original_id == original[0, position]
        assert token.chosen == (position in chosen)
        if position in chosen:
            assert token.token_id == chosen[position]
        elif position not in masked:
            assert token.token_id == token.original_id
    encoded = model.discriminator.encode(corrupted)
    assert [token.ato for token in picture.tokens] == pytest.approx(
        model.discriminator.all_token_logits(encoded)[0].sigmoid().tolist(), abs=1e-6
    )
    for first, last in spans + words:
        for position in range(first, last + 1):
            place = [torch.tensor([[number]]) for number in (first - 1, last + 1, position - first)]
            expected = model.discriminator.span_boundary_logits(encoded, *place).sigmoid().item()
            assert picture.tokens[position].sbpo == pytest.approx(expected, abs=1e-6)
            assert picture.tokens[position].boundaries == (first - 1, last + 1)
            if position in masked:
                fill = picture.fills[masked.index(position)]
                said = model.generator(hidden, torch.tensor([[position]]), *place)
                for logits, shown in ((said.mlm_logits, fill.mlm), (said.sbgo_logits, fill.sbgo)):
                    best = logits[0, 0].softmax(-1).topk(CANDIDATES)
                    assert [item.token_id for item in shown] == best.indices.tolist()
                    assert [item.probability for item in shown] == pytest.approx(best.values.tolist(), abs=1e-6)
    assert picture.tokens[0].sbpo is None and picture.tokens[-1].sbpo is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.sets(st.integers(0, 12), max_size=4), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_nothing_changes_but_what_was_masked_or_chosen(
    inspected: InspectedModel, words: set[int], seed: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.dictionaries(st.integers(1, 12), st.integers(5, 500), max_size=3))
    try:
        picture = look(inspected, TEXT, sorted(words), seed=seed, chosen=chosen)
    except UserError as error:
        assert "a span has" in str(error)
        return
    masked = {position for word in words for position in range(picture.words[word].first, picture.words[word].last + 1)}
    assert {token.position for token in picture.tokens if token.masked} == masked
    assert [fill.position for fill in picture.fills] == sorted(masked)
    for token in picture.tokens:
        assert token.replaced == (token.token_id != token.original_id)
        assert not token.replaced or token.masked or token.chosen
        assert 0 <= token.ato <= 1 and (token.sbpo is None) == (token.word is None)
    # the same question has the same answer
    assert picture == look(inspected, TEXT, sorted(words), seed=seed, chosen=chosen)


def test_sampling_again_draws_from_the_same_distribution(inspected: InspectedModel) -> None:
    pictures = [look(inspected, TEXT, [2, 3], seed=seed) for seed in range(4)]
    fills = {tuple(fill.current["mlm"].token_id for fill in picture.fills) for picture in pictures}
    assert len(fills) > 1
    assert all(picture.fills[0].mlm == pictures[0].fills[0].mlm for picture in pictures)


@pytest.mark.parametrize("kind", ["rows", "other_rows"])
def test_the_tokens_make_up_the_text(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind) / "tokenizer")
    picture = look(inspected_model(tmp_path, tokenizer, joint_config()), "The names in the modules", mask_ratio=0.5)
    assert "".join(token.original for token in picture.tokens[1:-1]).strip() == "The names in the modules"
    assert "".join(text for text, _ in picture.pieces).strip() == "The names in the modules"
    assert any(masked for _, masked in picture.pieces)


def test_special_tokens_in_a_text_are_text(inspected: InspectedModel) -> None:
    picture = look(inspected, "a [SEP] b", [])
    assert "".join(token.original for token in picture.tokens[1:-1]) == "a [SEP] b"
    assert inspected.tokenizer.sep_token_id not in [token.token_id for token in picture.tokens[1:-1]]


def test_a_generator_alone(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm"])
    picture = look(inspected_model(tmp_path, tokenizer, config), TEXT)
    assert picture.heads == () and all(token.ato is None and token.sbpo is None for token in picture.tokens)
    assert all(len(fill.mlm) == CANDIDATES and fill.sbgo == () for fill in picture.fills)
    assert any(token.replaced for token in picture.tokens)
    assert any("no discriminator" in notice for notice in picture.notices)
    assert any("no SBGO" in notice for notice in picture.notices)


def test_a_discriminator_alone(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = SpanElectraConfig(
        discriminator_config=encoder_config("electra"), objectives=["ato", "sbpo"], sharing="none"
    )
    picture = look(inspected_model(tmp_path, tokenizer, config), TEXT)
    assert picture.fills == () and picture.heads == ("ato", "sbpo")
    assert any(token.replaced for token in picture.tokens)
    assert tokenizer.mask_token_id not in [token.token_id for token in picture.tokens]
    assert any("no generator" in notice for notice in picture.notices)


def test_a_frozen_generator_fills_what_its_discriminator_judges(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = SpanElectraConfig(
        generator_config=encoder_config("electra"),
        discriminator_config=encoder_config("electra"),
        objectives=["ato"],
        sharing="none",
        freeze_generator=True,
    )
    picture = look(inspected_model(tmp_path, tokenizer, config), TEXT)
    assert all(len(fill.mlm) == CANDIDATES for fill in picture.fills)
    assert picture.heads == ("ato",)


def test_a_long_text_is_cut_with_a_notice(inspected: InspectedModel) -> None:
    picture = look(inspected, TEXT * 10)
    assert len(picture.tokens) == 40, "the encoder's longest input"
    assert any("only the first 38 fit" in notice for notice in picture.notices)


def test_a_span_at_the_end_is_unlike_training(inspected: InspectedModel) -> None:
    assert not any("touches" in notice for notice in look(inspected, TEXT, [3]).notices)
    for word in (0, len(look(inspected, TEXT, []).words) - 1):
        assert any("touches the text's end" in notice for notice in look(inspected, TEXT, [word]).notices)


@pytest.mark.parametrize("text", ["the", "the names"])
def test_a_text_too_short_for_a_span(text: str, inspected: InspectedModel) -> None:
    with pytest.raises(UserError, match="too few"):
        look(inspected, text, mask_ratio=0.5)
    assert len(look(inspected, text, [0]).fills) >= 1


@pytest.mark.parametrize("mask_ratio", [0.0, -1.0, 0.9, float("nan")])
def test_a_mask_ratio_out_of_range(mask_ratio: float, inspected: InspectedModel) -> None:
    with pytest.raises(UserError, match="mask_ratio"):
        look(inspected, TEXT, mask_ratio=mask_ratio)


@pytest.mark.parametrize(
    ("masked_words", "chosen", "message"),
    [
        ([-1], {}, "there is no word -1"),
        (list(range(8)), {}, r"a span has \d+ tokens, but the boundary heads of this model know 6"),
        ([2], {0: 7}, "there is no token 0"),
        ([2], {99: 7}, "there is no token 99"),
        ([2], {3: -1}, "no token with the id -1"),
        ([2], {3: 10_000}, "no token with the id 10000"),
    ],
)
def test_what_cannot_be_shown(
    masked_words: list[int], chosen: dict[int, int], message: str, inspected: InspectedModel
) -> None:
    with pytest.raises(UserError, match=message):
        look(inspected, TEXT, masked_words, chosen=chosen)


def test_an_empty_text(inspected: InspectedModel) -> None:
    with pytest.raises(UserError, match="empty"):
        look(inspected, "", [])


def test_tokens_that_are_parts_of_characters_are_explained(inspected: InspectedModel) -> None:
    picture = look(inspected, "a \u0141 stands here", [])
    assert any(notice.startswith("a token such as \\xc5 is a part of a character") for notice in picture.notices)
    assert "".join(token.text for token in picture.tokens[1:5]).startswith("a \\xc5\\x81")
    assert picture.pieces == (("a \u0141 stands here", False),) and picture.words[1].text == " \u0141"
    assert look(inspected, "a mill stands here", []).notices == ()


def test_phrases_are_masked_wherever_they_stand(inspected: InspectedModel) -> None:
    text = "the mill by the river, and another mill"
    by_name = look(inspected, text, phrases=["mill", "the river"])
    words = [word.text.strip() for word in by_name.words]
    assert [words[number] for number in by_name.masked_words] == ["mill", "the", "river", "mill"]
    assert by_name == look(inspected, text, by_name.masked_words)
    # a letter of several tokens, with nothing of its neighbours
    spelled = look(inspected, "left \u0141 behind", phrases=["\u0141"])
    assert [piece for piece, is_masked in spelled.pieces if is_masked] == [" \u0141"]
    for phrase in ("other", "mil", " ", ""):
        with pytest.raises(UserError, match=f"'{phrase}' does not stand in the text"):
            look(inspected, text, phrases=[phrase])
