"""Either signal ends the block at once, and handlers are put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from spanelectra.callbacks import RunStopped
from spanelectra.interruption import stopped_by_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_block(number: signal.Signals, code: int) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    reached = []
    with pytest.raises(RunStopped, match=f"stopped by {number.name}") as stopped, stopped_by_signals():
        reached.append("before")
        os.kill(os.getpid(), number)
        reached.append("after")
    assert stopped.value.exit_code == code and reached == ["before"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_passes_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="of its own"), stopped_by_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise ValueError("of its own")
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_works_in_a_thread_that_may_not_handle_signals() -> None:
    found: list[str] = []

    def work() -> None:
        with stopped_by_signals():
            found.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done"]
