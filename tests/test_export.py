"""Exports open as stock models with the run's own logits, and nothing appears where they would not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, pipeline

from factories import FAMILIES, encoder_config, joint_config, perturb
from spanelectra import export as export_module
from spanelectra.atomic_files import write_directory
from spanelectra.configuration_spanelectra import SHARING, SpanElectraConfig
from spanelectra.console import make_console
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.export import export, open_run, run_settings, save_tokenizer
from spanelectra.export_check import check_export
from spanelectra.finetuning.probe_callback import WaitForProbe
from spanelectra.health import HealthMonitor
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import _probe_while_training
from spanelectra.recipe_files import as_yaml
from spanelectra.training_args import PretrainingArguments

TEXTS = ["The names in the module.", "naïve café — 東京 🙂\tand\n  more", ""]
DETECTOR_CLASSES = {
    "electra": "ElectraForPreTraining",
    "modernbert": "ModernBertForTokenClassification",
    "bert": "BertForTokenClassification",
}
LANGUAGE_MODEL_CLASSES = {
    "electra": "ElectraForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "bert": "BertForMaskedLM",
}


@pytest.fixture(scope="session")
def tokenizer(rows: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    return load_tokenizer(rows / "tokenizer")


@pytest.fixture(scope="session")
def wordpiece(other_rows: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(other_rows / "tokenizer")


def write_run(
    run: Path, tokenizer: PreTrainedTokenizerFast, config: SpanElectraConfig, metrics: dict[str, Any] | None = None
) -> SpanElectraForPreTraining:
    """A run directory as `pretrain` leaves it, with perturbed weights; returns the model."""
    for part in (config.generator_config, config.discriminator_config):
        if part is not None:
            part.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    model = SpanElectraForPreTraining(config)
    perturb(model)
    with write_directory(run / "model") as partial:
        model.save_pretrained(partial)
    tokenizer.save_pretrained(run / "tokenizer")
    if metrics is not None:
        (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return model.eval()


def two_rows(tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """Two sentences, the shorter one padded."""
    texts = ["The names in the module are listed.", "An error."]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def open_stock(directory: Path) -> PreTrainedModel:
    """Open a model by the class that its own config names."""
    (name,) = json.loads((directory / "config.json").read_text(encoding="utf-8"))["architectures"]
    return getattr(transformers, name).from_pretrained(directory).eval()


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_stock_models_compute_what_the_run_computes(
    family: str, sharing: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = write_run(tmp_path / "run", tokenizer, joint_config(family, sharing=sharing))
    summary = export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    inputs = two_rows(tokenizer)
    read = inputs["attention_mask"].bool()

    detector = open_stock(tmp_path / "out" / "discriminator")
    assert type(detector).__name__ == DETECTOR_CLASSES[family] == summary["discriminator"]["class"]
    assert model.discriminator is not None
    hidden = model.discriminator.encode(**inputs)
    logits = detector(**inputs).logits
    if family != "electra":
        assert detector.config.id2label == {0: "original", 1: "replaced"}
        logits = logits[..., 1] - logits[..., 0]
    torch.testing.assert_close(logits[read], model.discriminator.all_token_logits(hidden)[read], rtol=0, atol=1e-5)
    encoder = AutoModel.from_pretrained(tmp_path / "out" / "discriminator").eval()
    torch.testing.assert_close(encoder(**inputs).last_hidden_state[read], hidden[read], rtol=0, atol=1e-5)

    language_model = open_stock(tmp_path / "out" / "generator")
    assert type(language_model).__name__ == LANGUAGE_MODEL_CLASSES[family] == summary["generator"]["class"]
    assert model.generator is not None
    positions = torch.arange(read.shape[1]).expand_as(read)
    own = model.generator(inputs["input_ids"], positions, attention_mask=inputs["attention_mask"], sbgo=False)
    assert own.mlm_logits is not None
    torch.testing.assert_close(language_model(**inputs).logits[read], own.mlm_logits[read], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["tokenizer", "wordpiece"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_and_pipelines_open(family: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    write_run(tmp_path / "run", tokenizer, joint_config(family))
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    for part in ("discriminator", "generator"):
        opened = AutoTokenizer.from_pretrained(tmp_path / "out" / part)
        assert [opened(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
        assert opened.special_tokens_map == tokenizer.special_tokens_map
        assert opened.model_max_length == 40, "no longer than the encoder's positions"
    fills = pipeline("fill-mask", str(tmp_path / "out" / "generator"))("The [MASK] of the module.")
    assert len(fills) == 5
    if family != "electra":
        verdicts = pipeline("token-classification", str(tmp_path / "out" / "discriminator"), ignore_labels=[])
        assert {verdict["entity"] for verdict in verdicts("The names of the module.")} <= {"original", "replaced"}


def test_an_export_opens_where_this_package_cannot_be_imported(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config("electra", sharing="gradient_disentangled"))
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    script = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "spanelectra":
            raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
from transformers import AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining
for part, opens in (("discriminator", ElectraForPreTraining), ("generator", ElectraForMaskedLM)):
    model, info = opens.from_pretrained(part, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    model(**AutoTokenizer.from_pretrained(part)("The names.", return_tensors="pt"))
assert "spanelectra" not in sys.modules
print("opened")
"""
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "out", capture_output=True, text=True, timeout=120
    )
    assert finished.stdout.strip() == "opened", finished.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_on_the_model_cards_runs(family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config(family))
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    for part in ("discriminator", "generator"):
        card = (tmp_path / "out" / part / "README.md").read_text(encoding="utf-8")
        examples = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        assert len(examples) == 2
        for example in examples:
            exec(example.replace("PATH", str(tmp_path / "out" / part)), {})


