# SPDX-License-Identifier: Apache-2.0
"""A reset by the server is a reset for the program, never a clean EOF, over a
carrier that can express it; over one that cannot, the program still learns at
once that the stream is over, and the server learns of a client's reset."""

import errno
import socket
import threading

import pytest

from harness import PATIENCE, PYTHON, TIMEOUT
from servers import Peer, reset

CLIENT = """
import errno, select, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=%g)
s.sendall(b"go")
s.settimeout(%g)
try:
    got = b""
    while piece := s.recv(65536):
        got += piece
    print("EOF", len(got))
except OSError as e:
    print(errno.errorcode[e.errno])
""" % (PATIENCE, PATIENCE)


def reset_after_request(conn):
    conn.recv(2)
    reset(conn)


def test_reset_by_the_server(enclave, carrier):
    with Peer(reset_after_request) as peer:
        got = enclave.run([PYTHON, "-c", CLIENT, peer.host, peer.port]).ok()
    # A unix stream socket has ECONNRESET for its reader only when it closes
    # with unread data, so the relay may or may not be able to say it.
    wanted = ["ECONNRESET\n"] if carrier == "tcp" else ["ECONNRESET\n", "EOF 0\n"]
    assert got.out in wanted


def test_reset_by_the_client(enclave, carrier):
    """SO_LINGER of zero and close: the server sees a reset, not EOF."""
    seen = []
    done = threading.Event()

    def script(conn):
        try:
            while piece := conn.recv(65536):
                seen.append(piece)
            seen.append("EOF")
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
        done.set()

    source = ("import socket, struct, sys\n"
              "host, port, wait = sys.argv[1:]\n"
              "s = socket.create_connection((host, int(port)), float(wait))\n"
              "s.sendall(b'data')\n"
              "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,"
              " struct.pack('ii', 1, 0))\n"
              "s.close()\n")
    with Peer(script) as peer:
        enclave.run([PYTHON, "-c", source, peer.host, peer.port, PATIENCE]).ok()
        assert done.wait(TIMEOUT)
    if carrier == "tcp":
        assert seen[-1] == "ECONNRESET"
    else:
        assert seen[-1] in ("ECONNRESET", "EOF")


def test_neighbours_live_on(enclave):
    """Many resets on one proxy; a stream beside them is whole."""
    from servers import echo
    source = ("import socket, sys\n"
              "host, good, bad = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
              "n = socket.create_connection((host, good), float(sys.argv[4]))\n"
              "for i in range(100):\n"
              "    s = socket.create_connection((host, bad), float(sys.argv[4]))\n"
              "    s.sendall(b'go')\n"
              "    n.sendall(b'%03d' % i); assert n.recv(3) == b'%03d' % i\n"
              "    s.close()\n"
              "print('whole')\n")
    with Peer(echo) as good, Peer(reset_after_request, resets=True) as bad:
        got = enclave.run(
            [PYTHON, "-c", source, good.host, good.port, bad.port,
             PATIENCE]).ok()
    assert got.out == "whole\n"


@pytest.mark.parametrize("size", [1, 100000, 3000000])
def test_data_before_a_close_is_not_lost(enclave, size):
    """A server that sends and closes at once: every byte arrives, then EOF."""
    with Peer(lambda conn: (conn.recv(2), conn.sendall(b"x" * size))) as peer:
        got = enclave.run([PYTHON, "-c", CLIENT, peer.host, peer.port]).ok()
    assert got.out == "EOF %d\n" % size


def test_silent_server_goes(enclave):
    """The server's end of an idle stream goes away: EOF, without a timeout."""
    def script(conn):
        conn.recv(2)
        conn.shutdown(socket.SHUT_RDWR)
    with Peer(script) as peer:
        got = enclave.run([PYTHON, "-c", CLIENT, peer.host, peer.port]).ok()
    assert got.out == "EOF 0\n"
