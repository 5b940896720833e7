"""One training step each of what people use and of ours: the same shape, the same batches, the same optimiser.

Used by `throughput.py`, which runs every step in a process of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import TrainerCallback

from spanelectra.callbacks import SaveAndStopCallback
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.packing import prepare
from spanelectra.data.tokenization import vocab
from spanelectra.data.training_rows import RowBatch
from spanelectra.encoder_families import (
    build_detector,
    build_masked_language_model,
    embedding_size,
    encoder_of,
    make_encoder_config,
    scale_encoder_config,
)
from spanelectra.flops import row_training_flops
from spanelectra.health import HealthMonitor
from spanelectra.losses import IGNORE_INDEX
from spanelectra.model_building import compile_encoders
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.optimization import build_optimizer
from spanelectra.pretraining import build_trainer
from spanelectra.quickstart import python_prose
from spanelectra.run_data import RunData, read_data
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

MASK_RATIO = 0.15
OBJECTIVES = ("mlm", "sbgo", "ato", "sbpo")
# a training step, and the FLOPs of it that are needed: scored positions only, whatever the step computes besides
Step = tuple[Callable[[], None], float]


@dataclasses.dataclass(frozen=True)
class Shape:
    """An encoder, its generator's share of the width, and the rows of a step."""

    encoder: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    embedding_size: int | None
    generator_size: float
    vocab_size: int
    rows: int
    length: int


# tiny: 128 x 4 with a generator of 64 x 4; small and base: ELECTRA's (Clark et al. 2020, table 6)
SHAPES = {
    "tiny": Shape("electra", 128, 4, 2, 512, 128, 0.5, 10_000, 16, 128),
    "tiny-modern": Shape("modernbert", 128, 4, 2, 256, None, 0.5, 10_000, 16, 128),
    "small": Shape("electra", 256, 12, 4, 1024, 128, 0.25, 10_000, 16, 128),
    "small-modern": Shape("modernbert", 256, 12, 4, 384, None, 0.5, 10_000, 16, 128),
    "base": Shape("electra", 768, 12, 12, 3072, 768, 1 / 3, 30_522, 8, 512),
    "base-modern": Shape("modernbert", 768, 12, 12, 1152, None, 1 / 3, 30_522, 8, 512),
}


def prepare_rows(directory: Path, length: int) -> Path:
    """Rows of real text that is on any machine with Python, made once."""
    rows = directory / f"rows-{length}"
    if not rows.is_dir():
        text = directory / "text"
        text.mkdir(parents=True, exist_ok=True)
        for number, (name, document) in zip(range(400), python_prose(), strict=False):
            (text / f"{number:03}-{name}.txt").write_text(document, encoding="utf-8")
        if not (directory / "tokenizer").is_dir():
            vocab(str(text), str(directory / "tokenizer"), "BERT", 10_000, quiet=True)
        prepare(str(text), str(directory / "tokenizer"), str(rows), max_seq_length=length, quiet=True)
    return rows


