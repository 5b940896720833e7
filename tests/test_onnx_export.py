"""ONNX graphs compute what the models compute, at any batch size and length; nothing appears where they would not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from factories import FAMILIES, encoder_config, perturb
from spanelectra import onnx_export, onnx_graph
from spanelectra.atomic_files import find_damage, seal
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.export import save_tokenizer
from spanelectra.onnx_export import export_onnx, open_stock_model
from spanelectra.onnx_graph import compared_shapes, largest_difference, make_inputs, open_session, save_graph, silence

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
# tracing takes seconds: by default rotary and learnt positions, one output for a row and two for a token, with types
QUICK = [("modernbert", "SequenceClassification"), ("bert", "QuestionAnswering")]
EVERY = [("electra", "PreTraining"), *((family, head) for family in FAMILIES for head in HEADS)]
OTHERS = [case for case in EVERY if case not in QUICK]
# of the largest output: float32 sums in another order, which differs from processor to processor (1.3e-5 was seen)
ROUNDING = 5e-5
BATCHES = [
    ["One."],
    ["The names in the module are listed here, one after the other.", "An error.", "Of a type."],
    ["A list of two", "and the second."],
    [""],
]


def make_model(family: str, head: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A model of one layer with random weights, in evaluation mode."""
    config = encoder_config(family, layers=1, embedding_size=16 if family == "electra" else None)
    config.vocab_size = len(tokenizer)
    if head in ("SequenceClassification", "TokenClassification"):
        config.num_labels = 5
    if family == "modernbert":
        config.classifier_pooling = "mean"
    torch.manual_seed(0)
    auto_class = "AutoModelForPreTraining" if head == "PreTraining" else f"AutoModelFor{head}"
    model = getattr(transformers, auto_class).from_config(config)
    perturb(model)
    return model.eval()


