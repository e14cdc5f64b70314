"""The gate: an error rate that holds, a log that forgets nothing, and a verdict that says why."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crypto_rt.forecasts.gate import (
    GateRules,
    Trial,
    TrialLog,
    block_gains,
    decile_faults,
    difference_bound,
    e_process,
    evidence_needed,
    judge_candidate,
)
from crypto_rt.forecasts.scores import crps_of_quantiles
from crypto_rt.verify.gate import (
    siege_error,
    siege_forecast,
    siege_market,
    siege_pairs,
    siege_power,
    siege_trials,
    verify_gate,
)
from tests.repeat import many

A = Trial('BTC/USD 300 300', 'a', 'baseline', from_ms=0, until_ms=1000, data_sha256='0')


def gains_of(seed: int, kind: str, n: int = 70) -> np.ndarray:
    "Return daily gains of someone who is no better."
    rng = np.random.default_rng(seed)
    heavy = 0.01 * rng.standard_t(3, n) * np.exp(0.5 * np.cumsum(rng.normal(0, 0.3, n)) / np.sqrt(n))
    if kind == 'heavy':
        return heavy
    if kind == 'worse':
        return heavy - 0.002
    rare = rng.random(n) < 0.1
    return np.where(rare, -0.03, 0.03 / 9) + 0.002 * rng.normal(size=n)  # wins a little, often; mean nought


@pytest.mark.parametrize('kind', ['heavy', 'worse', 'rare losses'])
def test_evidence_rarely_reaches_its_mark_at_any_time(kind: str) -> None:
    tries = many(1000)
    reached = sum(e_process(gains_of(seed, kind)).max() >= 20 for seed in range(tries))
    assert reached / tries <= 0.05


def test_one_great_day_is_worth_no_more_than_a_good_one() -> None:
    "A stake is below half the money and a gain at most one unit, however far a single day goes."
    for great in (1e-2, 1.0, 1e9):
        evidence = e_process(np.r_[np.full(40, 1e-4), great])
        assert evidence[-1] <= 1.49 * evidence[-2] + 1e-12
    assert e_process(np.r_[np.full(40, 1e-4), -1e9]).min() > 0


def test_looking_once_at_a_usual_level_each_day_would_not_do() -> None:
    "What the e-process is for: a t-test that is looked at every day errs far more often than it says."
    tries, reached = 300, 0
    for seed in range(tries):
        x = gains_of(seed, 'heavy')
        count = np.arange(1, 71)
        mean, square = np.cumsum(x) / count, np.cumsum(x**2) / count
        t = mean[9:] / np.sqrt((square - mean**2)[9:] / count[9:])
        reached += (t > 1.645).any()
    assert reached / tries > 0.12


def test_wealth_is_what_the_bettors_have() -> None:
    "By hand: ten days without a stake, then each bettor's share of a clipped bet."
    gain = np.array([0.01, -0.01] * 5 + [0.005, -0.2, 0.5])
    stakes = [0.49 / 2**k for k in range(5)]
    wealth = [1.0] * 5
    rms = lambda k: np.sqrt(np.mean(gain[:k] ** 2))  # noqa: E731
    for day in (10, 11, 12):
        bet = min(max(gain[day] / (2 * rms(day)), -2.0), 1.0)
        wealth = [w * (1 + share * bet) for w, share in zip(wealth, stakes, strict=True)]
        assert e_process(gain[: day + 1])[-1] == pytest.approx(np.mean(wealth))
    assert e_process(gain)[:10].tolist() == [1.0] * 10
    assert len(e_process(gain[:3])) == 3 and len(e_process(gain[:0])) == 0


def test_scores_differ_by_no_more_than_the_bound_whatever_comes() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.sort(rng.normal(size=(2000, 7)), axis=1) for _ in range(2))
    outcome = rng.standard_t(2, 2000) * 5
    differ = crps_of_quantiles(outcome, first) - crps_of_quantiles(outcome, second)
    bound = difference_bound(first, second)
    assert (np.abs(differ) <= bound + 1e-12).all() and (np.abs(differ) > 0.8 * bound).any()


def test_no_day_knows_anothers_outcome() -> None:
    "An outcome counts in the block in which it became known, or not at all."
    siege = siege_market(3, steps=12)
    pairs = siege_pairs(
        siege, siege_forecast(siege, siege_error(siege, 0.3)), siege_forecast(siege, siege_error(siege, 0.3))
    )
    found = block_gains(pairs, 3600, 300)
    assert len(found.gain) == 70 and found.rows == 70 * (288 - 12)
    assert np.abs(found.gain).max() <= 1
    changed = pairs.copy()
    late = changed.start_ms % 86_400_000 + 3_900_000 > 86_400_000
    changed.loc[late, 'realised_log_return'] = 1.0
    assert (block_gains(changed, 3600, 300).gain == found.gain).all()


def test_the_budget_is_alpha_for_ever() -> None:
    spent = np.array([1 / evidence_needed(k, 0.05) for k in range(1, 5000)])
    assert spent.sum() < 0.05 and spent.sum() > 0.0499 and (np.diff(spent) < 0).all()
    with pytest.raises(ValueError, match='expected a trial >= 1 and alpha in'):
        evidence_needed(0, 0.05)


def test_trials_are_counted_by_data_and_not_by_looks(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / 'log' / 'trials.jsonl')
    assert log.lines() == []
    assert log.number(A, 1) == 1
    assert log.number(A._replace(until_ms=5000), 2) == 1, 'looked at again, with more data'
    assert log.number(A._replace(candidate='b', until_ms=5000), 3) == 2
    assert log.number(A._replace(champion='b'), 4) == 3, 'against another champion'
    assert log.number(A._replace(from_ms=10), 5) == 4, 'another first row may have been chosen'
    assert log.number(A._replace(candidate='c', from_ms=5000, until_ms=6000), 6) == 1, 'data nobody saw'
    assert log.number(A._replace(candidate='c', stream='ETH/USD 300 300'), 7) == 1
    assert log.number(A._replace(candidate='d', from_ms=900, until_ms=6000), 8) == 5


def test_a_torn_last_line_is_left_out_and_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / 'trials.jsonl'
    log = TrialLog(file)
    log.number(A, 1)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"kind": "trial", "numb')
    assert [line['number'] for line in log.lines()] == [1]
    assert log.number(A._replace(candidate='b'), 2) == 2
    assert file.read_bytes().startswith(whole + b'{"kind": "trial", "numb\n')
    assert [line['number'] for line in log.lines()] == [1, 2]


SPENDER = """
import sys
from crypto_rt.forecasts.gate import Trial, TrialLog
log, n = TrialLog(sys.argv[1]), 0
while True:
    trial = Trial('s', f'{sys.argv[2]}-{n}', 'baseline', from_ms=0, until_ms=1, data_sha256='0')
    print(log.number(trial, n), flush=True)
    n += 1