def test_a_card_states_method_and_metrics(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    metrics = {
        "method": "spanelectra",
        "stage": "joint",
        "steps": 1200,
        "tokens": 2457600,
        "held_out": {"mlm_loss": 5.4321, "ato_auc": 0.71, "broken": float("nan")},
        "unigram_cross_entropy": 6.5,
    }
    write_run(tmp_path / "run", tokenizer, joint_config(), metrics)
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    card = (tmp_path / "out" / "discriminator" / "README.md").read_text(encoding="utf-8")
    for statement in ("2,457,600", "1,200", "| `mlm_loss` | 5.432 |", "| 6.5 |", "SBPO", "shared: embeddings"):
        assert statement in card
    assert "broken" not in card
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert json.loads((tmp_path / "out" / "checkpoint" / "metrics.json").read_text(encoding="utf-8"))["steps"] == 1200


def test_the_checkpoint_keeps_the_boundary_heads_and_can_be_exported_itself(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = write_run(tmp_path / "run", tokenizer, joint_config("modernbert"), {"steps": 7})
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    reopened, _, source = open_run(tmp_path / "out")
    assert source == tmp_path / "out" / "checkpoint" == open_run(source)[2]
    expected = model.state_dict()
    assert any("span_boundary_head" in name for name in expected)
    assert expected.keys() == reopened.state_dict().keys()
    for name, tensor in reopened.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    for source in (tmp_path / "out" / "checkpoint", tmp_path / "out"):
        again = export(str(source), str(tmp_path / "again"), overwrite=True, quiet=True)
        assert again["discriminator"]["class"] == "ModernBertForTokenClassification"
        kept = json.loads((tmp_path / "again" / "checkpoint" / "metrics.json").read_text(encoding="utf-8"))
        assert kept == {"steps": 7}


def test_a_run_without_a_discriminator_says_so(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm", "sbgo"])
    write_run(tmp_path / "run", tokenizer, config)
    summary = export(str(tmp_path / "run"), str(tmp_path / "out"))
    assert summary["discriminator"] is None
    assert not (tmp_path / "out" / "discriminator").exists()
    assert (tmp_path / "out" / "generator" / "model.safetensors").is_file()
    assert "no discriminator" in capsys.readouterr().err


@pytest.mark.parametrize("keeps_generator", [True, False])
def test_a_run_of_the_discriminator_stage(
    keeps_generator: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = SpanElectraConfig(
        generator_config=encoder_config("electra", layers=1) if keeps_generator else None,
        discriminator_config=encoder_config("electra"),
        objectives=["ato", "sbpo"],
        sharing="none",
        freeze_generator=keeps_generator,
    )
    write_run(tmp_path / "run", tokenizer, config)
    summary = export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    assert summary["discriminator"] is not None
    assert (summary["generator"] is not None) == keeps_generator == (tmp_path / "out" / "generator").exists()


@pytest.mark.parametrize(
    ("family", "dropout", "expected"),
    [("electra", None, 0.1), ("bert", None, 0.1), ("modernbert", None, 0.0), ("modernbert", 0.2, 0.2)],
)
def test_dropout_is_set_for_fine_tuning(
    family: str, dropout: float | None, expected: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config(family))
    export(str(tmp_path / "run"), str(tmp_path / "out"), dropout=dropout, quiet=True)
    config = json.loads((tmp_path / "out" / "discriminator" / "config.json").read_text(encoding="utf-8"))
    names = ("mlp_dropout", "attention_dropout") if family == "modernbert" else ("hidden_dropout_prob",)
    assert [config[name] for name in names] == [expected] * len(names)
    own = json.loads((tmp_path / "out" / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    assert [own["discriminator_config"][name] for name in names] == [0.0] * len(names)


def test_no_file_tells_where_it_was_made(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = joint_config()
    for part in (config.generator_config, config.discriminator_config):
        part.name_or_path = str(tmp_path / "continued")
    model = write_run(tmp_path / "run", tokenizer, config)
    # a run that goes on where its tasks are gone
    added: list[Any] = []
    trainer: Any = SimpleNamespace(
        model=model,
        settings=PretrainingArguments(probe_steps=1),
        args=SimpleNamespace(seed=0),
        add_callback=added.append,
    )
    data: Any = SimpleNamespace(tokenizer=tokenizer)
    monitor = HealthMonitor(None, max_steps=1)
    _probe_while_training(trainer, str(tmp_path / "gone"), data, make_console(), monitor, goes_on=True)
    assert [type(callback) for callback in added] == [WaitForProbe]
    assert f"at the start: tasks '{tmp_path / 'gone'}' is not a folder" in capsys.readouterr().err
    (alarm,) = monitor.alarms
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"alarms": monitor.alarms}))
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    assert alarm in (tmp_path / "out" / "checkpoint" / "metrics.json").read_text()
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes(), file


def test_the_runs_settings_go_with_the_checkpoint_without_their_places(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    assert run_settings(tmp_path / "run") is None
    kinds = get_type_hints(PretrainingArguments)
    free = [name for name, kind in kinds.items() if kind in (str, str | None) and name != "out_dir"]
    settings = PretrainingArguments(
        **dict.fromkeys(free, str(tmp_path / "x")), out_dir=str(tmp_path / "run"), max_span_words="0:1 1:5", seed=7
    )
    (tmp_path / "run" / "config.yaml").write_text(as_yaml(settings), encoding="utf-8")
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    again = export(str(tmp_path / "out" / "checkpoint"), str(tmp_path / "again"), quiet=True)
    for place in (tmp_path / "out", Path(again["checkpoint"])):
        kept = run_settings(place)
        assert kept is not None and (kept.max_span_words, kept.seed) == ("0:1 1:5", 7)
        assert not any(getattr(kept, name) for name in (*free, "out_dir"))
        for file in place.rglob("*"):
            assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes(), file


def test_only_what_belongs_to_a_run_has_the_settings_beside_it(tmp_path: Path) -> None:
    for name in ("model", "checkpoint-3", "checkpoint-best", "bert", "generator"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(as_yaml(PretrainingArguments(seed=7)), encoding="utf-8")
    for name, belongs in (("model", True), ("checkpoint-3", True), ("checkpoint-best", False), ("bert", False)):
        found = run_settings(tmp_path / "run" / name)
        assert (found is not None and found.seed == 7) == belongs, name
    # where an export and a run are in one folder, the export's own are taken
    assert run_settings(tmp_path / "run" / "generator") is None
    (tmp_path / "run" / "checkpoint").mkdir()
    settings = PretrainingArguments(seed=8)
    (tmp_path / "run" / "checkpoint" / "config.yaml").write_text(as_yaml(settings), encoding="utf-8")
    found = run_settings(tmp_path / "run" / "generator")
    assert found is not None and found.seed == 8
    (tmp_path / "run" / "config.yaml").write_text("title: a site about models\n")
    assert run_settings(tmp_path / "run" / "bert") is None


def test_settings_that_cannot_be_read_stop_no_export(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    (tmp_path / "run" / "config.yaml").write_text("mask_ratoi: 0.1\n")
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    assert run_settings(tmp_path / "out") is None
    with pytest.raises(UserError, match="mask_ratio"):
        run_settings(tmp_path / "run")


@pytest.mark.parametrize("value", [1.001, float("nan")])
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_a_model_that_differs_is_refused(
    part: str, value: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialise = export_module.materialise

    def tampered(model: PreTrainedModel) -> PreTrainedModel:
        copied = materialise(model)
        is_generator = type(model).__name__.endswith("MaskedLM")
        if is_generator == (part == "generator"):
            next(p for name, p in copied.named_parameters() if "layer.1.output.dense" in name).data.mul_(value)
        return copied

    write_run(tmp_path / "run", tokenizer, joint_config())
    monkeypatch.setattr(export_module, "materialise", tampered)
    with pytest.raises(RuntimeError, match=f"{part} was not exported: its outputs differ"):
        export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left behind"


def test_what_a_reader_would_not_get_whole_is_refused(
    tokenizer: PreTrainedTokenizerFast, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = write_run(tmp_path / "run", tokenizer, joint_config())
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    directory, part = tmp_path / "out" / "discriminator", model.discriminator
    assert part is not None
    stock_class = transformers.ElectraForPreTraining
    assert check_export(directory, part, stock_class, tokenizer) <= 1e-5

    weights = load_file(directory / "model.safetensors")
    for problem, changed in (
        ("missing_keys", {name: tensor for name, tensor in weights.items() if "layer.0.output.dense.bias" not in name}),
        ("unexpected_keys", weights | {"electra.another": torch.zeros(1)}),
    ):
        save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(RuntimeError, match=problem):
            check_export(directory, part, stock_class, tokenizer)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(wordpiece, directory, 40)
    with pytest.raises(RuntimeError, match="tokenizer"):
        check_export(directory, part, stock_class, tokenizer)


def test_an_existing_directory_is_replaced_only_when_asked_and_only_if_it_is_an_export(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    export(run, out, quiet=True)
    with pytest.raises(UserError, match="overwrite"):
        export(run, out, quiet=True)
    (tmp_path / "out" / "generator" / "stale").write_text("")
    export(run, out, overwrite=True, quiet=True)
    assert not (tmp_path / "out" / "generator" / "stale").exists()
    with pytest.raises(UserError, match="other files"):
        export(run, run, overwrite=True, quiet=True)
    assert open_run(run)[0].generator is not None, "a run is never overwritten"


def test_a_run_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        export(str(tmp_path / "run"), str(tmp_path / "out"))
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="no finished model"):
        export(str(tmp_path / "run"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_encoder_alone_is_no_run(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    whole = f"Did you mean '{tmp_path / 'out'}'"
    for part in ("generator", "discriminator"):
        wanted = f"{tmp_path / 'out' / part} holds a model of type electra, an encoder alone; this needs .*{whole}"
        with pytest.raises(UserError, match=wanted):
            open_run(tmp_path / "out" / part)
    (tmp_path / "fine_tuned").mkdir()
    (tmp_path / "out" / "discriminator").rename(tmp_path / "fine_tuned" / "model")
    (tmp_path / "fine_tuned" / "model" / "task.json").write_text("{}")
    with pytest.raises(UserError, match=f"{tmp_path / 'fine_tuned'} holds a fine-tuned model; this needs"):
        open_run(tmp_path / "fine_tuned")
    # a part of what is no run is not taken for a part of one
    (tmp_path / "of_others" / "checkpoint-3").mkdir(parents=True)
    others = (tmp_path / "fine_tuned" / "model", tmp_path / "fine_tuned" / "seed-0", tmp_path / "of_others" / "part")
    for directory in others:
        with pytest.raises(UserError) as refused:
            open_run(directory)
        assert "Did you mean" not in str(refused.value)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_damaged_run(file: str, has_manifest: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    damaged = tmp_path / "run" / "model" / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    if not has_manifest:
        (tmp_path / "run" / "model" / "manifest.json").unlink()
    with pytest.raises(UserError, match="damaged"):
        export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)


def test_a_tokenizer_that_is_missing_or_of_another_run(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    file = tmp_path / "run" / "tokenizer" / "tokenizer.json"
    content = file.read_text(encoding="utf-8")
    file.unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    file.write_text(content, encoding="utf-8")
    other = load_tokenizer(tmp_path / "run" / "tokenizer")
    other.add_tokens(["another"])
    other.save_pretrained(tmp_path / "run" / "tokenizer")
    with pytest.raises(UserError, match="not of one run"):
        export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_probability(dropout: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dropout"):
        export(str(tmp_path / "run"), str(tmp_path / "out"), dropout=dropout)
