"""What a browser sees of the dashboard."""

import contextlib
import time

import pytest
from msgspec.structs import replace
from playwright.sync_api import Error

from apps.recent import decode_message
from crypto_rt.core.messages import encode
from tests.apps.builders import START, candle, forming, indicators, prediction, signal, story
from tests.apps.doubles import Server

PAST = [candle(i, close=f'{105_400 + 40 * ((i * 7) % 11)}') for i in range(-120, 0)]


@pytest.fixture
def server(tmp_path):
    servers = []

    def start(**options):
        servers.append(Server(tmp_path, **{'past': PAST, **options}))
        return servers[-1]

    yield start
    for one in servers:
        if one.thread.is_alive():
            one.stop()
        assert one.errors == [], 'a script of ours broke'


OF_THE_NETWORK = ('WebSocket connection to', 'Failed to load resource: net::ERR_CONNECTION')


def listen(page, server):
    "Note what scripts run into, and what the browser complains of, such as a breach of the page's policy."
    page.on('pageerror', lambda error: server.errors.append(str(error)))
    page.on(
        'console',
        lambda line: (
            server.errors.append(line.text)
            if line.type == 'error' and not line.text.startswith(OF_THE_NETWORK)
            else None
        ),
    )


def opened(browser, server, **options):
    page = browser.new_context(
        **{'viewport': {'width': 1280, 'height': 800}, 'color_scheme': 'light', **options}
    ).new_page()
    page.asked = []
    listen(page, server)
    page.on('request', lambda request: page.asked.append(request.url))
    page.on('websocket', lambda socket: page.asked.append(socket.url.replace('ws:', 'http:')))
    page.goto(server.address)
    wait(page, 'window.__cryptoRt && window.__cryptoRt.ready && window.__cryptoRt.bars > 0', timeout=30_000)
    return page


def wait(page, expression, timeout=30_000):
    "Wait until an expression holds; playwright's own way evaluates text in the page, which our policy forbids."
    deadline = time.monotonic() + timeout / 1000
    while True:
        with contextlib.suppress(Error):  # the page has just been loaded again
            if page.evaluate(f'Boolean({expression})'):
                return
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def state(page, name):
    return page.evaluate(f'window.__cryptoRt.{name}')


def test_the_chart_moves_and_nothing_is_asked_of_anyone_else(browser, server):
    here = server()
    page = opened(browser, here)
    page.wait_for_selector('.crt-tables', timeout=90_000)  # the page loads itself again when Gradio is there
    wait(page, 'window.__cryptoRt && window.__cryptoRt.ready')
    assert state(page, 'bars') == len(PAST) and state(page, 'symbol') == 'BTC/USD'
    page.wait_for_timeout(500)
    before = page.locator('#crt-chart').screenshot()
    here.feed.send(forming(0, close='106200'))
    wait(page, 'window.__cryptoRt.lastBar.close === "106200"')
    page.wait_for_timeout(300)
    after = page.locator('#crt-chart').screenshot()
    assert before != after, 'a forming candle moves the chart'
    here.feed.send(candle(0, close='106100'), prediction(0), forming(1, close='106000'))
    wait(page, 'window.__cryptoRt.prediction !== null && window.__cryptoRt.lastBar.close === "106000"')
    page.wait_for_timeout(300)
    assert page.locator('#crt-chart').screenshot() != after
    assert state(page, 'bars') == len(PAST) + 2
    assert page.locator('#crt-expected').inner_text() == '105,433.6' and page.locator(
        '#crt-status'
    ).inner_text().startswith('baseline')
    assert (
        page.locator('#crt-source').inner_text() == 'Live'
        and page.locator('#crt-model').inner_text() == 'Baseline model'
    )
    outside = [url for url in page.asked if not url.startswith((here.address, 'data:', 'blob:'))]
    assert not outside and any('/v1/stream' in url for url in page.asked)


def test_the_page_tells_late_partial_empty_and_missing_candles(browser, server):
    marked = [c for c in PAST if c.start_ms != START - 5 * 60_000]
    page_of = server(gradio=False, past=marked)
    page_of.feed.send(
        candle(-1, close='105500', revision=1),
        candle(0, is_partial=True),
        candle(1, is_empty=True, trade_count=0, volume='0'),
    )
    page = opened(browser, page_of)
    wait(page, 'window.__cryptoRt.bars === 121')
    page.wait_for_timeout(300)
    told = dict(
        zip(
            page.locator('#crt-counts dt').all_inner_texts(),
            page.locator('#crt-counts dd').all_inner_texts(),
            strict=True,
        )
    )
    assert (told['Missing candles'], told['Partial'], told['Empty'], told['Revised']) == ('1', '1', '1', '1')


