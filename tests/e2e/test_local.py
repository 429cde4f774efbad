# SPDX-License-Identifier: Apache-2.0
"""What must not go through the host stays with the enclave's kernel: loopback,
the bypass list, and every socket that is not TCP."""

import pytest

from harness import PYTHON, WORLD4
from servers import HELLO, Peer, echo

# A server and a client in one process, over the loopback of the enclave.
LOOPBACK = """
import socket, sys, threading
host = sys.argv[1]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
server = socket.socket(family)
server.bind((host, 0))
server.listen()
def serve():
    conn, address = server.accept()
    conn.sendall(conn.recv(100))
    conn.close()
threading.Thread(target=serve).start()
client = socket.create_connection(server.getsockname()[:2], timeout=20)
assert client.getpeername() == server.getsockname()
client.sendall(b"inside")
print(client.recv(100).decode())
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_stays_inside(enclave, host):
    assert enclave.run([PYTHON, "-c", LOOPBACK, host]).ok().out == "inside\n"


def test_loopback_of_the_host_is_not_reached(enclave):
    with Peer(echo, host="127.0.0.1") as peer:
        got = enclave.run(
            [PYTHON, "-c", "import socket, sys\n"
             "print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))",
             peer.port]).ok()
        assert got.out == "111\n"
        assert not peer.peers


def test_loopback_of_the_host_on_request(new_site):
    """PROXY_LOOPBACK=host: loopback means the host's."""
    site = new_site()
    with Peer(echo, host="127.0.0.1") as peer:
        got = site.run(
            [PYTHON, "-c", "import socket, sys\n"
             "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20)\n"
             "s.sendall(b'outside'); print(s.recv(100).decode())", peer.port],
            env={"PROXY_LOOPBACK": "host"}).ok()
    assert got.out == "outside\n"


def test_bypass_list(enclave, nginx):
    """An address on PROXY_BYPASS gives what the enclave's kernel gives."""
    argv = ["curl", "-sS", nginx.url()]
    plain = enclave.plain(argv)
    got = enclave.run(argv, env={"PROXY_BYPASS": "192.0.2.0/24,10.77.0.0/16"})
    assert got.rc == plain.rc == 7
    other = enclave.run(argv, env={"PROXY_BYPASS": "10.78.0.0/16,fd00::/8"}).ok()
    assert other.out == HELLO


OTHER_SOCKETS = """
import os, socket, sys, tempfile
def text(call, *args):
    try:
        return call(*args)
    except OSError as e:
        return e.errno
# UDP has no way out, and says so as it does without the library
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("udp", text(udp.connect, (sys.argv[1], 53)),
      text(udp.sendto, b"x", (sys.argv[1], 53)))
# UDP within the enclave
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
a.bind(("127.0.0.1", 0))
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
b.connect(a.getsockname())
b.send(b"datagram")
print(a.recvfrom(100)[0], b.getpeername() == a.getsockname())
# unix sockets of each kind
for kind in socket.SOCK_STREAM, socket.SOCK_SEQPACKET:
    path = tempfile.mktemp()
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(path)
    server.listen()
    client = socket.socket(socket.AF_UNIX, kind)
    client.setblocking(False)
    print("unix", client.connect_ex(path), client.getpeername() == path)
    conn, _ = server.accept()
    conn.send(b"message")
    print(client.recv(100), client.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN))
    os.unlink(path)
x, y = socket.socketpair()
x.send(b"pair")
print(y.recv(100))
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
netlink.bind((0, 0))
print("netlink", netlink.getsockname()[1])
print(text(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 132) != 0)
"""


def test_other_sockets_are_untouched(enclave):
    # lo is up once proxify has been there, which both runs must see
    enclave.run(["true"]).ok()
    argv = [PYTHON, "-c", OTHER_SOCKETS, WORLD4]
    plain = enclave.plain(argv).ok()
    assert enclave.run(argv).ok().out == plain.out


def test_files_are_untouched(enclave):
    """The hooked calls on what is no socket."""
    argv = ["sh", "-c", "head -c 100000 /dev/urandom >f; cat f | cat - >g; "
            "cmp f g && cp f h && cmp f h && wc -c <h"]
    assert enclave.run(argv).ok().out.strip() == "100000"
