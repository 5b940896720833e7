"""Names that are no local directory: is there such a thing on the Hugging Face Hub, and is the Hub in reach?"""

from __future__ import annotations

import socket
from pathlib import Path

from spanelectra.errors import reason_of

# Classes of errors, by name: which library makes the connection changes with the Hub's client.
_NO_CONNECTION = {"TransportError", "LocalEntryNotFoundError"}


def check_model_name(name: str, file: str) -> None:
    """Raise at once where a model's name is unknown or the Hub out of reach; transformers retries for a minute.

    A local directory and a model of which ``file`` is in the local cache need no Hub.

    Raises:
        FileNotFoundError: where it can only be a path.
        Exception: whatever the Hub's client raises, for the caller to put into words.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(name).is_dir():
        return
    try:
        validate_repo_id(name)
    except HFValidationError:
        # the Hub's rules for names are no help to somebody who gave a path
        raise FileNotFoundError(f"there is no directory '{name}'") from None
    if not isinstance(try_to_load_from_cache(name, file), str):
        HfApi().model_info(name, timeout=10)


def out_of_reach(name: str, error: BaseException, looked_for: str = "directory") -> str:
    """That something is not here, and why the Hub cannot be asked for it; empty where it was asked.

    Args:
        name: what is looked for.
        error: what came of it.
        looked_for: what might have been here.
    """
    seen: BaseException | None = error
    while seen is not None:
        names = {kind.__name__ for kind in type(seen).__mro__}
        if isinstance(seen, ConnectionError | TimeoutError | socket.gaierror) or names & _NO_CONNECTION:
            reason = reason_of(seen).rstrip(".")
            return f"'{name}' is no {looked_for} here, and the Hugging Face Hub could not be reached ({reason})."
        seen = seen.__cause__ or seen.__context__
    return ""
