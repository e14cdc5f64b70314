"""The same story told again is found, in bounded memory and time."""

import random
import time

from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from crypto_rt.news.duplicates import Duplicates, alike, words_of
from tests.news.builders import NOW_MS, named
from tests.repeat import many


def test_duplicates_of_three_kinds_and_what_is_none() -> None:
    memory = Duplicates(72, 0.7)
    told = 'UK man who hacked the accounts of Musk and Obama ordered to repay bitcoin'
    assert [
        memory.find(s)
        for s in (
            named('1', told),
            named('1', 'x'),
            named('2', told.upper() + '!'),
            named('3', told.replace('of ', '')),
        )
    ] == ['', 'id', 'text', 'near']
    assert memory.find(named('4', 'Bitcoin falls below $90,000 as sellers return')) == ''
    assert memory.find(named('5', 'Bitcoin falls below $91,000 as sellers return')) == ''
    assert memory.find(named('6', told, hours=73)) == ''
    assert memory.find(named('1', told, hours=999)) == 'id'


@limits(deadline=None, max_examples=many(60))
@given(st.lists(st.tuples(st.integers(0, 30), st.text('abc ', max_size=30), st.floats(0, 200)), max_size=40))
def test_memory_is_bounded_and_consistent(told: list[tuple[int, str, float]]) -> None:
    memory = Duplicates(72, 0.7)
    for number, title, hours in sorted(told, key=lambda row: row[2]):
        memory.find(named(str(number), title, hours))
        assert len(memory.words) == len(memory.order) >= len(memory.by_key)
        assert all(at >= NOW_MS + int(hours * 3_600_000) - memory.keep_ms for at, _ in memory.order)


@given(st.text(), st.text())
def test_likeness_is_symmetric_and_one_for_the_same(a: str, b: str) -> None:
    assert alike(words_of(a), words_of(b)) == alike(words_of(b), words_of(a))
    assert not words_of(a).key or alike(words_of(a), words_of(a)) == 1


def test_a_hundred_thousand_headlines_in_a_minute() -> None:
    chance = random.Random(7)
    words = [f'word{n}' for n in range(4000)]
    titles = [' '.join(chance.choices(words, k=11)) for _ in range(4500)]
    titles += [f'{title} again' for title in titles[:500]]
    began = time.process_time()
    memory = Duplicates()
    found = [memory.find(named(str(n), title, n / 3600)) for n, title in enumerate(titles)]
    assert found.count('near') == 500 and found.count('') == 4500
    assert (time.process_time() - began) * 20 < 60
