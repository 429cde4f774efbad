# SPDX-License-Identifier: Apache-2.0
"""Two machines, and nothing but vsock between them, see guest.py.

The last test cuts the enclave's power."""

import concurrent.futures
import hashlib
import http.client
import os
import re
import socket
import threading
import time

import pytest

import content
from guest import Two
from harness import (PATIENCE, TIMEOUT, WORLD4, WORLD4B, listening, until)
from inbound import reachable
from names import DNS4
from servers import Peer, read_to_eof

pytestmark = pytest.mark.enclave

SIZES = [1, 65537, 4 << 20]
CLIENTS = 20
BIG = 64 << 20  # more than all that buffers hold between a server and a client
CURL = ["curl", "-sS", "-m", int(PATIENCE)]

NGINX_CONF = """
daemon off;
master_process off;
user root root;
pid /srv/nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format who "$remote_addr:$remote_port";
    access_log /srv/access.log who;
    client_body_temp_path /srv/body;
    proxy_temp_path /srv/proxy;
    fastcgi_temp_path /srv/fastcgi;
    uwsgi_temp_path /srv/uwsgi;
    scgi_temp_path /srv/scgi;
    server {{
        listen {port};
        listen [::]:{port};
        root /srv/www;
    }}
}}
"""


@pytest.fixture(scope="module")
def two(world, name_servers):
    two = Two(world, os.environ["VM_ENCLAVE"], name_servers.conf(DNS4))
    yield two
    two.close()


def serve(two, size):
    """nginx in the enclave, with a file of that many bytes. Return its port, and
    the file's sum."""
    port = two.world.port()
    two.guest.write("/srv/nginx.conf", NGINX_CONF.format(port=port))
    two.guest.sh("mkdir -p /srv/www && head -c %d /dev/urandom >/srv/www/file" %
                 size).ok()
    two.guest.start("nginx", "-c", "/srv/nginx.conf", "-p", "/srv", "-e", "stderr")
    until(lambda: reachable(WORLD4, port), "nginx serves")
    return port, two.guest.sha256("/srv/www/file")


def get(address, port, source):
    """Fetch the file. Return its sum, and who the client was."""
    conn = http.client.HTTPConnection(
        address, port, timeout=PATIENCE, source_address=(source, 0))
    conn.connect()
    me = "%s:%d" % conn.sock.getsockname()
    conn.request("GET", "/file")
    answer = conn.getresponse()
    body = answer.read()
    conn.close()
    assert answer.status == 200
    return hashlib.sha256(body).hexdigest(), me


def test_no_network(two, web):
    """There is no way out but the proxy."""
    assert two.guest.sh("ls /sys/class/net").ok().out == "lo\n"
    assert two.guest.sh("curl -sS -m 5 " + web.url("/peer")).rc == 7
    got = two.guest.run(*CURL, web.url("/peer")).ok()
    assert got.out == WORLD4
    assert re.search(r"vsock:16:\d+.* CONNECT %s:%d" % (WORLD4, web.port),
                     two.proxy.log())


@pytest.mark.parametrize("size", SIZES)
def test_outbound(two, web, size):
    """Down and up again, the same bytes."""
    two.guest.run(*CURL, "-o", "/tmp/got", web.url("/bytes/%d" % size)).ok()
    assert two.guest.sha256("/tmp/got") == content.sha256(size)
    got = two.guest.run(*CURL, "-T", "/tmp/got", web.url("/sum")).ok()
    assert got.out == "%s %d" % (content.sha256(size), size)


def test_names(two, web):
    """Names are the parent's: one that there is, and one that there is not."""
    url = "http://%%s:%d/peer" % web.port
    got = two.guest.run(*CURL, url % "v4.names.test").ok()
    assert got.out == WORLD4
    got = two.guest.run(*CURL, url % "nobody.names.test")
    assert got.rc == 6 and "Could not resolve host" in got.out


