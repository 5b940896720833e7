"""Names that are no local directory: is there such a thing on the Hugging Face Hub, and is the Hub in reach?"""

from __future__ import annotations

from pathlib import Path


def check_model_name(name: str, file: str) -> None:
    """Raise at once where a model's name is unknown or the Hub out of reach; transformers retries for a minute.

    A local directory and a model of which ``file`` is in the local cache need no Hub.

    Raises:
        Exception: whatever the Hub's client raises, for the caller to put into words.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    if not Path(name).is_dir() and not isinstance(try_to_load_from_cache(name, file), str):
        HfApi().model_info(name, timeout=10)
