"""How often what is random is tried: as written for `make test`, many times as often for `make test-long`."""

import os

TIMES = int(os.environ.get('CRYPTO_RT_TEST_REPEAT', '1'))


def many(
    n: int,  # how often in `make test`
) -> int:
    "Return how often an example, a seed or a kill is tried in this run."
    return n * TIMES
