"""Names on the Hub: where it cannot be asked, nobody is told that a name is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from spanelectra.data.records import read_dataset
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import open_encoder
from spanelectra.hub import out_of_reach
from spanelectra.weight_transfer import read_encoder_config


class ConnectError(Exception):
    """What the Hub's client raises is no error of the system's, but has one as its cause."""


def no_name(*arguments: object, **named: object) -> None:
    try:
        raise socket.gaierror(-2, "Name or service not known")
    except OSError as error:
        raise ConnectError("[Errno -2] Name or service not known") from error


def unknown(*arguments: object, **named: object) -> None:
    raise ValueError("Repository Not Found")


@pytest.mark.parametrize(
    ("opened", "what", "here"),
    [
        (load_tokenizer, "tokenizer", "directory"),
        (open_encoder, "model", "directory"),
        (read_encoder_config, "Hugging Face model", "directory"),
        (lambda name: next(read_dataset(name, "text", lambda count: None)), "dataset", "file or folder"),
    ],
)
def test_a_hub_out_of_reach_is_not_a_name_that_is_wrong(
    opened: Callable[[str], object], what: str, here: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for method in ("model_info", "dataset_info"):
        monkeypatch.setattr(huggingface_hub.HfApi, method, no_name)
    message = f"'some-base' is no {here} here, and the Hugging Face Hub could not be reached"
    with pytest.raises(UserError, match=message + r" \(\[Errno -2\] Name or service not known\)\.$"):
        opened("some-base")
    (tmp_path / "some-bace").mkdir()
    with pytest.raises(UserError, match=r"could not be reached .* Did you mean 'some-bace'\?"):
        opened("some-base")
    for method in ("model_info", "dataset_info"):
        monkeypatch.setattr(huggingface_hub.HfApi, method, unknown)
    with pytest.raises(UserError, match=rf"{what} .*\(Repository Not Found\)") as error:
        opened("some-base")
    assert "reached" not in str(error.value)


def test_offline_mode_is_out_of_reach() -> None:
    code = "import sys; from spanelectra.data.tokenization import load_tokenizer; load_tokenizer('some-base')"
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert "the Hugging Face Hub could not be reached (Cannot reach" in process.stderr
    assert "offline mode is enabled" in process.stderr


def test_a_missing_path_is_no_matter_of_the_hub() -> None:
    assert out_of_reach("a", FileNotFoundError("there is no directory 'a'")) == ""
    assert out_of_reach("a", TimeoutError()) == (
        "'a' is no directory here, and the Hugging Face Hub could not be reached (TimeoutError)."
    )
