"""The tables below the live page."""

from apps import tables
from apps.hub import Hub
from apps.recent import decode_message
from crypto_rt.core.messages import encode
from crypto_rt.core.settings import load_settings
from tests.apps.builders import candle, prediction


def test_tables_show_text_as_text():
    hub = Hub(load_settings('/dev/null', {}), 'live')
    assert 'No prediction yet' in tables.predictions_table(hub) and 'No final candle' in tables.candles_table(
        hub
    )
    odd = prediction(0)
    hub.receive(
        [
            decode_message('predictions', encode(odd).replace(b'baseline-1', b'<b>1</b>')),
            decode_message('candles', encode(candle(0, is_partial=True, revision=2))),
        ]
    )
    shown = tables.predictions_table(hub)
    assert '&lt;b&gt;1&lt;/b&gt;' in shown and '105,433.60' in shown and '+0.0' in shown
    assert 'partial, revision 2' in tables.candles_table(hub)
