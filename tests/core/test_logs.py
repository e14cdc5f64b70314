"""Each line says when, how bad, which service and which symbol; no file of lines fills the disk."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.core.logs import ServiceLog, log_formatter, stamped

HEAD = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z (INFO|ERROR|-) \S+ \S+ ')
TEXT = st.text(st.characters(exclude_categories=['Cs']))


def record_of(message: str, trace: bool = False) -> logging.LogRecord:
    record = logging.makeLogRecord({'name': 'a.b', 'levelname': 'ERROR', 'msg': '%s', 'args': (message,)})
    if trace:
        try:
            raise ValueError(message)
        except ValueError as error:
            record.exc_info = (ValueError, error, error.__traceback__)
    return record


@given(TEXT, st.booleans())
def test_every_line_of_a_record_has_the_head(message: str, trace: bool) -> None:
    text = log_formatter('text', 'trades').format(record_of(message, trace))
    assert text and all(HEAD.match(line) for line in text.split('\n'))


@given(TEXT, st.booleans())
def test_a_record_is_one_line_of_json_from_which_all_can_be_read(message: str, trace: bool) -> None:
    text = log_formatter('json', 'trades', 'run-1').format(record_of('A/B: ' + message, trace))
    told = json.loads(text)
    assert '\n' not in text and ('traceback' in told) == trace
    assert (told['service'], told['run'], told['level'], told['symbol']) == (
        'trades',
        'run-1',
        'ERROR',
        'A/B',
    )
    assert told['message'] == message.lstrip()


@given(TEXT.filter(lambda text: not text.startswith('{')))
def test_a_line_is_stamped_once(line: str) -> None:
    once = stamped(line, 'kafka', 1_700_000_000_000)
    assert line in once and stamped(once, 'kafka', 1) == once
    told = json.loads(stamped(line, 'kafka', 1_700_000_000_000, form='json')) if once != line else {}
    assert once == line or told == {'time': '2023-11-14T22:13:20Z', 'service': 'kafka', 'message': line}


@pytest.mark.parametrize('files', [1, 3])
def test_files_of_lines_are_bounded_and_lose_the_oldest_only(tmp_path: Path, files: int) -> None:
    log = ServiceLog(tmp_path / 'trades.log', 1000, files)
    for n in range(1000):
        log.write([f'{n:04}', 'half a character \udc80'])
    log.close()
    found = sorted(
        tmp_path.iterdir(), key=lambda file: file.suffix[1:].zfill(3) if file.suffix != '.log' else ''
    )
    assert len(found) == files + 1 and all(file.stat().st_size <= 1000 for file in found)
    numbers = [int(n) for file in reversed(found) for n in re.findall(r'- (\d{4})$', file.read_text(), re.M)]
    assert numbers == list(range(numbers[0], 1000))


def test_a_form_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="must be text or json, was 'xml'"):
        log_formatter('xml', 'trades')
