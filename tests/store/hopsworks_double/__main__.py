"""Start the double for a shell: `python -m tests.store.hopsworks_double [--broker host:port]` prints what to export, then serves until it is stopped."""

from __future__ import annotations

import argparse
import shlex
import signal
import tempfile
import threading
from pathlib import Path

from . import Double

parser = argparse.ArgumentParser(prog='python -m tests.store.hopsworks_double', description=__doc__)
parser.add_argument('--broker', help='host:port of a Kafka; without it one is started')
parser.add_argument('--write', type=Path, metavar='F', help='also write the lines to a file, for `source F`')
arguments = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    broker = None
    if not arguments.broker:
        from crypto_rt.bus.broker import start_broker
        from crypto_rt.bus.topics import wait_for_broker
        from crypto_rt.core.settings import load_settings

        broker = start_broker(Path(folder) / 'kafka')
        wait_for_broker(load_settings(kafka={'broker': broker.address}), 60)
    double = Double(arguments.broker or broker.address, Path(folder))
    lines = '\n'.join(f'export {name}={shlex.quote(value)}' for name, value in double.environment.items())
    print(lines, flush=True)
    if arguments.write:
        arguments.write.touch(mode=0o600)
        arguments.write.write_text(lines + '\n')
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    double.close()
    if broker:
        broker.stop()
