"""What the last comparison with the exchange's own candles found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COUNTS = ('compared', 'exact', 'explained', 'unexplained')


def no_comparison(error: str = '') -> dict[str, Any]:
    """Return what there is to say before the first comparison, or when its result cannot be read."""
    return {**dict.fromkeys(COUNTS, 0), 'at_ms': None, 'error': error}


class LastComparison:
    """Reads `reconciliation.json`, which the service `reconcile` writes, again whenever it has changed."""

    def __init__(self, directory: str) -> None:
        self.file = Path(directory) / 'reconciliation.json'
        self.read_ns = 0  # modification time of the file when it was last read
        self.found = no_comparison()

    def read(self) -> dict[str, Any]:
        """Return the counts; `compared` is 0 before the first comparison, `error` why the last try failed."""
        try:
            changed_ns = self.file.stat().st_mtime_ns
            if changed_ns != self.read_ns:
                self.found, self.read_ns = self._parse(), changed_ns
        except FileNotFoundError:
            self.found, self.read_ns = no_comparison(), 0
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self.found = no_comparison(f'{self.file.name} cannot be read: {error}')
        return self.found

    def _parse(self) -> dict[str, Any]:
        body = json.loads(self.file.read_bytes())
        counts = {name: int(body.get(name, 0)) for name in COUNTS}
        return {**counts, 'at_ms': body.get('at_ms'), 'error': str(body.get('error', ''))}
