# SPDX-License-Identifier: Apache-2.0
"""The servers of the world: real ones, and peers that follow a script."""

import os
import shutil
import socket
import struct
import threading

from harness import (HERE, PYTHON, TIMEOUT, WORLD4, WORLD6, Daemon, listening,
                     sh)

HELLO = "Hello from outside.\n"

# One process, and no change of user: a user namespace has none to change to.
NGINX_CONF = """
user root root;
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {v4}:{port} backlog=1024;
        listen [{v6}]:{port} backlog=1024;
        root {dir}/www;
    }}
}}
"""


class Nginx(Daemon):
    """Static files on WORLD4 and WORLD6: /hello, and /project.git to clone."""

    def __init__(self, world):
        self.port = world.port()
        directory = world.dir("nginx")
        os.mkdir(directory + "/www")
        with open(directory + "/www/hello", "w", encoding="utf-8") as page:
            page.write(HELLO)
        make_repository(directory + "/www/project.git", world)
        with open(directory + "/nginx.conf", "w", encoding="utf-8") as conf:
            conf.write(NGINX_CONF.format(
                dir=directory, v4=WORLD4, v6=WORLD6, port=self.port))
        super().__init__(
            "world-nginx", ["nginx", "-c", directory + "/nginx.conf",
                            "-p", directory], world.tmp)
        self.wait_ready(lambda: listening(WORLD4, self.port) and
                        listening(WORLD6, self.port))

    def url(self, path="/hello", host=WORLD4):
        return "http://%s:%d%s" % (bracket(host), self.port, path)


def bracket(host):
    return "[%s]" % host if ":" in host else host


def make_repository(path, world):
    """A bare repository that any static web server can serve."""
    work = world.dir("work")
    git = ("git -C %s -c user.name=t -c user.email=t@example.org "
           "-c init.defaultBranch=main" % work)
    sh("""
        %s init -q
        printf 'readme\\n' >%s/README
        %s add README
        %s commit -q -m first
        git clone -q --bare %s %s
        git -C %s update-server-info
    """ % (git, work, git, git, work, path, path))
    shutil.rmtree(work)


class Web(Daemon):
    """webserver.py, see there."""

    def __init__(self, world, host=WORLD4):
        self.host = host
        self.port = world.port()
        super().__init__(
            "world-web", [PYTHON, "-B", HERE + "/webserver.py", host, self.port],
            world.tmp)
        self.wait_ready(lambda: listening(host, self.port))

    def url(self, path):
        return "http://%s:%d%s" % (bracket(self.host), self.port, path)


class Peer:
    """A TCP server that runs a function for each connection, in a thread.

    with Peer(lambda conn: conn.sendall(b"x")) as peer: ... peer.port

    The function gets the connection, which is closed after it; what it raises
    fails the test at the end of the with block, unless it is a reset and these
    are part of the test (resets).
    """

    def __init__(self, script, host=WORLD4, backlog=1024, resets=False):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.host = host
        self.script = script
        self.forgiven = (ConnectionResetError, BrokenPipeError) if resets else ()
        self.errors = []
        self.peers = []  # addresses of the connections
        self.conns = []
        self.listener = socket.socket(family)
        self.listener.bind((host, 0))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, value, trace):
        # shutdown wakes the accept, close does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(TIMEOUT)
        self.listener.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def _accept(self):
        while True:
            try:
                conn, address = self.listener.accept()
            except OSError:
                return
            self.peers.append(address)
            conn.settimeout(TIMEOUT)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            with conn:
                self.script(conn)
        except self.forgiven:
            pass
        except Exception as error:
            self.errors.append(error)


def echo(conn):
    """Send back what comes, then EOF for EOF."""
    while True:
        piece = conn.recv(65536)
        if not piece:
            return
        conn.sendall(piece)


def read_to_eof(conn):
    out = []
    while True:
        piece = conn.recv(1 << 20)
        if not piece:
            return b"".join(out)
        out.append(piece)


def reset(conn):
    """Close so that the other side gets a reset."""
    conn.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def closed_port(host=WORLD4):
    """A port where nobody listens, and where nobody will for the while: it
    stays bound, without listen(). Returns (socket to keep, port)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.bind((host, 0))
    return sock, sock.getsockname()[1]
