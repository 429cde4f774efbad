# SPDX-License-Identifier: Apache-2.0
"""proxy run --config FILE, and SIGHUP: several listeners in one process, changed
under live streams; a file with an error changes nothing."""

import os
import signal
import socket

import pytest

import modes
from harness import TIMEOUT, WORLD4, Daemon, until
from servers import Peer, echo


class Run(Daemon):
    def __init__(self, world, text):
        self.directory = world.dir("run")
        self.file = self.directory + "/proxy.ini"
        self.write(text)
        super().__init__("proxy-run", [
            world.bin + "/proxy", "run", "--config", self.file], world.tmp)
        self.wait_ready(
            lambda: self.log().lower().count("listening on") >= 1)

    def write(self, text):
        with open(self.file, "w", encoding="ascii") as file:
            file.write(text.replace("DIR", self.directory))

    def hup(self, text, says="is in force"):
        before = self.log().count(says)
        self.write(text)
        self.signal(signal.SIGHUP)
        until(lambda: self.log().count(says) > before, says)

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def connect(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(self.directory + "/" + name)
        except OSError:
            sock.close()
            raise
        return sock


def ask(sock, data):
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = sock.recv(len(data) - len(got))
        assert piece, "the stream ended"
        got += piece
    return got


def forward(name, peer, *more):
    return "[vsock-to-ip %s]\nvsock-addr = unix:DIR/%s\nip-addr = %s:%d\n%s\n" % (
        name, name, peer.host, peer.port, "\n".join(more))


@pytest.fixture
def peer():
    with Peer(echo) as peer:
        yield peer


@pytest.fixture
def run(world):
    made = []

    def start(text):
        made.append(Run(world, text))
        return made[0]

    yield start
    for daemon in made:
        assert daemon.stop() == 0, daemon.log()


def listens(run, name):
    try:
        run.connect(name).close()
        return True
    except OSError:
        return False


def test_any_mode(run, peer):
    """SOCKS5 and forwards side by side."""
    port = peer.port.to_bytes(2, "big")
    daemon = run("workers = 2\n[socks5]\nlisten = unix:DIR/socks\n" +
                 forward("fixed", peer) +
                 "[vsock-to-ip-transparent]\nvsock-addr = unix:DIR/prefix\n"
                 "[ip-to-vsock back]\nip-addr = %s:0\nvsock-addr = unix:DIR/fixed\n"
                 % WORLD4)
    with daemon.connect("fixed") as sock:
        assert ask(sock, b"fixed") == b"fixed"
    with daemon.connect("socks") as sock:
        sock.sendall(b"\5\1\0\5\1\0\1" + socket.inet_aton(peer.host) + port)
        got = b""
        while len(got) < 12:
            got += sock.recv(12 - len(got))
        assert got[:4] == b"\5\0\5\0"
        assert ask(sock, b"socks") == b"socks"
    with daemon.connect("prefix") as sock:
        sock.sendall(b"\4" + socket.inet_aton(peer.host)[::-1] + port[::-1])
        assert ask(sock, b"prefix") == b"prefix"
    line = [l for l in daemon.log().splitlines() if "Listening on: 10." in l][0]
    with socket.create_connection(
            (WORLD4, int(line.rpartition(":")[2])), TIMEOUT) as sock:
        assert ask(sock, b"there and back") == b"there and back"


def test_live_streams_survive(run, peer):
    """Through any number of changes, even when their listener is gone."""
    daemon = run(forward("a", peer) + forward("b", peer))
    with daemon.connect("a") as on_a, daemon.connect("b") as on_b:
        assert ask(on_a, b"1") + ask(on_b, b"2") == b"12"
        daemon.hup(forward("b", peer, "max-connections = 7") + forward("c", peer))
        until(lambda: not listens(daemon, "a"), "a is closed")
        assert listens(daemon, "b") and listens(daemon, "c")
        assert ask(on_a, b"3") + ask(on_b, b"4") == b"34"
        for _ in range(20):
            daemon.hup(forward("b", peer))
            daemon.hup(forward("b", peer) + forward("d", peer))
        assert ask(on_a, b"x" * 1000000) == b"x" * 1000000
        assert ask(on_b, b"y" * 1000000) == b"y" * 1000000
        assert not listens(daemon, "c")
    daemon.hup(forward("b", peer))
    until(lambda: not listens(daemon, "d"), "d is closed")
    first = daemon.fds()
    for _ in range(5):
        daemon.hup(forward("b", peer) + forward("e", peer))
        daemon.hup(forward("b", peer))
    until(lambda: daemon.fds() <= first, "no fd is left")


def test_queue_survives(run, peer):
    """The socket of a listener that stays is the same one: clients that come
    while it changes are served, every one of them."""
    daemon = run(forward("a", peer))
    inode = os.stat(daemon.directory + "/a").st_ino
    for i in range(30):
        daemon.write(forward("a", peer, "max-connections = %d" % (i + 1)))
        daemon.signal(signal.SIGHUP)
        with daemon.connect("a") as sock:
            assert ask(sock, b"here") == b"here"
    assert os.stat(daemon.directory + "/a").st_ino == inode


def on_port(host, port, peer):
    return "[ip-to-vsock]\nip-addr = %s:%d\nvsock-addr = tcp:%s:%d\n" % (
        host, port, peer.host, peer.port)


@pytest.mark.parametrize("before, after", [
    ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "[::]"),
    ("127.0.0.1", "localhost")])