def test_an_abstention_is_no_forecast(browser, server):
    here = server(gradio=False)
    page = opened(browser, here)
    here.feed.send(candle(0), prediction(0, status='abstain'))
    wait(page, 'window.__cryptoRt.prediction !== null')
    assert (
        page.locator('#crt-expected').inner_text() == 'No forecast'
        and page.locator('#crt-notes').inner_text() == 'stale input'
    )
    assert page.locator('#crt-range').is_hidden()


def test_another_symbol_is_one_click_away_and_the_theme_too(browser, server):
    eth = [candle(i, 'ETH/USD', close='3500.25') for i in range(-30, 0)]
    page = opened(browser, server(gradio=False, past=[*PAST, *eth]), color_scheme='dark')
    assert page.locator('#crt-decay').is_hidden(), 'without news there is no signal of them'
    assert page.evaluate('document.documentElement.dataset.crtTheme') == 'dark'
    page.click('#crt-theme')
    assert page.evaluate('document.documentElement.dataset.crtTheme') == 'light'
    page.click('text=ETH/USD')
    wait(page, 'window.__cryptoRt.symbol === "ETH/USD" && window.__cryptoRt.ready')
    assert state(page, 'bars') == 30 and page.locator('#crt-last').inner_text() == '3,500.25'


def test_an_answer_about_another_symbol_comes_too_late(browser, server):
    eth = [candle(i, 'ETH/USD', close='3500.25') for i in range(-30, 0)]
    here, held = server(gradio=False, past=[*PAST, *eth]), []
    page = browser.new_page()
    listen(page, here)
    page.route('**/v1/candles?symbol=BTC*', lambda route: held.append(route))
    page.goto(here.address)
    page.wait_for_selector('#crt-symbols button')
    page.click('text=ETH/USD')
    wait(page, 'window.__cryptoRt.symbol === "ETH/USD" && window.__cryptoRt.ready')
    assert held, 'the candles of the first symbol were asked for'
    with page.expect_response('**/v1/candles?symbol=BTC*'):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert state(page, 'bars') == 30 and page.locator('#crt-last').inner_text() == '3,500.25'


def test_numbers_and_strangers_words_are_written_the_same_everywhere(browser, server):
    here = server(gradio=False)
    page = browser.new_page()
    page.goto(f'{here.address}docs')
    told = page.evaluate("""async () => {
        const { amount, clock, duration, money, plainText, signed } = await import('/crt/format.js');
        return [
            amount('0'), amount('0.0001234567'), amount('12.34567'), amount('12345.6'),
            clock(1762795380000), clock(1762795380000, false),
            duration(7200), duration(300), duration(45),
            money(null, 2), money(NaN, 2), money(105433.6, 1),
            signed(1.25, 1, 'bp'), signed(-1, 2, '%'), signed(0, 1, 'bp'),
            plainText(' a\u202e\u0000b  c ', 5),
        ];
    }""")
    assert told[:4] == ['0', '0.0001235', '12.346', '12,346']
    assert told[4:9] == ['17:23:00', '17:23', '2 h', '5 min', '45 s']
    assert told[9:12] == ['–', '–', '105,433.6']
    assert told[12:] == ['+1.3 bp', '−1.00 %', '±0.0 bp', 'a b c']


def test_a_phone_needs_no_sideways_scrolling(browser, server):
    page = opened(browser, server(gradio=False), viewport={'width': 360, 'height': 740})
    assert page.evaluate('document.documentElement.scrollWidth') <= 360


@pytest.mark.parametrize('width', [360, 390, 430, 520])
def test_the_head_of_the_page_has_one_line_of_buttons(browser, server, width):
    page = opened(browser, server(gradio=False), viewport={'width': width, 'height': 740})
    boxes = [page.locator(f'#crt-{name}').bounding_box() for name in ('symbols', 'theme')]
    middles = [box['y'] + box['height'] / 2 for box in boxes]
    assert abs(middles[0] - middles[1]) < 8


def test_after_a_restart_the_page_comes_back_by_itself(browser, server):
    first = server(gradio=False)
    page = opened(browser, first)
    assert first.stop() < 3, 'open websockets do not delay the end'
    wait(page, 'window.__cryptoRt.connection === "reconnecting"')
    second = server(gradio=False, port=first.port, past=[*PAST, candle(0)])
    assert second.port == first.port
    wait(
        page,
        f'window.__cryptoRt.connection === "connected" && window.__cryptoRt.bars === {len(PAST) + 1}',
        timeout=20_000,
    )
    second.feed.send(candle(1))
    wait(page, f'window.__cryptoRt.bars === {len(PAST) + 2}')
    assert state(page, 'gaps') == 1, 'another epoch: what the page had cannot simply go on'


