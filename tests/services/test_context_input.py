"""The thread that follows the leader and the news ends with the service that asked for it."""

import threading

import pytest

from crypto_rt.core.settings import load_settings
from crypto_rt.services import context_input
from crypto_rt.services.context import ContextJoin, LeaderContext, NewsContext


def test_a_service_that_cannot_follow_its_topics_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(settings, topics, stop, tail):
        followers.append(threading.current_thread())
        stop.wait(30)
        yield from ()

    followers: list[threading.Thread] = []
    monkeypatch.setattr(context_input, 'follow', silent)
    join = ContextJoin(LeaderContext('BTC/USD', lambda *_: []), NewsContext('vader', lambda since_ms: []))
    settings = load_settings('/dev/null', env={})
    with pytest.raises(ConnectionError, match='could not be followed'):
        context_input.follow_context(settings, join, seconds=0.1, pause_seconds=0)
    (follower,) = followers
    follower.join(10)
    assert not follower.is_alive()
