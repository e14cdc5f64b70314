"""What lies under `/crt`: our own files, and the chart library out of the installed package."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
from pathlib import Path

from fastapi import APIRouter, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter()
STATIC = Path(__file__).with_name('static')
CHART_LIBRARY = ('lwcharts', 'lightweight-charts.standalone.production.js')  # package and file
CHART_SHA256 = 'c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7'  # of 5.2.0, Apache-2.0
FOR_EVER = 'max-age=31536000, immutable'


@router.get('/crt/lightweight-charts.js', include_in_schema=False)
def chart_script() -> Response:
    """Return TradingView's lightweight-charts."""
    return Response(chart_library(), media_type='text/javascript', headers={'Cache-Control': 'max-age=86400'})


@functools.cache
def chart_library() -> bytes:
    """Return lightweight-charts' JavaScript, out of the installed package and unchanged.

    Raises:
        RuntimeError: When the package is not there, or its file is not the one that was checked.
    """
    package, name = CHART_LIBRARY
    files = importlib.metadata.files(package) or ()
    found = next((Path(str(file.locate())) for file in files if file.name == name), None)
    if found is None:
        raise RuntimeError(f'{name} is not in the package {package}; install what requirements.lock names')
    body = found.read_bytes()
    if (digest := hashlib.sha256(body).hexdigest()) != CHART_SHA256:
        raise RuntimeError(
            f'{package}/{name}: expected SHA-256 {CHART_SHA256}, was {digest}; '
            'install what requirements.lock names'
        )
    return body


def version() -> str:
    """Return eight characters that change with any of our files."""
    files = sorted(file for file in STATIC.rglob('*') if file.is_file())
    return hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()[:8]


class VersionedFiles(StaticFiles):
    """Our files, each at `/crt/<version>/<path>` too, where a browser may keep it for ever.

    A page names the present version once, and what its scripts import by relative addresses comes with it:
    all modules are of one version, and none is asked for again. At any other address a browser has to ask
    each time whether a file has changed.
    """

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        self.version = version()

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file by its path, with or without a version before it."""
        return super().lookup_path(re.sub(r'^[0-9a-f]{8}[/\\]', '', path))

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, and how long a browser may keep it."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        is_present = scope['path'].startswith(f'/crt/{self.version}/')
        answer.headers['Cache-Control'] = FOR_EVER if is_present else 'no-cache'
        if str(full_path).endswith('.js'):  # what this machine says of the ending may be another type
            answer.headers['Content-Type'] = 'text/javascript; charset=utf-8'
        return answer