def test_a_dropped_connection_resumes_without_loss(browser, server):
    here = server(gradio=False)
    page = opened(browser, here)
    page.evaluate('window.__cryptoRt.drop()')
    wait(page, 'window.__cryptoRt.connection === "reconnecting"')
    here.feed.send(candle(0), candle(1))
    wait(
        page,
        f'window.__cryptoRt.connection === "connected" && window.__cryptoRt.bars === {len(PAST) + 2}',
        timeout=20_000,
    )
    assert state(page, 'gaps') == 0 and state(page, 'reconnects') == 1


HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> "quoted" \u202etxt.exe\u2066'


def test_news_are_shown_as_text_whatever_they_say(browser, server):
    here = server(gradio=False)
    here.feed.send(
        story(-3, HOSTILE, source='<b>x</b>', flags=['<i>odd</i>']),
        signal(-3, -0.4),
        story(-2, 'Plain', url='javascript:alert(1)'),
        story(-1, 'Linked', url='https://news.example/a?"onmouseover=alert(1)'),
    )
    page = opened(browser, here)
    wait(page, 'window.__cryptoRt.stories === 3')
    assert (
        page.evaluate('window.hacked') is None
        and page.locator('#crt-news img, #crt-news script, #crt-news b:has(*), #crt-news i').count() == 0
    )
    shown = page.locator('.crt-story').all_inner_texts()
    assert (
        '<script>window.hacked=1</script> "quoted" txt.exe' in shown[2]
        and '\u202e' not in shown[2]
        and '<i>odd</i>' in shown[2]
        and 'head −0.40' in shown[2]
    )
    links = page.locator('#crt-news a')
    assert (
        links.count() == 2
        and links.first.get_attribute('rel').startswith('noopener')
        and 'Plain' not in links.all_inner_texts()
    )
    assert (
        page.locator('#crt-decay').is_visible()
        and page.evaluate('document.querySelectorAll("#crt-chart canvas").length') > 6
    ), 'a pane of its own'
    here.feed.send(story(0, 'Fresh'))
    wait(page, 'window.__cryptoRt.stories === 4')
    assert page.locator('.crt-story').first.inner_text().startswith('Fresh') and not [
        url for url in page.asked if 'news.example' in url
    ]


def test_the_features_page_on_a_phone(browser, server):
    from crypto_rt.features.table import TABLE

    here = server(gradio=False)
    here.feed.send(replace(indicators(0), values={**dict.fromkeys(TABLE.names, 0.5), 'rsi_14': 61.25}))
    page = opened(browser, here, viewport={'width': 360, 'height': 740})
    page.click('text=Features')
    wait(page, 'window.__cryptoRtFeatures > 40')
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    page.fill('#crt-find', 'rsi_14')
    assert page.locator('.crt-feature').count() == 1 and '61.25' in page.locator('.crt-feature').inner_text()


def test_a_reason_is_told_once_and_the_comparison_stands_out(browser, server, tmp_path):
    (tmp_path / 'reconciliation.json').write_text(
        '{"compared":6,"exact":3,"explained":1,"unexplained":2,"at_ms":1762795380000}'
    )
    here = server(gradio=False)
    page = opened(browser, here)
    here.feed.send(
        replace(
            prediction(0, status='abstain'),
            reasons=['partial or unproven candle: trades may be missing in it'],
            flags=['partial_candle', 'warming_up'],
        )
    )
    wait(page, 'window.__cryptoRt.prediction !== null')
    assert page.locator('#crt-notes span').all_inner_texts() == [
        'partial or unproven candle: trades may be missing in it',
        'warming up',
    ]
    told = page.locator('#crt-counts dd.bad')
    assert told.inner_text() == '2 of 6 unexplained'


def test_a_page_that_came_too_early_shows_the_candles_by_itself(browser, server):
    here = server(gradio=False, past=[])
    page = browser.new_page()
    page.goto(here.address)
    wait(page, 'window.__cryptoRt && window.__cryptoRt.ready')
    here.app.state.context.hub.receive(
        [decode_message('candles', encode(c)) for c in PAST[-5:]], publish=False
    )
    wait(page, 'window.__cryptoRt.bars === 5', timeout=8000)
    assert page.locator('#crt-empty').is_hidden()