def test_address_changes_on_its_port(run, world, peer, before, after):
    """The listener that is about to go is not in the way of the one that comes,
    and the port is not shared with anybody later."""
    port = world.port()
    daemon = run(on_port(before, port, peer))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as old:
        assert ask(old, b"old") == b"old"
        daemon.hup(on_port(after, port, peer))
        assert ask(old, b"old") == b"old"
        with socket.create_connection((after.strip("[]"), port), TIMEOUT) as new:
            assert ask(new, b"new") == b"new"
    daemon.hup(on_port(after, port, peer) + on_port(before, port, peer),
               "is refused")
    assert "Address already in use" in daemon.log()


def test_socket_file_removed(run, peer):
    """A unix listener that nobody can reach any more is opened again."""
    daemon = run(forward("a", peer))
    os.unlink(daemon.directory + "/a")
    assert not listens(daemon, "a")
    daemon.hup(forward("a", peer))
    with daemon.connect("a") as sock:
        assert ask(sock, b"1") == b"1"


def test_new_settings_for_new_connections(run, peer):
    daemon = run(forward("a", peer))
    with Peer(lambda conn: conn.sendall(b"other")) as other:
        with daemon.connect("a") as old:
            assert ask(old, b"old") == b"old"
            daemon.hup(forward("a", other))
            with daemon.connect("a") as new:
                assert new.recv(5) == b"other"
            assert ask(old, b"old") == b"old"


@pytest.mark.parametrize("broken, says", [
    ("[vsock-to-ip]\nvsock-addr = unix:DIR/x\nfrob = 1\n",
     "proxy.ini:3: unknown setting 'frob' in [vsock-to-ip]"),
    ("\n[vsock-to-ip]\nvsock-addr = 3\n", "proxy.ini:3: bad value '3'"),
    ("[vsock-to-ip]\nvsock-addr = unix:DIR/x\n",
     "proxy.ini:1: [vsock-to-ip]: option -i, --ip-addr is required"),
    ("nonsense\n", "proxy.ini:1: expected NAME = VALUE"),
    ("", "proxy.ini: no section"),
    # nothing wrong with the text, but with the world
    ("[socks5]\nlisten = unix:DIR/x\n"
     "[vsock-to-ip]\nvsock-addr = unix:/nonexistent/x\nip-addr = 127.0.0.1:1\n",
     "proxy.ini:3: Failed to bind listener to vsock: incorrect CID:port: "),
])
def test_refused_whole(run, peer, broken, says):
    """With file and line; what was in force stays in force, all of it."""
    daemon = run(forward("a", peer) + forward("b", peer))
    before = daemon.fds()
    with daemon.connect("a") as sock:
        assert ask(sock, b"1") == b"1"
        daemon.hup(broken, "is refused, everything stays as it was")
        assert says in daemon.log()
        assert ask(sock, b"2") == b"2"
    for name in "ab":
        with daemon.connect(name) as sock:
            assert ask(sock, b"3") == b"3"
    assert not listens(daemon, "x")
    until(lambda: daemon.fds() <= before, "nothing is left of it")


def test_missing_file(run, peer):
    daemon = run(forward("a", peer))
    os.unlink(daemon.file)
    daemon.signal(signal.SIGHUP)
    until(lambda: "proxy.ini: No such file or directory" in daemon.log() and
          "everything stays as it was" in daemon.log(), "it is logged")
    with daemon.connect("a") as sock:
        assert ask(sock, b"1") == b"1"


def test_what_the_next_start_changes(run, peer):
    daemon = run("workers = 1\n" + forward("a", peer))
    daemon.hup("workers = 2\nlog = debug\ndrain = 1\n" + forward("a", peer))
    assert "workers: takes effect at the next start" in daemon.log()
    assert "log: takes effect at the next start" in daemon.log()
    assert "drain: takes" not in daemon.log()


def test_sighup_while_draining(run, peer):
    """Too late to change anything, and no reason to end."""
    daemon = run(forward("a", peer))
    with daemon.connect("a") as sock:
        assert ask(sock, b"1") == b"1"
        daemon.signal(signal.SIGTERM)
        until(lambda: not listens(daemon, "a"), "it drains")
        daemon.signal(signal.SIGHUP)
        assert ask(sock, b"2") == b"2"
    assert daemon.wait() == 0


@pytest.mark.parametrize("text, says", [
    ("[vsock-to-ip]\nfrob = 1\n",
     "bad.ini:2: unknown setting 'frob' in [vsock-to-ip]"),
    ("", "bad.ini: no section"),
])
def test_bad_at_the_start(world, text, says):
    """Exit 2, as for the command line, and nothing is bound."""
    path = world.dir("bad") + "/bad.ini"
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    got = modes.in_world([world.bin + "/proxy", "run", "-c", path])
    assert got.rc == 2
    assert says in got.err
    got = modes.in_world([world.bin + "/proxy", "run", "-c", path + "x"])
    assert got.rc == 2
    assert "No such file or directory" in got.err
