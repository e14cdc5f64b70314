"""An authority of the double's own, made anew at each start: a server certificate for localhost and one for the client."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DOMAIN = 'double.invalid'


class Pem(NamedTuple):
    "A certificate and its key."

    certificate: bytes
    key: bytes


class Certificates(NamedTuple):
    "What the double needs to speak TLS with both sides verified."

    authority: bytes
    server: Pem
    client: Pem

    def write(self, folder: Path) -> dict[str, Path]:
        "Write what a TLS socket wants as files."
        files = {'ca': self.authority, 'server': self.server.certificate, 'server_key': self.server.key}
        paths = {name: folder / f'{name}.pem' for name in files}
        for name, path in paths.items():
            path.write_bytes(files[name])
            path.chmod(0o600)
        return paths


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_certificates() -> Certificates:
    "Return an authority, and a server's and a client's certificate that it signed."
    now = datetime.datetime.now(datetime.UTC)
    root = ec.generate_private_key(ec.SECP256R1())

    def signed(
        subject: str, key: ec.EllipticCurvePrivateKey, authority: bool, hosts: tuple[str, ...] = ()
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name('hopsworks double'))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if hosts:
            names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*names, x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]),
                critical=False,
            )
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority = signed('hopsworks double', root, True)
    pairs = []
    for subject, hosts in (
        ('server', ('localhost', f'flyingduck.service.{DOMAIN}')),
        ('crypto_rt__double', ()),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        pairs.append(Pem(signed(subject, key, False, hosts), _pem(key)))
    return Certificates(authority, *pairs)
