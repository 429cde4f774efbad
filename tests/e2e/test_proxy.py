# SPDX-License-Identifier: Apache-2.0
"""The host proxy by itself: SOCKS5 from a scripted client over each carrier, what
it does with malformed, silent and endless ones, out of fds, and told to stop."""

import errno
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import content
from harness import (NO_ROUTE4, PROHIBITED4, SILENT4, SLOWNESS, TIMEOUT,
                     UNREACHABLE4, WORLD4, WORLD6, until)
from servers import Peer, closed_port, echo, read_to_eof, reset

GREETING = b"\x05\x01\x00"


def connect_request(host, port, command=1):
    if isinstance(host, bytes):
        address = b"\x03" + bytes([len(host)]) + host
    elif ":" in host:
        address = b"\x04" + socket.inet_pton(socket.AF_INET6, host)
    else:
        address = b"\x01" + socket.inet_aton(host)
    return bytes([5, command, 0]) + address + struct.pack("!H", port)


def recv_exactly(sock, count):
    out = b""
    while len(out) < count:
        piece = sock.recv(count - len(out))
        if not piece:
            break
        out += piece
    return out


def reply(sock):
    """(code, host, port) of the method answer and the reply after it."""
    assert recv_exactly(sock, 2) == b"\x05\x00"
    version, code, reserved, kind = recv_exactly(sock, 4)
    assert (version, reserved) == (5, 0)
    family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
    host = socket.inet_ntop(family, recv_exactly(sock, size))
    return code, host, struct.unpack("!H", recv_exactly(sock, 2))[0]


def ended(sock):
    """The proxy has closed the connection, with or without a reset. (After a
    shutdown() of its own a vsock says ENOTCONN for an end of stream.)"""
    try:
        return sock.recv(65536) == b""
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.ENOTCONN):
            raise
        return True


def ask(proxy, host, port, **kw):
    with proxy.connect() as sock:
        sock.sendall(GREETING + connect_request(host, port, **kw))
        return reply(sock)[0]


@pytest.fixture
def proxy(site):
    return site.proxy


# ---- the handshake ----


@pytest.mark.parametrize("host", [WORLD4, WORLD6])
def test_connect(proxy, host):
    """The reply has the local address of the host's connection."""
    with Peer(echo, host=host) as peer, proxy.connect() as sock:
        sock.sendall(GREETING + connect_request(host, peer.port))
        code, local, port = reply(sock)
        assert (code, local) == (0, host)
        sock.sendall(b"ping")
        assert recv_exactly(sock, 4) == b"ping"
        assert peer.peers[0][:2] == (host, port)