class Bench:
    """What all steps share: shape, device, and a few batches that go round.

    Args:
        shape: of the models.
        rows: prepared rows.
        device: where to train.
        dropout: of every encoder.
        compiled: whether encoders are compiled.
        bf16: bfloat16 autocast.
    """

    def __init__(
        self, shape: Shape, rows: Path, device: torch.device, dropout: float, compiled: bool, bf16: bool = False
    ) -> None:
        self.shape, self.rows, self.device, self.compiled, self.bf16 = shape, rows, device, compiled, bf16
        self.settings = PretrainingArguments(
            data=str(rows),
            out_dir=str(rows.parent / "run"),
            seed=1,
            mask_ratio=MASK_RATIO,
            optimizer="adamw",
            per_device_train_batch_size=shape.rows,
            generator_head_start=0.0,
            max_steps=1_000_000,
            eval_steps=0,
            save_steps=0,
            logging_steps=50,
        ).resolved()
        self.data: RunData = read_data(self.settings)
        self.encoder = make_encoder_config(
            shape.encoder,
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            embedding_size=shape.embedding_size,
            max_position_embeddings=max(512, shape.length),
            dropout=dropout,
            token_ids={
                name: getattr(self.data.tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")
            },
        )
        self.generator = scale_encoder_config(self.encoder, shape.generator_size, 1.0)
        torch.manual_seed(0)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Eight batches, again and again, on the device."""
        count = min(8 * self.shape.rows, self.data.rows) // self.shape.rows
        made = []
        for number in range(count):
            numbers = torch.arange(number * self.shape.rows, (number + 1) * self.shape.rows).numpy()
            batch = self.data.collate(RowBatch(numbers, numbers * 0, 1.0))
            made.append({name: tensor.to(self.device) for name, tensor in batch.items()})
        return itertools.cycle(made)

    def step(self, model: nn.Module, loss: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[], None]:
        """Forward, backward, clipping and fused AdamW."""
        model.to(self.device).train()
        optimizer = build_optimizer(
            model,
            optimizer="adamw",
            learning_rate=5e-4,
            muon_learning_rate=0.0,
            weight_decay=0.01,
            betas=(0.9, 0.98),
            eps=1e-6,
        )
        batches = self.batches()

        def run() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                value = loss(next(batches))
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return run

    def model(self, *objectives: str, compiled: bool | None = None) -> SpanElectraForPreTraining:
        """Our model with these objectives, compiled where that is asked for."""
        config = SpanElectraConfig(
            generator_config=self.generator, discriminator_config=self.encoder, objectives=list(objectives)
        )
        model = SpanElectraForPreTraining(config)
        if self.compiled if compiled is None else compiled:
            reason = compile_encoders(model)
            if reason:
                raise RuntimeError(reason)
        return model

    def flops(self, *objectives: str) -> float:
        """FLOPs of a step of our model with these objectives."""
        return self.flops_of(self.model(*objectives, compiled=False))

    def flops_of(self, model: SpanElectraForPreTraining) -> float:
        """FLOPs of a step of this model."""
        count = next(self.batches())["labels"].shape[1]
        return self.shape.rows * row_training_flops(model, self.shape.length, count)


def scattered_labels(batch: dict[str, Tensor]) -> Tensor:
    """Labels of all positions as Hugging Face's classes want them; the padding of (batch, count) goes nowhere."""
    everywhere = torch.full_like(batch["original_ids"], IGNORE_INDEX)
    return everywhere.scatter(1, batch["masked_positions"], batch["labels"])


def stock_pair(bench: Bench) -> tuple[nn.Module, nn.Module]:
    """Stock generator and detector; the embeddings are shared where their widths allow it."""
    generator, detector = build_masked_language_model(bench.generator), build_detector(bench.encoder)
    if embedding_size(bench.generator) == embedding_size(bench.encoder):
        encoder_of(generator).embeddings = encoder_of(detector).embeddings
        generator.tie_weights()
    return generator, detector


def naive_hugging_face(bench: Bench) -> Step:
    """The two stock classes, one after the other; vocabulary logits of every position."""
    generator, detector = stock_pair(bench)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        labels = scattered_labels(batch)
        generated = generator(input_ids=batch["input_ids"], labels=labels)
        masked = labels != IGNORE_INDEX
        with torch.no_grad():
            probabilities = generated.logits[masked].float().softmax(-1)
            corrupted = batch["original_ids"].clone()
            corrupted[masked] = torch.multinomial(probabilities, 1).squeeze(-1)
        replaced = (corrupted != batch["original_ids"]).long()
        return generated.loss + 50 * detector(input_ids=corrupted, labels=replaced).loss

    return bench.step(nn.ModuleList([generator, detector]), loss), bench.flops("mlm", "ato")


class _Logits(nn.Module):
    """electra-pytorch wants logits, not outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids).logits


def electra_pytorch(bench: Bench) -> Step:
    """The PyPI package of this name as its README uses it, given our masked positions in place of its own draw."""
    import electra_pytorch.electra_pytorch as package

    tokenizer = bench.data.tokenizer
    electra = package.Electra(
        *(_Logits(model) for model in stock_pair(bench)),
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        mask_ignore_token_ids=[tokenizer.cls_token_id, tokenizer.sep_token_id],
        mask_prob=MASK_RATIO,
    )
    mask: list[Tensor] = []
    package.get_mask_subset_with_prob = lambda *_: mask[0]

    def loss(batch: dict[str, Tensor]) -> Tensor:
        mask[:] = [scattered_labels(batch) != IGNORE_INDEX]
        return electra(batch["original_ids"]).loss

    return bench.step(electra, loss), bench.flops("mlm", "ato")


def plain_masked_language_model(bench: Bench) -> Step:
    """What users of transformers' run_mlm pay: the encoder that is kept, vocabulary logits of every position."""
    model = build_masked_language_model(bench.encoder)
    if bench.compiled:
        encoder_of(model).compile()

    def loss(batch: dict[str, Tensor]) -> Tensor:
        return model(input_ids=batch["input_ids"], labels=scattered_labels(batch)).loss

    config = SpanElectraConfig(generator_config=bench.encoder, objectives=["mlm"])
    return bench.step(model, loss), bench.flops_of(SpanElectraForPreTraining(config))


def ours(*objectives: str) -> Callable[[Bench], Step]:
    """Our model's bare step with these objectives."""

    def make(bench: Bench) -> Step:
        model = bench.model(*objectives)
        weights = {"ato": 50.0, "sbpo": 10.0}
        return bench.step(model, lambda batch: model(**batch, loss_weights=weights).loss), bench.flops_of(model)

    return make


class _AfterStep(TrainerCallback):
    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.after_step()


def make_trainer(bench: Bench) -> SpanElectraTrainer:
    """The trainer that `spanelectra pretrain` would make, of our model with all objectives."""
    model = bench.model(*OBJECTIVES)
    console = Console(quiet=True)
    return build_trainer(bench.settings, model, bench.data, console, HealthMonitor(None, 1, 0), SaveAndStopCallback())


def run_trainer(bench: Bench, after_step: Callable[[], None]) -> None:
    """`spanelectra pretrain`'s own loop, with loading, masking, metrics and logging, until ``after_step`` raises."""
    trainer = make_trainer(bench)
    trainer.add_callback(_AfterStep(after_step))
    trainer.train()


@dataclasses.dataclass(frozen=True)
class Choice:
    """A row of the benchmark.

    Attributes:
        make: makes the step; ``None`` for the trainer's own loop.
        dropout: of every encoder.
        compiled: whether encoders are compiled.
        keeps_memory: whether malloc keeps what is freed. Our commands have it do so, and anybody can: everything is
            compared with it, and what it brings is a comparison of its own.
        bf16: bfloat16 autocast on a processor; on a GPU every step has it.
    """

    make: Callable[[Bench], Step] | None
    dropout: float = 0.0
    compiled: bool = False
    keeps_memory: bool = True
    bf16: bool = False

    @property
    def baseline(self) -> str:
        """The naive step with the same dropout, memory and arithmetic."""
        return (
            NAIVE
            + ("" if self.dropout else ", no dropout")
            + ("" if self.keeps_memory else RETURNED)
            + (BFLOAT16 if self.bf16 else "")
        )


NAIVE, RETURNED, BFLOAT16 = "naive Hugging Face", ", freed memory returned", ", bfloat16"
_WITHOUT_HEADS, _WITH_HEADS = ours("mlm", "ato"), ours(*OBJECTIVES)
STEPS: dict[str, Choice] = {
    NAIVE: Choice(naive_hugging_face, 0.1),
    f"{NAIVE}, no dropout": Choice(naive_hugging_face),
    f"{NAIVE}, no dropout{RETURNED}": Choice(naive_hugging_face, keeps_memory=False),
    "electra-pytorch": Choice(electra_pytorch, 0.1),
    "electra-pytorch, no dropout": Choice(electra_pytorch),
    "plain MLM": Choice(plain_masked_language_model, 0.1),
    "plain MLM, no dropout": Choice(plain_masked_language_model),
    "plain MLM, no dropout, compiled": Choice(plain_masked_language_model, compiled=True),
    "ours without boundary heads": Choice(_WITHOUT_HEADS, 0.1),
    "ours without boundary heads, no dropout": Choice(_WITHOUT_HEADS),
    "ours without boundary heads, no dropout, compiled": Choice(_WITHOUT_HEADS, compiled=True),
    "ours": Choice(_WITH_HEADS, 0.1),
    "ours, no dropout": Choice(_WITH_HEADS),
    f"ours, no dropout{RETURNED}": Choice(_WITH_HEADS, keeps_memory=False),
    "ours, no dropout, compiled": Choice(_WITH_HEADS, compiled=True),
    "ours, no dropout, in the trainer": Choice(None),
    f"{NAIVE}, no dropout{BFLOAT16}": Choice(naive_hugging_face, bf16=True),
    f"plain MLM, no dropout{BFLOAT16}": Choice(plain_masked_language_model, bf16=True),
    f"ours without boundary heads, no dropout{BFLOAT16}": Choice(_WITHOUT_HEADS, bf16=True),
    f"ours, no dropout{BFLOAT16}": Choice(_WITH_HEADS, bf16=True),
}
