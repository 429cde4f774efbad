# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs fetch the same page from outside, each in its own way,
and cannot do so without proxify."""

import pytest

from compiled import compiled
from harness import HERE, PYTHON, WORLD4, WORLD6
from servers import HELLO

PROGRAMS = HERE + "/programs/"

URLLIB = ("import sys, urllib.request as r;"
          "sys.stdout.write(r.urlopen(sys.argv[1], timeout=20).read().decode())")
CREATE_CONNECTION = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
with socket.create_connection((host, port), timeout=20) as s:
    assert s.getpeername()[:2] == (host, port), s.getpeername()
    s.sendall(b"GET /hello HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
    answer = b""
    while piece := s.recv(4096):
        answer += piece
sys.stdout.write(answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""
BASH = """
exec 3<>/dev/tcp/{host}/{port}
printf 'GET /hello HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' >&3
sed '1,/^\\r$/d' <&3
"""


def url(nginx, host):
    return nginx.url(host=host)


@pytest.fixture(scope="session")
def built(world):
    """The programs that need a compiler."""
    return compiled(world, "fetch")


def command(name, built, nginx, host):
    port = nginx.port
    way = name.partition("-")[2]
    if name == "wget":
        return ["wget", "-q", "-T20", "-t1", "-O-", url(nginx, host)]
    if name == "busybox-wget":
        return ["busybox", "wget", "-q", "-O-", url(nginx, host)]
    if name == "python-urllib":
        return [PYTHON, "-c", URLLIB, url(nginx, host)]
    if name == "python-asyncio":
        return [PYTHON, PROGRAMS + "aiofetch.py", host, port, 20]
    if name == "python-create_connection":
        return [PYTHON, "-c", CREATE_CONNECTION, host, port]
    if name.startswith("node-"):
        return ["node", PROGRAMS + "fetch.js", way, host, port]
    if name.startswith("java-"):
        # The JVM's own memory is not what is under test: keep it small.
        return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-Xshare:auto", "-cp",
                built, "Fetch", way, host, port]
    if name == "rust-std":
        return [built + "/fetch", host, port]
    if name == "perl":
        return ["perl", PROGRAMS + "fetch.pl", host, port]
    if name == "bash":
        return ["bash", "-c", BASH.format(host=host, port=port)]
    assert name == "socat"
    sock = "TCP%s:[%s]:%d" if ":" in host else "TCP%s:%s:%d"
    sock %= (6 if ":" in host else 4, host, port)
    return ["sh", "-c",
            "printf 'GET /hello HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' | "
            "socat -t20 - %s,connect-timeout=20 | sed '1,/^\\r$/d'" % sock]


NAMES = ["wget", "busybox-wget", "python-urllib", "python-asyncio",
         "python-create_connection", "node-fetch", "node-net", "node-http",
         # The JVM lays out its address space in a way that AddressSanitizer's
         # shadow memory does not stand; it runs with the plain build.
         pytest.param("java-httpclient", marks=pytest.mark.no_asan("JVM")),
         pytest.param("java-socket", marks=pytest.mark.no_asan("JVM")),
         pytest.param("java-nio", marks=pytest.mark.no_asan("JVM")),
         pytest.param("java-async", marks=pytest.mark.no_asan("JVM")),
         "rust-std", "perl", "bash", "socat"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("host", [WORLD4, WORLD6], ids=["v4", "v6"])
def test_fetch(enclave, nginx, built, name, host):
    result = enclave.run(command(name, built, nginx, host)).ok()
    assert result.out == HELLO


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(n, str)])
def test_without_proxify_it_fails(enclave, nginx, built, name):
    result = enclave.plain(command(name, built, nginx, WORLD4))
    assert HELLO not in result.out
    assert name in ("bash", "socat") or result.rc != 0
