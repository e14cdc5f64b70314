"""The query service: four Arrow Flight calls over TLS that verifies the client's certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.flight as flight

from .certificates import Certificates
from .cluster import Cluster


class _Headers(flight.ServerMiddleware):
    def __init__(self, headers: Mapping[str, list[str]]):
        self.headers = headers


class _HeadersFactory(flight.ServerMiddlewareFactory):
    def start_call(self, info: Any, headers: Mapping[str, list[str]]) -> _Headers:
        return _Headers(headers)


class QueryService(flight.FlightServerBase):
    "Answers what the cluster has signed, and nothing else."

    def __init__(self, cluster: Cluster, certificates: Certificates, port: int):
        super().__init__(
            f'grpc+tls://127.0.0.1:{port}',
            tls_certificates=[(certificates.server.certificate, certificates.server.key)],
            verify_client=True,
            root_certificates=certificates.authority,
            middleware={'headers': _HeadersFactory()},
        )
        self.cluster = cluster
        self.fail_next = 0  # so many reads end with an error

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        return [('healthcheck', ''), ('get-version', '')]

    def do_action(self, context: Any, action: flight.Action) -> list[bytes]:
        if action.type not in ('healthcheck', 'get-version'):
            self.cluster.unknown.append(f'Flight action {action.type}')
            raise flight.FlightServerError(f'unknown action {action.type}')
        return [b'double 5.2'] if action.type == 'get-version' else []

    def get_flight_info(self, context: Any, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        table = self._answer(descriptor.command.decode())
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(table.schema, descriptor, [endpoint], table.num_rows, -1)

    def do_get(self, context: Any, ticket: flight.Ticket) -> flight.RecordBatchStream:
        payload = ticket.ticket.decode()
        signature = context.get_middleware('headers').headers.get('hopsworks-signature', [''])[0]
        if signature != self.cluster.sign(payload):
            raise flight.FlightUnauthorizedError('the payload is not signed by this cluster')
        if self.fail_next:
            self.fail_next -= 1
            raise flight.FlightServerError('the double was asked to fail')
        return flight.RecordBatchStream(self._answer(payload))

    def _answer(self, payload: str) -> Any:
        with self.cluster.lock:
            try:
                return self.cluster.read(payload)
            except LookupError as error:
                raise flight.FlightServerError(str(error)) from None