@pytest.mark.parametrize("cut", range(1, 14))
def test_handshake_in_any_split(proxy, cut):
    with Peer(echo) as peer, proxy.connect() as sock:
        hello = GREETING + connect_request(peer.host, peer.port) + b"payload"
        if proxy.endpoint.startswith("tcp"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What is not whole must not be answered, whatever the timing; the
        # rest goes out when the first part has surely been read.
        sock.sendall(hello[:cut])
        if cut >= len(GREETING):
            assert recv_exactly(sock, 2) == b"\x05\x00"
            sock.sendall(hello[cut:])
            assert sock.recv(4) == b"\x05\x00\x00\x01"
            recv_exactly(sock, 6)
        else:
            sock.sendall(hello[cut:])
            assert reply(sock)[0] == 0
        assert recv_exactly(sock, 7) == b"payload"


def test_payload_with_the_request(proxy):
    """A client may send a megabyte right behind its request."""
    with Peer(echo) as peer, proxy.connect() as sock:
        hello = GREETING + connect_request(peer.host, peer.port)
        sender = threading.Thread(
            target=sock.sendall, args=(hello + content.data(1 << 20),))
        sender.start()
        assert reply(sock)[0] == 0
        got = recv_exactly(sock, 1 << 20)
        sender.join(TIMEOUT)
        assert got == content.data(1 << 20)


@pytest.mark.parametrize("host, code", [
    (NO_ROUTE4, 3), (UNREACHABLE4, 4), (PROHIBITED4, 2)])
def test_reply_codes(proxy, host, code):
    assert ask(proxy, host, 80) == code


def test_reply_refused(proxy):
    keep, port = closed_port()
    with keep:
        assert ask(proxy, WORLD4, port) == 5


def test_reply_timed_out(new_site):
    site = new_site("--connect-timeout", "0.5")
    start = time.monotonic()
    assert ask(site.proxy, SILENT4, 80) == 6
    assert 0.5 <= time.monotonic() - start < 3 * SLOWNESS


@pytest.mark.parametrize("command, code", [(3, 7), (9, 7)])
def test_reply_unsupported_command(proxy, command, code):
    assert ask(proxy, WORLD4, 80, command=command) == code


def test_reply_unsupported_address_type(proxy):
    with proxy.connect() as sock:
        sock.sendall(GREETING + b"\x05\x01\x00\x09" + b"\0" * 20)
        assert reply(sock)[0] == 8


def test_no_acceptable_method(proxy):
    with proxy.connect() as sock:
        sock.sendall(b"\x05\x01\x02")
        assert recv_exactly(sock, 2) == b"\x05\xff"
        assert ended(sock)


def test_rules(new_site):
    """--allow and --deny, first match wins, and what matches none."""
    with Peer(echo) as peer, Peer(echo, host=WORLD6) as other:
        site = new_site("--deny", "10.77.0.0/24:%d" % peer.port,
                        "--allow", "10.77.0.0/24", "--deny", "::/0")
        assert ask(site.proxy, peer.host, peer.port) == 2
        assert ask(site.proxy, WORLD6, other.port) == 2
        # a v4-mapped address is not a way around
        assert ask(site.proxy, "::ffff:" + peer.host, peer.port) == 2
        assert not peer.peers and not other.peers


# ---- names ----


def test_name_from_hosts(proxy):
    with Peer(echo) as peer, proxy.connect() as sock:
        sock.sendall(GREETING + connect_request(b"world.test", peer.port))
        assert reply(sock)[:2] == (0, WORLD4)
        sock.sendall(b"ping")
        assert recv_exactly(sock, 4) == b"ping"


def test_name_with_a_dead_address_first(proxy):
    """Every address is tried; a dead one costs a delay, not the connection."""
    with Peer(echo) as peer, proxy.connect() as sock:
        sock.sendall(GREETING + connect_request(b"half-dead.test", peer.port))
        start = time.monotonic()
        assert reply(sock)[:2] == (0, WORLD4)
        assert time.monotonic() - start < 2 * SLOWNESS


def test_name_with_a_silent_address_first(proxy):
    """RFC 8305: the next address is tried after a short delay."""
    with Peer(echo) as peer, proxy.connect() as sock:
        sock.sendall(GREETING + connect_request(b"half-silent.test", peer.port))
        start = time.monotonic()
        assert reply(sock)[:2] == (0, WORLD4)
        assert time.monotonic() - start < 1 * SLOWNESS


def test_unknown_name(proxy):
    start = time.monotonic()
    assert ask(proxy, b"no-such-name.invalid", 80) == 4
    assert time.monotonic() - start < TIMEOUT


def test_lookups_block_nobody(new_site, world):
    """A name server that does not answer, and meanwhile business as usual."""
    conf = world.tmp + "/silent.conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write("nameserver %s\n" % SILENT4)
    site = new_site("--workers", "1", "--resolv-conf", conf)
    with site.proxy.connect() as slow, Peer(echo) as peer:
        slow.sendall(GREETING + connect_request(b"no-such-name.invalid", 80))
        assert recv_exactly(slow, 2) == b"\x05\x00"
        start = time.monotonic()
        for _ in range(50):
            assert ask(site.proxy, peer.host, peer.port) == 0
        assert time.monotonic() - start < 3 * SLOWNESS


# ---- bad input ----


@pytest.mark.parametrize("message", [
    b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100,
    b"\xff" * 1000, GREETING + b"\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
    GREETING + b"\x05\x01\x01\x01\x7f\x00\x00\x01\x00\x50",
    GREETING + b"\x05\x01\x00\x03\x00\x00\x50",
    GREETING + b"\x05\x01\x00\x03\x04a\nb\0\x00\x50", os.urandom(5000)],
    ids=["socks4", "http", "zero", "ones", "version", "reserved", "empty-name",
         "control-name", "random"])
def test_malformed(proxy, message):
    with proxy.connect() as sock:
        sock.sendall(message)
        try:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError:
            pass
    with Peer(echo) as peer:
        assert ask(proxy, peer.host, peer.port) == 0


@pytest.mark.parametrize("part", [0, 1, 3, 8])
def test_client_that_goes_silent(new_site, part):
    """In the middle of the handshake: a deadline, and the fd is free again."""
    site = new_site("--handshake-timeout", "0.3")
    assert ask(site.proxy, UNREACHABLE4, 80) == 4  # every thread is up
    before = site.proxy.fds()
    with site.proxy.connect() as sock:
        sock.sendall((GREETING + connect_request(WORLD4, 80))[:part])
        if part >= 3:
            assert recv_exactly(sock, 2) == b"\x05\x00"
        assert ended(sock)
    until(lambda: site.proxy.fds() <= before, "the fd is closed")


def test_client_that_drips(new_site):
    """The deadline is for the whole: a byte now and then does not extend it."""
    site = new_site("--handshake-timeout", "0.5")
    hello = b"\x05\xff" + b"\x01" * 255
    start = time.monotonic()
    with site.proxy.connect() as sock:
        sock.settimeout(0.05)
        for byte in hello:
            try:
                sock.sendall(bytes([byte]))
                if sock.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("it let the whole greeting drip in")
    assert time.monotonic() - start < 3 * SLOWNESS


def test_client_that_sends_for_ever(new_site):
    """Without ever making sense: cut off in time, and memory stays where it
    was. (Reading on for a while is right: a close with unread data would be a
    reset, which takes the refusal away from the client.)"""
    site = new_site("--handshake-timeout", "1")
    before = site.proxy.rss()
    start = time.monotonic()
    with site.proxy.connect() as sock:
        with pytest.raises(OSError):
            sock.sendall(GREETING + b"\x05\x01\x00\x03\xff")
            while time.monotonic() - start < TIMEOUT:
                sock.send(b"\0" * 65536)
    assert time.monotonic() - start < 10 * SLOWNESS
    assert site.proxy.rss() - before < 4 << 20


def test_client_gone_before_the_answer(proxy):
    """It leaves while its destination is dialled; nothing is left of it."""
    before = proxy.fds()
    for _ in range(50):
        with proxy.connect() as sock:
            sock.sendall(GREETING + connect_request(SILENT4, 80))
            assert recv_exactly(sock, 2) == b"\x05\x00"
    until(lambda: proxy.fds() <= before, "the connects are given up")


# ---- relay ----


def connected(proxy, peer):
    sock = proxy.connect()
    sock.sendall(GREETING + connect_request(peer.host, peer.port))
    assert reply(sock)[0] == 0
    return sock


def test_back_pressure(new_site):
    """A receiver that does not read stops the sender; the proxy does not hoard."""
    site = new_site()
    release = threading.Event()

    def script(conn):
        release.wait(TIMEOUT)
        total = 0
        while piece := conn.recv(1 << 20):
            total += len(piece)
        conn.sendall(b"%d" % total)

    with Peer(script) as peer, connected(site.proxy, peer) as sock:
        before = site.proxy.rss()
        sock.setblocking(False)
        sent = 0
        stalled = 0
        while stalled < 20:
            try:
                sent += sock.send(b"x" * 65536)
                stalled = 0
            except BlockingIOError:
                stalled += 1
                time.sleep(0.01)  # to see that it stays so, not to wait for it
        assert sent < 64 << 20
        # a sanitizer has its own notes of every byte
        room = (8 if os.environ.get("E2E_SANITIZER_LOG") else 2) << 20
        assert site.proxy.rss() - before < room
        sock.setblocking(True)
        release.set()
        sock.shutdown(socket.SHUT_WR)
        assert read_to_eof(sock) == b"%d" % sent
    site.proxy.stop()


def test_idle_stream_is_kept(new_site):
    """No deadline for an established stream: longer than every timeout there is
    (here 0.3 s), without a byte."""
    site = new_site("--handshake-timeout", "0.3", "--connect-timeout", "0.3")
    with Peer(echo) as peer, connected(site.proxy, peer) as sock:
        start = time.monotonic()
        until(lambda: time.monotonic() - start > 1, "a second has passed")
        sock.sendall(b"still")
        assert recv_exactly(sock, 5) == b"still"


def test_memory_of_an_idle_connection(new_site):
    """Under 1 KiB of user memory each, once data has gone both ways."""
    from harness import PRELOAD_EXTRA, PROXY_BUILD, BUILD
    count = 1000
    site = new_site()
    with Peer(echo, backlog=4096) as peer:
        warm = [connected(site.proxy, peer) for _ in range(50)]
        for sock in warm:
            sock.sendall(content.data(100000))
            assert len(recv_exactly(sock, 100000)) == 100000
        before = site.proxy.rss()
        socks = [connected(site.proxy, peer) for _ in range(count)]
        for sock in socks:
            sock.sendall(b"ping")
            assert recv_exactly(sock, 4) == b"ping"
        each = (site.proxy.rss() - before) / count
        for sock in warm + socks:
            sock.close()
    print("%.0f bytes per idle connection" % each)
    # a sanitizer's red zones are not ours
    assert each < 1024 or PRELOAD_EXTRA or PROXY_BUILD != BUILD


def test_nothing_leaks(proxy):
    """Thousand streams in every way to end one: no fd is left."""
    before = proxy.fds()
    for way in range(4):
        script = [echo, reset, read_to_eof, lambda conn: None][way]
        with Peer(script, resets=True) as peer:
            for n in range(250):
                sock = proxy.connect()
                sock.sendall(GREETING + connect_request(peer.host, peer.port))
                # a reset at once may be there before the proxy has looked
                assert reply(sock)[0] in ((0, 5) if script is reset else (0,))
                if n % 3 == 0:
                    sock.close()
                elif n % 3 == 1:
                    try:
                        sock.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass  # the peer was faster with its reset
                    ended(sock)
                    sock.close()
                else:
                    try:
                        sock.sendall(b"x" * 1000)
                    except OSError:
                        pass
                    sock.close()
    until(lambda: proxy.fds() <= before, "every fd is closed")


# ---- limits ----


def test_out_of_fds(new_site, world):
    """With no fd left it stops accepting, says so, does not spin, and goes on
    when some are free again. Streams that are there are not touched."""
    site = new_site(start=False)
    site.start_proxy(args=["--workers", "1"], prefix=["prlimit", "--nofile=64:64"])
    proxy = site.proxy
    with Peer(echo, resets=True) as peer:
        first = connected(proxy, peer)
        held = []
        # Those beyond the limit stay in the listener's queue, unanswered.
        for _ in range(80):
            sock = proxy.connect()
            sock.settimeout(1)
            sock.sendall(GREETING + connect_request(peer.host, peer.port))
            held.append(sock)
        until(lambda: "file descriptor" in proxy.log() or "open files" in proxy.log(),
              "it says that it is out of fds")
        spent = proxy.cpu_seconds()
        start = time.monotonic()
        until(lambda: time.monotonic() - start > 1, "a second has passed")
        assert proxy.cpu_seconds() - spent < 0.3, "it spins"
        first.sendall(b"alive")
        assert recv_exactly(first, 5) == b"alive"
        for sock in held:
            sock.close()
        with connected(proxy, peer) as again:
            again.sendall(b"again")
            assert recv_exactly(again, 5) == b"again"
        first.close()


def test_workers(new_site):
    """--workers threads, and all of them are used."""
    site = new_site("--workers", "3")
    until(lambda: len(os.listdir("/proc/%d/task" % site.proxy.pid)) >= 3,
          "there are three threads")
    with Peer(echo) as peer:
        socks = [connected(site.proxy, peer) for _ in range(60)]
        for sock in socks:
            sock.sendall(b"ping")
            assert recv_exactly(sock, 4) == b"ping"
        for sock in socks:
            sock.close()


# ---- stopping ----


def test_drain(new_site):
    """SIGTERM: nobody new, streams finish, exit 0 as soon as they have."""
    site = new_site("--drain", "20")
    with Peer(echo) as peer, connected(site.proxy, peer) as sock:
        site.proxy.signal(signal.SIGTERM)
        until(lambda: refused(site.proxy), "it accepts no more")
        sock.sendall(b"finishing")
        assert recv_exactly(sock, 9) == b"finishing"
        assert site.proxy.alive()
        sock.close()
        assert site.proxy.wait(5 * SLOWNESS) == 0


def refused(proxy):
    try:
        with proxy.connect() as sock:
            sock.settimeout(0.2)
            sock.sendall(GREETING)
            return sock.recv(2) == b""
    except OSError:
        return True


def test_drain_ends(new_site):
    """--drain is the longest that a stream can hold it."""
    site = new_site("--drain", "0.5")
    with Peer(echo, resets=True) as peer, connected(site.proxy, peer) as sock:
        start = time.monotonic()
        site.proxy.signal(signal.SIGTERM)
        site.proxy.wait(10 * SLOWNESS)
        assert 0.5 <= time.monotonic() - start < 5 * SLOWNESS
        assert ended(sock)


def test_second_signal_ends_at_once(new_site):
    site = new_site("--drain", "60")
    with Peer(echo, resets=True) as peer, connected(site.proxy, peer) as sock:
        site.proxy.signal(signal.SIGTERM)
        until(lambda: refused(site.proxy), "it accepts no more")
        site.proxy.signal(signal.SIGTERM)
        site.proxy.wait(5 * SLOWNESS)
        assert ended(sock)


def test_idle_proxy_stops_at_once(new_site):
    site = new_site("--drain", "60")
    start = time.monotonic()
    assert site.proxy.stop() == 0
    assert time.monotonic() - start < 5 * SLOWNESS


# ---- the command line ----


def refusal(world, *argv):
    result = world.run([world.bin + "/proxy", *argv])
    assert result.rc == 2
    assert len(result.err.splitlines()) <= 2
    return result.err


@pytest.mark.parametrize("argv, named", [
    (["--listen", "carrier-pigeon:1"], "carrier-pigeon:1"),
    (["--listen", "unix:relative"], "unix:relative"),
    (["--workers", "0"], "0"), (["--workers", "many"], "many"),
    (["--drain", "-1"], "-1"), (["--deny", "10.0.0.0/99"], "10.0.0.0/99"),
    (["--no-such-option"], "--no-such-option"), (["stray"], "stray"),
    (["--listen"], "--listen"), (["-p", "x"], "x"), (["-b", "12"], "12")])
def test_bad_options(world, argv, named):
    assert named in refusal(world, *argv)


def test_listen_is_repeatable(world):
    paths = [world.dir("listen") + "/a.sock", world.dir("listen") + "/b.sock"]
    proc = subprocess.Popen([world.bin + "/proxy"] + [
        a for p in paths for a in ("--listen", "unix:" + p)],
        stderr=subprocess.DEVNULL)
    try:
        until(lambda: all(os.path.exists(p) for p in paths), "both sockets exist")
    finally:
        proc.terminate()
        assert proc.wait(TIMEOUT) == 0
    assert not any(os.path.exists(p) for p in paths)


def test_reference_flags(world):
    """-t -p: SOCKS5 on a TCP port of every IPv4 address; curl speaks it."""
    port = world.port()
    proc = subprocess.Popen(
        [world.bin + "/proxy", "-t", "-p", str(port), "-b", "65536"],
        stderr=subprocess.DEVNULL)
    try:
        from harness import listening
        until(lambda: listening(WORLD4, port), "it listens")
        assert not listening(WORLD6, port)
        with Peer(lambda c: (c.recv(4096), c.sendall(
                b"HTTP/1.0 200 OK\r\n\r\nfetched"))) as peer:
            got = world.run(["curl", "-sS", "--proxy", "socks5h://%s:%d" % (
                WORLD4, port), "http://world.test:%d/" % peer.port]).ok()
            assert got.out == "fetched"
    finally:
        proc.terminate()
        assert proc.wait(TIMEOUT) == 0


def test_port_in_use(world):
    """A listener that cannot be had: exit 1, naming endpoint and errno."""
    keep = socket.socket()
    keep.bind((WORLD4, 0))
    keep.listen()
    endpoint = "tcp:%s:%d" % keep.getsockname()
    with keep:
        result = world.run([world.bin + "/proxy", "--listen", endpoint])
    assert result.rc == 1
    assert endpoint in result.err and "in use" in result.err
