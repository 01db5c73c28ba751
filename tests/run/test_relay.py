"""Calls that are made on another thread than the one that asks, and a piece of work that can be left."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hpsearch.run.relay import Relay


def always() -> bool:
    return True


def test_calls_of_the_work_are_made_by_the_thread_that_serves() -> None:
    relay, seen = Relay(), []

    def work() -> None:
        seen.append(threading.current_thread())
        seen.append(relay.ask(threading.current_thread, None))

    assert relay.serve(work, always)
    assert seen[0] is not threading.main_thread()
    assert seen[1] is threading.main_thread()


def test_whoever_serves_asks_nobody() -> None:
    assert Relay().ask(lambda: 7, None) == 7


def test_what_the_work_raises_is_raised_where_it_was_served() -> None:
    def work() -> None:
        raise LookupError("by the work")

    with pytest.raises(LookupError, match="by the work"):
        Relay().serve(work, always)


def test_work_that_does_not_end_is_left_and_its_later_calls_are_not_made() -> None:
    relay, made, answers = Relay(), [], []
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(30)
        answers.append(relay.ask(lambda: made.append(1), "otherwise"))
        done.set()

    assert not relay.serve(work, lambda: False)
    go.set()
    assert done.wait(30)
    assert (made, answers) == ([], ["otherwise"])


def test_a_look_that_raises_leaves_the_work_and_frees_whoever_waits() -> None:
    relay, answers = Relay(), []
    done, asked = threading.Event(), threading.Event()

    def work() -> None:
        asked.set()
        done.wait(30)
        answers.append(relay.ask(lambda: "made", "otherwise"))

    def look() -> bool:
        assert asked.wait(30)
        raise InterruptedError("it died")

    with pytest.raises(InterruptedError, match="it died"):
        relay.serve(work, look)
    done.set()
    assert relay._worker
    relay._worker.join(30)
    assert answers == ["otherwise"]


def test_calls_that_wait_when_the_server_leaves_get_their_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay()
    answers: list[str] = []
    looking, leave = threading.Event(), threading.Event()

    def work() -> None:
        looking.wait(30)
        answers.append(relay.ask(lambda: "made", "otherwise"))

    def look() -> bool:
        looking.set()
        # The call is put while nobody takes any.
        while relay._calls.empty():
            leave.wait(0.01)
        return False

    assert not relay.serve(work, look)
    assert relay._worker
    relay._worker.join(30)
    assert answers == ["otherwise"]


def test_errors_of_calls_are_those_of_the_server() -> None:
    relay, ended = Relay(), threading.Event()

    def work() -> None:
        relay.ask(fail, None)
        ended.set()

    def fail() -> Callable[[], None]:
        raise KeyError("in the call")

    with pytest.raises(KeyError, match="in the call"):
        relay.serve(work, always)
    assert ended.wait(30)
