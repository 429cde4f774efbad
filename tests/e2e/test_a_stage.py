# SPDX-License-Identifier: Apache-2.0
"""The stage itself: what the other tests take for granted."""

import errno
import socket
import time

import pytest

from harness import (NO_ROUTE4, PROHIBITED4, SILENT4, SLOW4, SLOW_SECONDS,
                     UNREACHABLE4, WORLD4, WORLD6)
from servers import Peer, closed_port, echo


def test_slow_address_answers_after_300_ms(world):
    with Peer(echo) as peer:
        start = time.monotonic()
        with socket.create_connection((SLOW4, peer.port), 10) as sock:
            assert SLOW_SECONDS <= time.monotonic() - start < 0.6
            sock.sendall(b"ping")
            assert sock.recv(4) == b"ping"


@pytest.mark.parametrize("host, error", [
    (WORLD4, errno.ECONNREFUSED), (WORLD6, errno.ECONNREFUSED),
    (UNREACHABLE4, errno.EHOSTUNREACH), (NO_ROUTE4, errno.ENETUNREACH),
    (PROHIBITED4, errno.EACCES), (SILENT4, errno.ETIMEDOUT)])
def test_failing_addresses(world, host, error):
    keep, port = closed_port(host if host in (WORLD4, WORLD6) else WORLD4)
    with keep, socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        assert sock.connect_ex((host, port)) == error


def test_enclave_has_no_network(enclave, nginx, carrier):
    links = enclave.plain(["ip", "-o", "link"]).ok().out.splitlines()
    assert len(links) == (2 if carrier == "tcp" else 1)
    assert "lo:" in links[0]
    result = enclave.plain(["curl", "-sS", nginx.url()])
    assert result.rc == 7