def test_half_close_outward(two):
    sums = []

    def script(conn):
        sums.append(hashlib.sha256(read_to_eof(conn)).hexdigest())
        conn.sendall(content.data(65537))

    two.guest.sh("head -c 300000 /dev/urandom >/tmp/up").ok()
    with Peer(script) as peer:
        got = two.guest.sh("%s </tmp/up | sha256sum" % two.guest.proxify(
            "socat", "-t", int(PATIENCE), "-", "TCP:%s:%d" % (WORLD4, peer.port)))
    assert sums == [two.guest.sha256("/tmp/up")]
    assert got.ok().out.split()[0] == content.sha256(65537)


def test_half_close_inward(two):
    port = two.world.port()
    two.guest.start("socat", "-t", int(PATIENCE),
                    "TCP-LISTEN:%d,fork,reuseaddr" % port, "EXEC:sha256sum")
    until(lambda: reachable(WORLD4, port), "socat serves")
    with socket.create_connection((WORLD4, port), PATIENCE) as conn:
        conn.sendall(content.data(300000))
        conn.shutdown(socket.SHUT_WR)
        assert read_to_eof(conn).split()[0].decode() == content.sha256(300000)


def test_inbound(two):
    """Clients of the parent's port, all at once: the file is whole, and the server
    saw them as who they are."""
    port, wanted = serve(two, 256 << 10)
    sources = [(WORLD4, WORLD4B)[n % 2] for n in range(CLIENTS)]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        got = list(pool.map(lambda source: get(WORLD4, port, source), sources))
    assert {digest for digest, _ in got} == {wanted}
    clients = {me for _, me in got}
    assert len(clients) == CLIENTS
    until(lambda: clients <= set(
        two.guest.sh("cat /srv/access.log").ok().out.split()), "nginx has seen all")
    # and at the parent's other address
    assert get(WORLD4B, port, WORLD4)[0] == wanted


def test_proxy_killed(two):
    """The proxy dies and comes back: servers in the enclave go on."""
    port, wanted = serve(two, 65537)
    for _ in range(2):
        two.proxy.kill()
        until(lambda: not listening(WORLD4, port), "the port is gone")
        two.start_proxy()
        until(lambda: reachable(WORLD4, port), "the port is back")
        assert get(WORLD4, port, WORLD4)[0] == wanted


class Download:
    """A transfer outward from an endless server, until it breaks."""

    def __init__(self, two):
        self.sent = 0
        self.ended = threading.Event()
        self.peer = Peer(self._script)
        self.peer.__enter__()
        two.guest.start("curl", "-sS", "-o", "/dev/null",
                        "http://%s:%d/" % (WORLD4, self.peer.port))

    def _script(self, conn):
        conn.settimeout(4 * TIMEOUT)
        try:
            conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                conn.sendall(b"x" * 65536)
                self.sent += 65536
        except (ConnectionResetError, BrokenPipeError):
            self.ended.set()


def to_the_end(conn):
    """How many bytes come before the connection ends, in whichever way."""
    total = 0
    try:
        while piece := conn.recv(1 << 20):
            total += len(piece)
    except ConnectionResetError:
        pass
    return total


def test_enclave_killed(two):
    """The enclave's power is cut in mid-transfer: the proxy lets go of all that it
    had for it, and tells both ends outside. What the enclave had sent before, a
    client that was slow to take it still gets; until then its stream lives."""
    before = two.rest()
    port, _ = serve(two, BIG)
    download = Download(two)
    client = socket.create_connection((WORLD4, port), PATIENCE)
    client.sendall(b"GET /file HTTP/1.0\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: download.sent > 4 << 20, "the download runs")
    # the two transfers, the one that keeps the port, and at least a standby
    assert two.carriers() >= 4
    assert two.held()["socket:"] >= before["socket:"] + two.carriers() + 3
    assert not download.ended.is_set()

    two.guest.kill()
    start = time.monotonic()
    until(lambda: two.held()["socket:"] <= before["socket:"] + 2,
          "the proxy has let go of all but the client that is slow")
    print("noticed after %.2f s" % (time.monotonic() - start))
    assert download.ended.wait(TIMEOUT), "the server outside has not noticed"
    with client:
        assert to_the_end(client) < BIG
    until(lambda: two.held() == before, "the proxy has let go of everything")
    assert not two.carriers()
    with socket.create_server((WORLD4, port)):  # the port is anybody's again
        pass
    two.proxy.connect().close()
