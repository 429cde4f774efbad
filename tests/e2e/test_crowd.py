# SPDX-License-Identifier: Apache-2.0
"""Many connections at once and one after another, and many small packets towards
somebody who sleeps."""

import hashlib
import os
import resource
import signal
import subprocess
import threading

import pytest

from crowds import stay_idle
from harness import PYTHON, TIMEOUT, WORLD4, until
from servers import Peer

# The proxy needs two fds for each.
MOST = min(10000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 500)
IDLE = [2000, pytest.param(MOST, marks=pytest.mark.full)]


def test_storm(enclave, site, crowd, echo_port):
    """100 clients x 100 connections, each whole from its first byte to the end of
    the stream; and nothing is left of them."""
    enclave.run([crowd, "storm", WORLD4, echo_port, 1, 1]).ok()
    before = site.proxy.fds()
    got = enclave.run([crowd, "storm", WORLD4, echo_port, 100, 100 * 100],
                      timeout=8 * TIMEOUT)
    assert (got.out, got.err) == ("good 10000 bad 0\n", "")
    until(lambda: site.proxy.fds() <= before, "no fd is left")


@pytest.mark.parametrize("count", IDLE)
def test_idle(new_site, crowd, echo_port, count):
    """Thousands of connections on which nothing happens."""
    stay_idle(new_site(), crowd, echo_port, WORLD4, count)


SMALL = """
import hashlib, socket, sys
host, port, size, most = sys.argv[1], *map(int, sys.argv[2:5])
s = socket.create_connection((host, port), float(sys.argv[5]))
print("connected", flush=True)
sys.stdin.readline()
s.setblocking(False)
sums, total = hashlib.sha256(), 0
for i in range(most):
    piece = (b"%08d" % i * (size // 8 + 1))[-size:]
    try:
        sent = s.send(piece)
    except BlockingIOError:
        break
    sums.update(piece[:sent])
    total += sent
print(total, flush=True)
sys.stdin.readline()
s.setblocking(True)
s.settimeout(float(sys.argv[5]))
s.sendall(b"the end")
sums.update(b"the end")
s.shutdown(socket.SHUT_WR)
answer = b""
while piece := s.recv(100):
    answer += piece
print(answer.decode() == sums.hexdigest(), answer.decode())
"""


@pytest.mark.parametrize("size", [1, 128, 200, 300])
def test_small_packets(new_site, size):
    """Until there is no room for more, or some thousand of them, while neither
    the proxy nor the server reads: not one is lost, and the stream lives on.
    Kernels count the packets that wait, besides their bytes."""
    site = new_site()
    awake = threading.Event()

    def script(conn):
        awake.wait(TIMEOUT)
        sums = hashlib.sha256()
        while piece := conn.recv(1 << 16):
            sums.update(piece)
        conn.sendall(sums.hexdigest().encode())

    with Peer(script) as peer:
        client = site.enclave.popen(
            [PYTHON, "-c", SMALL, peer.host, peer.port, size, 6000,
             TIMEOUT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdout.readline() == b"connected\n"
        os.kill(site.proxy.pid, signal.SIGSTOP)
        try:
            client.stdin.write(b"\n")
            client.stdin.flush()
            total = int(client.stdout.readline())
        finally:
            os.kill(site.proxy.pid, signal.SIGCONT)
        assert total > 0
        awake.set()
        client.stdin.write(b"\n")
        client.stdin.flush()
        assert client.stdout.readline().startswith(b"True ")
        assert client.wait(TIMEOUT) == 0
        client.stdin.close()
        client.stdout.close()
