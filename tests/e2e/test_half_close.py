# SPDX-License-Identifier: Apache-2.0
"""8 MiB up, shutdown(SHUT_WR), and only then 1 MiB down.

The relay that takes EOF from one side for the end of both loses the answer. This
is the most common fault of its kind, so it is tested in both directions, and
with a live neighbour on the same proxy that must not notice."""

import hashlib
import socket

import content
from harness import HERE, PATIENCE, PYTHON, until
from servers import Peer, echo, read_to_eof

UP = 8 << 20
DOWN = 1 << 20

CLIENT = """
import hashlib, socket, sys
sys.path.insert(0, {here!r})
import content
with socket.create_connection(({host!r}, {port}), timeout={patience}) as s:
    s.sendall(content.data({up}))
    s.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := s.recv(1 << 16):
        answer += piece
print(len(answer), hashlib.sha256(answer).hexdigest())
"""

# Reads to EOF first, keeps its own direction open, and then sends.
LATE_CLIENT = """
import hashlib, socket, sys
sys.path.insert(0, {here!r})
import content
with socket.create_connection(({host!r}, {port}), timeout={patience}) as s:
    answer = b""
    while piece := s.recv(1 << 16):
        answer += piece
    print(len(answer), hashlib.sha256(answer).hexdigest(), flush=True)
    s.sendall(content.data({up}))
"""


def client(source, peer):
    return [PYTHON, "-B", "-c", source.format(
        here=HERE, host=peer.host, port=peer.port, up=UP, patience=PATIENCE)]


def test_answer_after_eof(enclave):
    sums = []

    def script(conn):
        sums.append(hashlib.sha256(read_to_eof(conn)).hexdigest())
        conn.sendall(content.data(DOWN))

    with Peer(script) as peer, Peer(echo) as neighbour:
        talk = ("import socket\n"
                "with socket.create_connection((%r, %d), timeout=%g) as n:\n"
                "    n.sendall(b'before'); assert n.recv(6) == b'before'\n"
                "    exec(%r)\n"
                "    n.sendall(b'after'); assert n.recv(5) == b'after'\n") % (
                    neighbour.host, neighbour.port, PATIENCE,
                    client(CLIENT, peer)[-1])
        result = enclave.run([PYTHON, "-B", "-c", talk]).ok()
    assert sums == [content.sha256(UP)]
    assert result.out == "%d %s\n" % (DOWN, content.sha256(DOWN))


def test_send_after_servers_eof(enclave):
    sums = []

    def script(conn):
        conn.sendall(content.data(DOWN))
        conn.shutdown(socket.SHUT_WR)
        sums.append(hashlib.sha256(read_to_eof(conn)).hexdigest())

    with Peer(script) as peer:
        result = enclave.run(client(LATE_CLIENT, peer)).ok()
        until(lambda: sums, "the server has read to the end")
    assert sums == [content.sha256(UP)]
    assert result.out == "%d %s\n" % (DOWN, content.sha256(DOWN))