def save_model(directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A stock Hugging Face directory, as `export` and `finetune` leave it."""
    model.save_pretrained(directory)
    save_tokenizer(tokenizer, directory, model.config.max_position_embeddings)
    return directory


@pytest.fixture(scope="session")
def tokenizers(rows: Path, other_rows: Path) -> dict[str, PreTrainedTokenizerFast]:
    """Ours, without token types; and for BERT one that has them, as the released ones do."""
    ours = load_tokenizer(rows / "tokenizer")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    typed = AutoTokenizer.from_pretrained(other_rows / "tokenizer", model_input_names=names)
    return {"electra": ours, "modernbert": ours, "bert": typed}


class Exported:
    """A model, its directory, what the export returned and where it wrote."""

    def __init__(self, family: str, head: str, tokenizer: PreTrainedTokenizerFast, place: Path) -> None:
        self.model, self.tokenizer = make_model(family, head, tokenizer), tokenizer
        self.directory, self.out = save_model(place / "model", self.model, tokenizer), place / "onnx"
        self.summary = export_onnx(str(self.directory), str(self.out), quiet=True)


@pytest.fixture(scope="session", params=QUICK, ids="-".join)
def exported(
    request: pytest.FixtureRequest,
    tokenizers: dict[str, PreTrainedTokenizerFast],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    family, head = request.param
    return Exported(family, head, tokenizers[family], tmp_path_factory.mktemp("onnx"))


@torch.no_grad()
def check_equality(exported: Exported) -> None:
    """Run both on real sentences, through the tokenizer that lies beside the graph."""
    session = open_session(exported.out / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(exported.out)
    has_types = "token_type_ids" in exported.tokenizer.model_input_names
    names = {"input_ids", "attention_mask"} | ({"token_type_ids"} if has_types else set())
    assert {spec.name for spec in session.get_inputs()} == names == set(exported.summary["inputs"])
    assert all(spec.shape == ["batch_size", "sequence_length"] for spec in session.get_inputs())
    for batch in BATCHES:
        inputs = tokenizer(batch, padding=True, return_tensors="pt")
        expected = exported.model(**inputs)
        found = session.run(None, {spec.name: inputs[spec.name].numpy() for spec in session.get_inputs()})
        assert [spec.name for spec in session.get_outputs()] == list(expected) == list(exported.summary["outputs"])
        for own, other in zip(expected.to_tuple(), found, strict=True):
            torch.testing.assert_close(torch.from_numpy(other), own, rtol=0, atol=ROUNDING * own.abs().max().item())


def test_the_graph_computes_what_the_model_computes(exported: Exported) -> None:
    check_equality(exported)
    assert exported.summary["difference"] <= ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(("family", "head"), OTHERS)
def test_every_head_of_every_family(
    family: str, head: str, tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    check_equality(Exported(family, head, tokenizers[family], tmp_path))


@pytest.mark.slow
def test_a_sliding_window_shorter_than_the_input(
    tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    """As the released ModernBERTs have it; a row's padding may lie where no window reaches."""
    model = make_model("modernbert", "TokenClassification", tokenizers["modernbert"])
    changes = {"layer_types": ["sliding_attention"], "local_attention": 8, "rope_parameters": None}
    windowed = type(model)(type(model.config).from_dict(model.config.to_dict() | changes)).eval()
    windowed.load_state_dict(model.state_dict())
    inputs = tokenizers["modernbert"](BATCHES[1], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert not torch.equal(windowed(**inputs).logits, model(**inputs).logits), "the window has no effect"
    save_model(tmp_path / "model", windowed, tokenizers["modernbert"])
    assert export_onnx(str(tmp_path / "model"), str(tmp_path / "onnx"), quiet=True)["difference"] <= ROUNDING


def test_the_directory_is_whole_and_its_page_works(exported: Exported) -> None:
    assert find_damage(exported.out) is None
    config = json.loads((exported.out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [type(exported.model).__name__] == [exported.summary["class"]]
    size = (exported.out / "model.onnx").stat().st_size
    assert exported.summary["bytes"] == size < 1.2 * (exported.directory / "model.safetensors").stat().st_size + 200_000
    card = (exported.out / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    variables: dict[str, Any] = {}
    exec(example.replace("PATH", str(exported.out)), variables)
    assert [array.shape[0] for array in variables["outputs"]] == [2] * len(exported.summary["outputs"])


def test_no_file_tells_where_it_was_made(exported: Exported) -> None:
    places = (
        str(exported.directory.parent),
        str(Path(torch.__file__).parent.parent),
        str(Path(__file__).parent.parent),
    )
    for file in exported.out.iterdir():
        content = file.read_bytes()
        assert not any(place.encode() in content for place in places), file


def graph_of(exported: Exported) -> Any:
    """The graph that was written, for another export to write again."""
    import onnx_ir

    return onnx_ir.load(exported.out / "model.onnx")


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_a_graph_that_differs_is_refused(
    factor: float, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    graph = graph_of(exported)
    weight = next(value for name, value in graph.graph.initializers.items() if "word_emb" in name or "tok_emb" in name)
    table = weight.const_value.numpy().copy()
    table[:, 0] *= factor  # one column, for a normalisation would undo a change of them all
    weight.const_value = onnx_ir.tensor(table, name=weight.name)
    monkeypatch.setattr(onnx_export, "trace", lambda model, tokenizer: graph)
    with pytest.raises(RuntimeError, match="was not exported: onnxruntime's outputs differ"):
        export_onnx(str(exported.directory), str(tmp_path / "out"), quiet=True)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_outputs_of_another_shape_are_no_match(exported: Exported) -> None:
    class Narrower:
        """The model, with the last row of every output missing."""

        config, forward = exported.model.config, exported.model.forward

        def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {name: tensor[:-1] for name, tensor in exported.model(**inputs).items()}

    session = open_session(exported.out / "model.onnx")
    assert largest_difference(session, Narrower(), exported.tokenizer) == float("inf")  # type: ignore[arg-type]
    assert largest_difference(session, exported.model, exported.tokenizer) <= ROUNDING


def test_the_weights_of_a_large_model_lie_beside_the_graph(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_MESSAGE", 1000)
    save_graph(graph_of(exported), tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 1000
    session = open_session(tmp_path / "model.onnx")
    assert largest_difference(session, exported.model, exported.tokenizer) <= ROUNDING


def test_an_existing_directory_is_replaced_only_when_asked_and_only_if_it_is_an_export(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "trace", lambda model, tokenizer: graph_of(exported))
    model, out = str(exported.directory), tmp_path / "out"
    export_onnx(model, str(out))
    assert "differ from torch's by" in capsys.readouterr().err
    with pytest.raises(UserError, match="overwrite"):
        export_onnx(model, str(out), quiet=True)
    (out / "README.md").write_text("stale", encoding="utf-8")
    export_onnx(model, str(out), overwrite=True, quiet=True)
    assert "stale" not in (out / "README.md").read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="other files"):
        export_onnx(model, model, overwrite=True, quiet=True)
    assert (exported.directory / "model.safetensors").is_file()


def test_the_batches_that_are_compared_are_new_to_the_graph() -> None:
    for longest in (8, 16, 128, 8192):
        shapes = compared_shapes(longest)
        assert max(length for _, length in shapes) == min(longest, 512)
        assert (2, 9) not in shapes and len({rows for rows, _ in shapes}) > 1


def test_inputs_are_what_the_tokenizer_gives(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    model = make_model("bert", "TokenClassification", tokenizers["bert"])
    inputs = make_inputs(model, tokenizers["bert"], 3, 8)
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert inputs["attention_mask"].sum(1).tolist() == [8, 8, 4]
    assert inputs["token_type_ids"].unique().tolist() == [0, 1]
    assert set(make_inputs(model, tokenizers["electra"], 1, 1)) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("package", ["onnxruntime", "transformers.exporters"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install 'spanelectra\[onnx\]'"):
        export_onnx(str(tmp_path), str(tmp_path / "out"), quiet=True)


def test_a_model_that_transformers_cannot_trace(
    tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("electra", "MaskedLM", tokenizers["electra"])
    directory = save_model(tmp_path / "model", model, tokenizers["electra"])

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("no kernel\nfor this")

    monkeypatch.setattr(transformers.ElectraModel, "forward", fail)
    with pytest.raises(UserError, match=r"cannot export ElectraForMaskedLM to ONNX \(.*no kernel.*\)$"):
        export_onnx(str(directory), str(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_no_stock_model(tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing does not exist\. .*spanelectra export"):
        open_stock_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no Hugging Face model: .*config.json is missing\. .*spanelectra export"):
        open_stock_model(tmp_path / "empty")
    model = make_model("bert", "TokenClassification", tokenizers["bert"])
    directory = save_model(tmp_path / "run" / "model", model, tokenizers["bert"])
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=rf"Did you mean '{directory}'"):
        open_stock_model(tmp_path / "run")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    for content, complaint in (
        (config | {"architectures": ["SpanElectraForPreTraining"]}, r"'SpanElectraForPreTraining'.*spanelectra export"),
        (config | {"architectures": []}, r"names no class of transformers \(''\)"),
        (config | {"hidden_size": "wide"}, "does not open as a BertForTokenClassification"),
        ([], "names no class of transformers"),
    ):
        (directory / "config.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=complaint):
            open_stock_model(directory)


def test_a_model_that_is_damaged_or_not_filled(tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path) -> None:
    model = make_model("bert", "TokenClassification", tokenizers["bert"])
    directory = save_model(tmp_path / "model", model.bert, tokenizers["bert"])
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForTokenClassification"]
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"do not fill BertForTokenClassification; 2 tensors are missing, classifier"):
        open_stock_model(directory)
    (directory / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="does not open as a BertForTokenClassification"):
        open_stock_model(directory)
    seal(directory)
    (directory / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"is damaged: model.safetensors has a wrong checksum\.$"):
        open_stock_model(directory)


def test_silence_ends(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    with pytest.raises(KeyError), silence():
        print("unheard")
        logging.getLogger("torch.onnx").warning("unheard")
        raise KeyError
    print("heard")
    assert logging.getLogger("torch.onnx").isEnabledFor(logging.ERROR)
    assert logging.root.manager.disable == 0
    assert capsys.readouterr() == ("heard\n", "")


def documented_lines(directory: Path, onnx: Path, exported: Path) -> list[str]:
    """The Python of docs/onnx.md, in order, with directories in place of its names."""
    text = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text(encoding="utf-8")
    names = {'"DIRECTORY"': f'"{directory}"', '"ONNX/': f'"{onnx}/', '"EXPORTED"': f'"{exported}"'}
    for name, path in (names | {"enable_truncation(512)": "enable_truncation(40)"}).items():
        assert name in text
        text = text.replace(name, path)
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_documented_lines_run_without_torch(exported: Exported, tmp_path: Path) -> None:
    running, answering, _ = documented_lines(exported.directory, exported.out, tmp_path)
    assert "torch" not in running + answering and "transformers" not in running + answering
    variables: dict[str, Any] = {}
    exec(running, variables)
    lengths = [sum(encoding.attention_mask) for encoding in variables["encodings"]]
    assert len(set(lengths)) == 2, "one of the two sentences is padded"
    inputs = {name: torch.from_numpy(array) for name, array in variables["inputs"].items()}
    with torch.no_grad():
        expected = exported.model(**inputs)
    assert variables["outputs"].keys() == expected.keys()
    for name, array in variables["outputs"].items():
        atol = ROUNDING * expected[name].abs().max().item()
        torch.testing.assert_close(torch.from_numpy(array), expected[name], rtol=0, atol=atol)
    if "start_logits" in expected:
        exec(answering, variables)
        assert variables["answer"] and variables["answer"] in variables["context"]


@pytest.mark.slow
def test_the_documented_lines_of_transformers(tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path) -> None:
    model = make_model("modernbert", "TokenClassification", tokenizers["modernbert"])
    directory = save_model(tmp_path / "model", model, tokenizers["modernbert"])
    *_, lines = documented_lines(directory, directory, tmp_path / "exported")
    variables: dict[str, Any] = {}
    exec(lines, variables)
    with torch.no_grad():
        expected = model(**variables["inputs"]).logits
    atol = ROUNDING * expected.abs().max().item()
    torch.testing.assert_close(variables["outputs"].logits, expected, rtol=0, atol=atol)
