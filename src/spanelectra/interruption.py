"""Ctrl-C and SIGTERM where nothing waits for the end of a step: what is done ends at once, and says how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from spanelectra.callbacks import RunStopped


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within this block SIGTERM ends what is done as Ctrl-C does.

    A seed of fine-tuning keeps nothing before it is finished, and rows with fakes are kept as they are written;
    directories appear whole or not at all.

    Raises:
        RunStopped: in place of the ``KeyboardInterrupt`` that either signal raises.
    """
    received: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # Python lets no other thread handle signals
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if in_main_thread else ()
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise RunStopped(received[-1] if received else signal.SIGINT) from interrupt
    finally:
        for number, handler in previous.items():
            # None: it was not Python that set it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