"""


def test_a_spent_trial_outlives_its_process(tmp_path: Path) -> None:
    "Kill -9 at any moment: every number that was given away is on disk, and none is given twice."
    file, given = tmp_path / 'trials.jsonl', []
    rng = np.random.default_rng(1)
    for life in range(many(4)):
        with subprocess.Popen(
            [sys.executable, '-c', SPENDER, str(file), str(life)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.2)))
            os.kill(process.pid, signal.SIGKILL)
            given += [int(line) for line in [first, *process.stdout] if line.endswith('\n')]
    noted = [line['number'] for line in TrialLog(file).lines()]
    assert len(given) > 4 and len(set(given)) == len(given)
    assert noted == list(range(1, len(noted) + 1)) and set(given) <= set(noted)


def _spend(file: str, who: int) -> None:
    log = TrialLog(file)
    for n in range(20):
        log.number(A._replace(candidate=f'{who}-{n}'), 0)


def test_two_who_ask_at_once_get_different_numbers(tmp_path: Path) -> None:
    context = multiprocessing.get_context('spawn')
    file = str(tmp_path / 'trials.jsonl')
    both = [context.Process(target=_spend, args=(file, who)) for who in (1, 2)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [line['number'] for line in TrialLog(file).lines()] == list(range(1, 41))


def pairs_for(seed: int, error: float, champion_error: float = 0.35):
    siege = siege_market(seed)
    champion, candidate = (
        siege_forecast(siege, siege_error(siege, size)) for size in (champion_error, error)
    )
    return siege_pairs(siege, candidate, champion)


NAMES = ('BTC/USD 300 300', 'candidate', 'baseline')


def test_a_better_one_is_promoted_and_its_copy_is_not(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / 'trials.jsonl')
    better = judge_candidate(pairs_for(1, 0.02), log, NAMES)
    assert better.promoted and better.reasons == () and better.evidence >= better.needed == 40
    assert better.crps_bp < better.champion_crps_bp and better.sentence.startswith('Promoted.')
    copy = pairs_for(1, 0.02)
    for name in [column for column in copy if column.startswith('q')]:
        copy[name] = copy[f'champion_{name}']
    same = judge_candidate(copy, log, ('BTC/USD 300 300', 'copy', 'baseline'))
    assert not same.promoted and 'not better' in same.reasons and same.evidence == 1.0 and same.trial == 2
    kinds = [
        (line['kind'], line['number'] if line['kind'] == 'trial' else line['promoted'])
        for line in log.lines()
    ]
    assert kinds == [('trial', 1), ('verdict', True), ('trial', 2), ('verdict', False)]


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        ({'broken_contracts': ['candles.complete']}, 'contract candles.complete did not hold'),
        ({'latency_seconds': 0.2}, 'takes 200.0 ms, allowed are 50.0 ms'),
    ],
)
def test_better_is_not_enough(tmp_path: Path, given: dict, reason: str) -> None:
    verdict = judge_candidate(pairs_for(1, 0.02), TrialLog(tmp_path / 't.jsonl'), NAMES, **given)
    assert not verdict.promoted and verdict.reasons == (reason,) and reason in verdict.sentence


def test_intervals_that_fail_in_wild_hours_keep_the_champion(tmp_path: Path) -> None:
    pairs = pairs_for(1, 0.02)
    wild = pairs.volatility > pairs.volatility.quantile(0.9)
    for name in ('q05', 'q10', 'q25', 'q75', 'q90', 'q95'):
        pairs.loc[wild, name] *= 0.8
    faults, least, _ = decile_faults(pairs.assign(volatility=pairs.volatility), 1)
    assert len(faults) == 1 and 'volatility decile 10' in faults[0] and least < 0.87
    verdict = judge_candidate(pairs, TrialLog(tmp_path / 't.jsonl'), NAMES)
    assert not verdict.promoted and any('decile 10' in reason for reason in verdict.reasons)


def test_a_trial_is_spent_before_the_scores_are_looked_at(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / 't.jsonl')
    broken = pairs_for(1, 0.02).drop(columns='q95')
    with pytest.raises(KeyError):
        judge_candidate(broken, log, NAMES)
    assert [line['kind'] for line in log.lines()] == ['trial']
    with pytest.raises(ValueError, match='expected rows in order of time'):
        judge_candidate(pairs_for(1, 0.02)[::-1], log, NAMES)


def test_the_verdict_in_the_log_is_json_with_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / 't.jsonl'
    verdict = judge_candidate(pairs_for(2, 0.35), TrialLog(file), NAMES, at_ms=5)
    last = json.loads(file.read_text().splitlines()[-1])
    assert (
        last['sentence'] == verdict.sentence and last['evidence'] == verdict.evidence and last['at_ms'] == 5
    )


@pytest.mark.parametrize('memory', [0.9, 0.97, 0.99])
def test_the_siege(tmp_path: Path, memory: float) -> None:
    "Three trials and six looks on each market: any promotion counts."
    tries = many(20)
    fell = 0
    for seed in range(tries):
        fell += any(siege_trials(5000 + seed, TrialLog(tmp_path / f'{seed}.jsonl'), GateRules(), memory))
    assert fell <= 0.05 * tries + 2 * np.sqrt(0.05 * 0.95 * tries)


def test_the_gate_opens() -> None:
    share, gain = siege_power(2, many(10), GateRules())
    assert share > 0.7 and 1.5 < gain < 2.5


def test_the_commands_figures_fail_when_the_gate_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = verify_gate(4, power_markets=0)
    assert figures['ok'] and figures['candidates'] == 4 and figures['trials'] == 12
    monkeypatch.setattr('crypto_rt.forecasts.gate.evidence_needed', lambda trial, alpha: 0.0)
    assert not verify_gate(8, power_markets=0)['ok']
