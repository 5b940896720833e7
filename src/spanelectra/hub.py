"""Names that are no local directory: is there such a thing on the Hugging Face Hub, and is the Hub in reach?"""

from __future__ import annotations

from pathlib import Path


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
