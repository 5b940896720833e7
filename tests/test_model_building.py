"""Settings -> model: fresh weights, encoders to continue, generators that fit, compiling, recomputing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, ElectraConfig, ElectraForMaskedLM, PreTrainedTokenizerFast

from factories import encoder_config
from prepared_rows import LENGTH
from small_runs import losses_of, make_trainer, read_lines, small_run
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.data.training_rows import RowBatch
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.model_building import (
    build_model,
    check_generator_fits,
    compile_encoders,
    load_generator,
    start_from_cooccurrence,
    start_from_unigram,
)
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import pretrain
from spanelectra.training_args import PretrainingArguments


@pytest.fixture(scope="module")
def tokenizer(rows: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(rows / "tokenizer")


def build(tokenizer: PreTrainedTokenizerFast, length: int = LENGTH, **settings: Any) -> SpanElectraForPreTraining:
    said: list[str] = []
    model = build_model(small_run(Path("-"), Path("-"), **settings).resolved(), tokenizer, length, said.append)
    model.said = said  # type: ignore[assignment]
    return model


def stock(directory: Path, vocabulary: int, family: type = BertForMaskedLM, **shape: Any) -> str:
    """Save a stock masked language model to continue."""
    config_class = {BertForMaskedLM: BertConfig, ElectraForMaskedLM: ElectraConfig}[family]
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(5)
    family(config_class(vocab_size=vocabulary, **{**sizes, "max_position_embeddings": 64, **shape})).save_pretrained(
        directory
    )
    return str(directory)


def equal(first: SpanElectraForPreTraining, second: SpanElectraForPreTraining) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class TestFreshWeights:
    def test_they_depend_on_the_seed_and_the_shape_only(self, tokenizer: PreTrainedTokenizerFast) -> None:
        first = build(tokenizer)
        torch.rand(17)
        others = {"learning_rate": 0.5, "per_device_train_batch_size": 2, "dropout": 0.3, "mask_ratio": 0.3}
        assert equal(first, build(tokenizer, **others))
        assert not equal(first, build(tokenizer, seed=1))

    def test_rows_longer_than_the_positions_get_as_many(self, tokenizer: PreTrainedTokenizerFast) -> None:
        model = build(tokenizer, length=700, max_position_embeddings=512)
        assert model.discriminator is not None and model.generator is not None
        assert model.discriminator.config.max_position_embeddings == 700
        assert model.generator.config.max_position_embeddings == 700

    def test_the_generator_is_a_fraction_in_width_and_depth(self, tokenizer: PreTrainedTokenizerFast) -> None:
        model = build(tokenizer, num_hidden_layers=4, generator_depth=0.5, generator_size=0.5)
        assert model.generator is not None and model.discriminator is not None
        assert (model.generator.config.hidden_size, model.discriminator.config.hidden_size) == (16, 32)
        assert (model.generator.config.num_hidden_layers, model.discriminator.config.num_hidden_layers) == (2, 4)
        assert len(encoder_of(model.generator.language_model).layers) == 2


class TestInitFrom:
    def test_the_generator_takes_the_lower_layers(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        source = stock(tmp_path / "bert", len(tokenizer))
        model = build(tokenizer, init_from=source, generator_depth=0.34)
        assert model.generator is not None and model.discriminator is not None
        expected = BertForMaskedLM.from_pretrained(source).state_dict()
        taken = model.generator.language_model.state_dict()
        assert {name.split(".")[3] for name in taken if "encoder.layer" in name} == {"0"}
        assert all(torch.equal(tensor, expected[name]) for name, tensor in taken.items())
        detector = model.discriminator.detector.state_dict()
        encoder = {name: tensor for name, tensor in detector.items() if name.startswith("bert.")}
        assert len([name for name in encoder if name.endswith("attention.self.query.weight")]) == 3
        assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.items())
        assert any("not used" in sentence and "encoder.layer.1" in sentence for sentence in model.said)  # type: ignore[operator, union-attr]
        # shared although both were filled apart
        assert (
            model.generator.language_model.get_input_embeddings() is model.discriminator.detector.get_input_embeddings()
        )

    def test_the_generator_can_be_another_encoder(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        source = stock(tmp_path / "bert", len(tokenizer))
        other = stock(tmp_path / "electra", len(tokenizer), ElectraForMaskedLM, num_hidden_layers=1, embedding_size=32)
        model = build(tokenizer, init_from=source, init_generator_from=other, sharing="none")
        assert model.generator is not None and model.generator.config.model_type == "electra"
        expected = ElectraForMaskedLM.from_pretrained(other).state_dict()
        for name, tensor in model.generator.language_model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name

    @pytest.mark.parametrize("flag", ["init_from", "init_generator_from"])
    @pytest.mark.parametrize("stage", ["joint", "generator"])
    @pytest.mark.parametrize(
        ("vocabulary", "shape", "message"),
        [
            (-7, {}, "its vocabulary has {wrong} entries, the rows' tokenizer {right}"),
            (0, {"max_position_embeddings": 16}, "it takes 16 positions, the rows have 32"),
        ],
    )
    def test_a_vocabulary_or_positions_that_do_not_fit(
        self,
        tokenizer: PreTrainedTokenizerFast,
        tmp_path: Path,
        flag: str,
        stage: str,
        vocabulary: int,
        shape: dict[str, int],
        message: str,
    ) -> None:
        right = len(tokenizer)
        fitting = stock(tmp_path / "fitting", right)
        wrong = stock(tmp_path / "wrong", right + vocabulary, **shape)
        settings = {"init_from": fitting, "stage": stage, "sharing": "none", flag: wrong}
        expected = f"--{flag} {wrong}: {message.format(wrong=right + vocabulary, right=right)}"
        with pytest.raises(UserError, match=expected):
            build(tokenizer, **settings)

    def test_a_directory_without_a_model(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no Hugging Face model"):
            build(tokenizer, init_from=str(tmp_path))

    def test_weights_of_another_shape_than_their_config(
        self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        source = Path(stock(tmp_path / "bert", len(tokenizer)))
        stock(tmp_path / "deeper", len(tokenizer), num_hidden_layers=5)
        (source / "config.json").write_bytes((tmp_path / "deeper" / "config.json").read_bytes())
        with pytest.raises(UserError, match=r"cannot fill encoder\.layer\.3"):
            build(tokenizer, init_from=str(source))


class TestTheTrainedGenerator:
    def test_one_that_diverged(self, tmp_path: Path) -> None:
        config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm"])
        model = SpanElectraForPreTraining(config)
        model.save_pretrained(tmp_path / "model")
        assert load_generator(tmp_path / "model", print).generator is not None
        with torch.no_grad():
            model.generator.language_model.get_output_embeddings().bias[3] = torch.nan
        model.save_pretrained(tmp_path / "model")
        with pytest.raises(UserError, match="bias holds what is no number; its training diverged"):
            load_generator(tmp_path / "model", print)

    def test_a_run_without_one(self, tmp_path: Path) -> None:
        config = SpanElectraConfig(discriminator_config=encoder_config("electra"), objectives=["ato"], sharing="none")
        SpanElectraForPreTraining(config).save_pretrained(tmp_path / "model")
        with pytest.raises(UserError, match="this run trained no generator"):
            load_generator(tmp_path, print)
        with pytest.raises(UserError, match="does not exist"):
            load_generator(tmp_path / "nowhere", print)

    def test_rows_longer_than_its_positions(self, tokenizer: PreTrainedTokenizerFast, generator_run: Path) -> None:
        settings = {"stage": "discriminator", "generator": str(generator_run), "max_position_embeddings": 1024}
        build(tokenizer, length=512, **settings)
        with pytest.raises(UserError, match="it takes 512 positions, the rows have 513"):
            build(tokenizer, length=513, **settings)

    def test_a_saved_model_knows_its_tokenizer_too(
        self, rows: Path, other_rows: Path, generator_run: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        trained = load_generator(generator_run, print)
        other = load_tokenizer(other_rows / "tokenizer")
        for source in (generator_run, generator_run / "model"):
            check_generator_fits(str(source), trained, tokenizer, LENGTH)
            with pytest.raises(UserError, match="another tokenizer"):
                check_generator_fits(str(source), trained, other, LENGTH)

    def test_sampling_from_a_boundary_head_that_was_not_trained(
        self, rows: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        pretrain(small_run(rows, tmp_path / "bert", stage="generator", method="bert"))
        settings = {"stage": "discriminator", "generator": str(tmp_path / "bert")}
        build(tokenizer, **settings)
        with pytest.raises(UserError, match="SBGO"):
            build(tokenizer, sampling_source="sbgo", **settings)

    def test_sampling_from_a_boundary_head_of_another_size(
        self, rows: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        pretrain(small_run(rows, tmp_path / "run", stage="generator", max_span_length=7, span_position_size=9))
        settings = {"stage": "discriminator", "generator": str(tmp_path / "run"), "sampling_source": "sbgo"}
        with pytest.raises(UserError, match="add --max_span_length 7 --span_position_size 9, as the generator"):
            build(tokenizer, max_span_length=8, **settings)
        build(tokenizer, max_span_length=7, span_position_size=9, **settings)

    def test_a_run_that_has_not_ended_is_said_to_have_not(
        self, rows: Path, generator_run: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        assert not any("whole" in sentence for sentence in said_of(tokenizer, generator_run))
        pretrain(small_run(rows, tmp_path / "run", stage="generator", save_steps=4))
        shutil.rmtree(tmp_path / "run" / "model")
        assert any(
            "has no finished model that is whole: its newest whole checkpoint is taken, checkpoint-6" in sentence
            for sentence in said_of(tokenizer, tmp_path / "run")
        )


def said_of(tokenizer: PreTrainedTokenizerFast, generator: Path) -> list[str]:
    """What is said when a discriminator is built from a generator."""
    return build(tokenizer, stage="discriminator", generator=str(generator)).said  # type: ignore[return-value]


class TestCompile:
    @pytest.mark.parametrize(
        ("error", "reason"), [(RuntimeError("no C++ compiler\nhere"), "no C++ compiler"), (OSError(), "OSError")]
    )
    def test_without_a_compiler_it_goes_on_eagerly_and_says_so(
        self,
        rows: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: Exception,
        reason: str,
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "compile", fail)
        monkeypatch.setattr(torch.nn.Module, "compile", fail)
        pretrain(small_run(rows, tmp_path / "run", torch_compile=True, quiet=False))
        assert f"torch.compile does not work here ({reason}); going on without it" in capsys.readouterr().err
        monkeypatch.undo()
        pretrain(small_run(rows, tmp_path / "eager"))
        eager, fell_back = read_lines(tmp_path / "eager"), read_lines(tmp_path / "run")
        assert [losses_of(line) for line in eager] == [losses_of(line) for line in fell_back]

    def test_both_encoders_are_compiled(
        self, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiled: list[torch.nn.Module] = []
        monkeypatch.setattr(torch, "compile", lambda function: function)
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
        model = build(tokenizer)
        assert compile_encoders(model) is None
        assert model.generator is not None and model.discriminator is not None
        assert compiled == [encoder_of(model.generator.language_model), encoder_of(model.discriminator.detector)]

    @pytest.mark.slow
    def test_where_it_works_losses_are_equal_and_so_are_the_names_of_weights(
        self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pretrain(small_run(rows, tmp_path / "compiled", torch_compile=True, quiet=False))
        if "does not work here" in capsys.readouterr().err:
            pytest.skip("no compiler on this machine")
        pretrain(small_run(rows, tmp_path / "eager"))
        for ours, theirs in zip(read_lines(tmp_path / "compiled"), read_lines(tmp_path / "eager"), strict=True):
            assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=1e-3)
        SpanElectraForPreTraining.from_pretrained(tmp_path / "compiled" / "model")


@pytest.mark.parametrize("encoder", ["electra", "modernbert"])
def test_recomputing_activations_changes_no_gradient(rows: Path, tmp_path: Path, encoder: str) -> None:
    gradients: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        settings = {"encoder": encoder, "dropout": 0.1, "gradient_checkpointing": checkpointing}
        trainer = make_trainer(small_run(rows, tmp_path / "run", **settings))
        assert any(getattr(m, "gradient_checkpointing", False) for m in trainer.model.modules()) == checkpointing
        batch = RowBatch(torch.arange(4).numpy(), torch.zeros(4, dtype=torch.int64).numpy(), 0.0)
        trainer.model.train()
        torch.manual_seed(1)
        trainer.model(**trainer.data_collator(batch)).loss.backward()
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


class TestEmbeddingsFromCooccurrence:
    def rows_of(self, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
        return np.random.default_rng(0).integers(10, 40, size=(64, 16)).astype(np.uint16)

    def test_tables_are_filled_at_the_scale_of_fresh_ones_and_other_tokens_stay(
        self, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        model = build(tokenizer, sharing="none", generator_size=0.5)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        said = start_from_cooccurrence(model, self.rows_of(tokenizer), [12], seed=0)
        assert said.startswith("embeddings: 29 of ")
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        # a tied vocabulary projection has a name of its own
        assert changed and all("embeddings.tok_embeddings" in name or "decoder" in name for name in changed)
        for part in (model.generator.language_model, model.discriminator.detector):  # type: ignore[union-attr]
            table = part.get_input_embeddings().weight
            occurring = [number for number in range(10, 40) if number != 12]
            assert table[occurring].std().item() == pytest.approx(part.config.initializer_range, rel=1e-4)
        narrow = model.generator.language_model.get_input_embeddings().weight  # type: ignore[union-attr]
        wide = model.discriminator.detector.get_input_embeddings().weight  # type: ignore[union-attr]
        ratio = narrow[10:40][:2] / wide[10:40, : narrow.shape[1]][:2]
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4, atol=0)

    def test_a_run_starts_so_and_says_it(self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = {"max_steps": 2, "quiet": False, "embedding_init": "cooccurrence"}
        first = pretrain(small_run(rows, tmp_path / "first", **settings))
        assert "tokens start from what they occur with" in capsys.readouterr().err
        again = pretrain(small_run(rows, tmp_path / "again", **settings))
        assert first["held_out"] == again["held_out"]
        starts = [
            pretrain(small_run(rows, tmp_path / name, **{**settings, "embedding_init": name}))["held_out"]["mlm_loss"]
            for name in ("random", "directional_cooccurrence")
        ]
        assert len({first["held_out"]["mlm_loss"], *starts}) == 3


class TestOutputBiases:
    @pytest.mark.parametrize("size", [1.0, 0.5])
    def test_fresh_weights_guess_by_frequency(self, tokenizer: PreTrainedTokenizerFast, size: float) -> None:
        model = build(tokenizer, sharing="embeddings", generator_size=size)
        counts = np.arange(len(tokenizer), dtype=np.int64) ** 2
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        language_model = model.generator.language_model  # type: ignore[union-attr]
        indifferent = language_model(torch.full((1, 4), 7)).logits
        assert start_from_unigram(model, counts).startswith(f"output biases: {len(counts):,} tokens")
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed and all(name.endswith("bias") and "generator." in name for name in changed)
        gained = language_model(torch.full((1, 4), 7)).logits - indifferent
        frequencies = torch.from_numpy((counts + 1) / (counts + 1).sum()).float()
        torch.testing.assert_close(gained.exp(), frequencies.expand_as(gained), rtol=1e-4, atol=0)

    def test_a_run_starts_so_and_says_it(self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = {"stage": "generator", "max_steps": 1, "learning_rate": 1e-9, "quiet": False}
        metrics = pretrain(small_run(rows, tmp_path / "run", output_bias_init="unigram", **settings))
        assert "tokens start from how often they occur" in capsys.readouterr().err
        assert metrics["held_out"]["mlm_loss"] == pytest.approx(metrics["unigram_cross_entropy"], abs=0.3)
        other = pretrain(small_run(rows, tmp_path / "other", **settings))
        assert other["held_out"]["mlm_loss"] > metrics["held_out"]["mlm_loss"] + 0.5

    def test_the_head_of_correction_starts_alike(self, tokenizer: PreTrainedTokenizerFast) -> None:
        model = build(tokenizer, objectives=["mlm", "ato", "correction"])
        start_from_unigram(model, np.arange(len(tokenizer), dtype=np.int64))
        heads = model.generator.language_model, model.discriminator.corrector  # type: ignore[union-attr]
        first, second = (head.get_output_embeddings().bias for head in heads)
        assert torch.equal(first, second) and first.std() > 0.5


@pytest.mark.parametrize(("name", "value"), [("embedding_init", "cooccurrence"), ("output_bias_init", "unigram")])
def test_beside_existing_weights_what_fresh_ones_start_from_has_no_effect_and_says_so(
    rows: Path, generator_run: Path, tmp_path: Path, name: str, value: str
) -> None:
    settings = {"stage": "discriminator", "generator": str(generator_run), "max_steps": 1, name: value}
    metrics = pretrain(small_run(rows, tmp_path / "run", **settings))
    assert any(f"{name}={value} has no effect" in alarm for alarm in metrics["alarms"])


def test_the_second_stage_takes_the_shape_of_a_generator_that_no_setting_describes(
    rows: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    encoder = stock(tmp_path / "bert", len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "bert")
    pretrain(small_run(rows, tmp_path / "generator", stage="generator", init_from=encoder, max_steps=1))
    unshaped = PretrainingArguments()
    shape = {name: getattr(unshaped, name) for name in ("encoder", "hidden_size", "num_hidden_layers")}
    shape |= {name: getattr(unshaped, name) for name in ("num_attention_heads", "intermediate_size", "embedding_size")}
    pretrain(
        small_run(
            rows,
            tmp_path / "discriminator",
            stage="discriminator",
            generator=str(tmp_path / "generator"),
            max_steps=1,
            **shape,
        )
    )
    model = SpanElectraForPreTraining.from_pretrained(tmp_path / "discriminator" / "model")
    assert model.discriminator is not None and model.discriminator.config.model_type == "bert"
    assert model.discriminator.config.num_hidden_layers == 3
