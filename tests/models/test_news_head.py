"""The head that reads news: trained on labelled headlines, registered, examined on days it has not seen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.models.news_head import current_head, read_labelled, train_news
from crypto_rt.news.encoder import Encoder, shipped_head
from crypto_rt.verify.news import verify_news


def labelled_file(folder: Path, rows: int = 240) -> Path:
    "Write made-up headlines whose labels follow from a word."
    words = {
        1: ('rises to a record', 'wins approval', 'raises funds'),
        -1: ('is hacked', 'goes bankrupt', 'is sued for fraud'),
        0: ('holds a meeting', 'publishes a report', 'opens an office'),
    }
    with (folder / 'labelled.csv').open('w', newline='') as out:
        write = csv.writer(out)
        write.writerow(['date', 'news', 'final_manual_labelling'])
        for i in range(rows):
            label = (-1, 0, 1)[i % 3]
            write.writerow(
                [
                    f'2021-{1 + i // 24:02}-{1 + i % 24:02}',
                    f'Company {i} {words[label][i % 3 - 1]} in week {i // 7}',
                    label,
                ]
            )
    return folder / 'labelled.csv'


def test_train_news_registers_and_replaces_the_shipped_head(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(env={}, data={'directory': str(tmp_path / 'data')})
    file = labelled_file(tmp_path)
    assert current_head(settings)['digest'] == shipped_head()['digest']
    told = train_news(settings, file, until='2021-08-01', promote=True, progress=False)
    head = current_head(settings)
    assert head['digest'] == told['digest'] != shipped_head()['digest'] and Path(told['executed']).is_file()
    found = verify_news(settings, file)
    assert (
        found['ok']
        and found['left_out'] == 168
        and found['n'] == 72
        and found['scorers']['head']['accuracy'] > 0.8
    )


def test_verify_news_on_the_time_split(encoder: Encoder, shared: Path) -> None:
    "The shipped head on the days it has not seen: better than always the commonest label by far."
    found = verify_news(
        Settings(),
        shared / 'data' / 'sentiment' / 'cryptolin_before_2021-10-20.csv',
        find=lambda settings: shipped_head(),
    )
    assert found['left_out'] + found['n'] == 1877 and found['n'] == 380
    assert found['scorers']['head']['accuracy'] > 0.6 > found['scorers']['majority']['accuracy']


def test_labelled_file_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / 'a.csv').write_text('title,label\nx,1\n')
    with pytest.raises(ValueError, match='news, final_manual_labelling'):
        read_labelled(tmp_path / 'a.csv')
