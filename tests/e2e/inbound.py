# SPDX-License-Identifier: Apache-2.0
"""Servers inside the enclave, unmodified, and how to ask each of them.

Each maker gets the Inside and returns the argv to run through proxify; the
server listens on inside.port. SERVERS maps a name to (maker, asker); the asker
is given the Inside and a host address, and fails unless the server answered.
"""

import os
import shutil
import socket
import subprocess

from harness import (HERE, PATIENCE, PYTHON, SLOWNESS, TIMEOUT, WORLD4,
                     in_user_namespace, run, say, until)
from servers import HELLO, bracket

PROGRAMS = HERE + "/programs/"

NGINX_CONF = """
daemon off;
worker_processes 2;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log info;
events {{ worker_connections 2048; }}
http {{
    access_log {dir}/access.log;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {port}{how};
        listen [::]:{port}{how};
        location / {{ return 200 "$remote_addr\\n"; }}
    }}
}}
"""


class Inside:
    """A server in the enclave: started with proxify, reached from the world."""

    def __init__(self, site, name, built, port=None):
        self.site = site
        self.name = name
        self.built = built
        self.port = port or site.world.port()
        self.dir = site.world.dir(name)
        self.log = open(self.dir + "/log", "w+b")
        self.proc = None

    def launch(self, env=None):
        """Start it, and do not wait."""
        argv = SERVERS[self.name][0](self)
        self.proc = self.site.enclave.popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)
        return self

    def wait_ready(self):
        until(self._ready, "%s serves on port %d" % (self.name, self.port))
        return self

    def start(self, env=None):
        return self.launch(env).wait_ready()

    def _ready(self):
        if self.proc.poll() is not None:
            raise AssertionError("%s ended with %d: %s" % (
                self.name, self.proc.returncode, self.output()))
        return reachable(WORLD4, self.port)

    def output(self):
        with open(self.dir + "/log", encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def ask(self, host=WORLD4):
        SERVERS[self.name][1](self, host)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind:
            say("--- %s\n%s" % (self.name, self.output()))
        self.stop()

    def stop(self):
        """End the server and all its processes, by force: what they had must
        be given back without their help."""
        if self.proc and self.proc.poll() is None:
            os.killpg(self.proc.pid, 9)
            self.proc.wait(TIMEOUT)
        self.log.close()


def reachable(host, port):
    """Does somebody serve there? Through the proxy a connection may succeed
    and then be reset: only one that stays counts."""
    try:
        with socket.create_connection((host, port), timeout=2 * SLOWNESS):
            return True
    except OSError:
        return False


def asks(server):
    return run(["curl", "-sS", "-m", 2 * SLOWNESS, "-o", "/dev/null",
                "http://%s:%d/" % (WORLD4, server.port)]).rc == 0


# ---- how to start them ----


def nginx(inside, how=""):
    conf = inside.dir + "/nginx.conf"
    with open(conf, "w", encoding="utf-8") as file:
        file.write(NGINX_CONF.format(dir=inside.dir, port=inside.port, how=how))
    return ["nginx", "-c", conf, "-p", inside.dir]


def nginx_reuseport(inside):
    return nginx(inside, " reuseport")


def redis(inside):
    return ["redis-server", "--port", inside.port, "--bind", "0.0.0.0", "::",
            "--protected-mode", "no", "--save", "", "--dir", inside.dir]


def newest_postgres():
    base = "/usr/lib/postgresql"
    return "%s/%s/bin/" % (base, max(os.listdir(base), key=float))


# PostgreSQL will not run as root; in a user namespace of its own root is
# somebody else, and to the vendor it is still who it was. It wants a user that has
# a name: Debian's "daemon", who is there on every machine.
AS_SOMEBODY = ["unshare", "--user", "--map-user=1", "--map-group=1", "--"]


def postgres(inside):
    data = inside.dir + "/data"
    inside.site.enclave.plain(
        AS_SOMEBODY + [newest_postgres() + "initdb", "-D", data, "-U", "tester",
                       "-A", "trust", "--no-sync"], timeout=4 * TIMEOUT).ok()
    with open(data + "/pg_hba.conf", "a", encoding="utf-8") as hba:
        hba.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    return AS_SOMEBODY + [newest_postgres() + "postgres", "-D", data, "-p",
                          inside.port, "-c", "listen_addresses=*",
                          "-c", "log_connections=on", "-c", "fsync=off",
                          "-c", "unix_socket_directories="]


def memcached(inside):
    return ["memcached", "-u", "root", "-p", inside.port, "-U", "0"]


def gunicorn(inside):
    with open(inside.dir + "/app.py", "w", encoding="ascii") as file:
        file.write("def app(env, start):\n"
                   "    start('200 OK', [])\n"
                   "    return [env['REMOTE_ADDR'].encode() + b'\\n']\n")
    return ["gunicorn", "--workers", 2, "--chdir", inside.dir, "--bind",
            "[::]:%d" % inside.port, "app:app"]


def http_server(inside):
    with open(inside.dir + "/hello", "w", encoding="ascii") as page:
        page.write(HELLO)
    return [PYTHON, "-m", "http.server", inside.port, "--directory", inside.dir]


def busybox(inside):
    http_server(inside)
    return ["busybox", "httpd", "-f", "-p", inside.port, "-h", inside.dir]


def sshd(inside):
    key = inside.dir + "/hostkey"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]).ok()
    mine = inside.dir + "/id"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", mine]).ok()
    shutil.copy(mine + ".pub", inside.dir + "/authorized")
    conf = inside.dir + "/sshd_config"
    with open(conf, "w", encoding="ascii") as file:
        file.write("HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\n"
                   "PidFile none\nUsePAM no\nPermitRootLogin yes\n" % (
                       key, inside.dir + "/authorized"))
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", conf, "-p", inside.port]
    if in_user_namespace():
        return as_tester(inside) + argv
    os.makedirs("/run/sshd", exist_ok=True)
    return argv


def as_tester(inside):
    """For a server that, as root, wants to change to another user: it is one
    from the start, of a user namespace of its own."""
    passwd = inside.dir + "/passwd"
    with open(passwd, "w", encoding="ascii") as file:
        file.write("root:x:0:0::/root:/bin/sh\n"
                   "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
                   "tester:x:1000:1000::%s:/bin/sh\n" % inside.dir)
    return ["unshare", "--mount", "sh", "-ec",
            "mount --bind \"$0\" /etc/passwd; "
            "exec unshare --user --map-user=1000 --map-group=1000 \"$@\"", passwd]


def socat(inside):
    script = inside.dir + "/answer"
    with open(script, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nread line\n"
                   "printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'\n"
                   "echo $SOCAT_PEERADDR\n")
    os.chmod(script, 0o755)
    return ["socat", "TCP-LISTEN:%d,fork,reuseaddr,backlog=128" % inside.port,
            "EXEC:" + script]


def python_tls(inside):
    cert = inside.dir + "/cert.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=enclave",
         "-keyout", cert, "-out", cert + ".tmp"]).ok()
    with open(cert, "a", encoding="ascii") as key, open(cert + ".tmp") as public:
        key.write(public.read())
    return [PYTHON, PROGRAMS + "serve.py", "tls", inside.port, cert]


def program(*argv):
    """One of tests/e2e/programs, compiled or not."""
    def maker(inside):
        return [a.format(built=inside.built, port=inside.port) for a in argv]
    return maker


# ---- how to ask them ----


def says_address(inside, host, scheme="http"):
    """An HTTP server that tells its client's address, which is the one that the
    client had: the world talks to itself from the address it talks to."""
    got = inside.site.world.run(["curl", "-sSk", "-m", PATIENCE, "%s://%s:%d/" % (
        scheme, bracket(host), inside.port)]).ok().out.strip()
    assert got.replace("::ffff:", "") in (host, expand(host)), (got, host)


def expand(host):
    """fd77::1 as Java writes it."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host)
    return ":".join("%x" % int.from_bytes(packed[i:i + 2], "big")
                    for i in range(0, 16, 2))


def serves_hello(inside, host):
    got = inside.site.world.run(
        ["curl", "-sS", "-m", PATIENCE, "http://%s:%d/hello" % (
            bracket(host), inside.port)]).ok().out
    assert got == HELLO


def redis_ping(inside, host):
    got = inside.site.world.run(["redis-cli", "-h", host, "-p", inside.port,
                                 "ping"]).ok().out
    assert got == "PONG\n"
    clients = inside.site.world.run(["redis-cli", "-h", host, "-p", inside.port,
                                     "client", "list"]).ok().out
    assert "addr=%s:" % bracket(host) in clients, clients


def psql(inside, host):
    """It listens while it is still starting up, and says so."""
    argv = ["psql", "-h", host, "-p", inside.port, "-U", "tester", "-d", "postgres",
            "-Atc", "select host(inet_client_addr())"]
    until(lambda: "starting up" not in inside.site.world.run(argv).err,
          "PostgreSQL has started")
    assert inside.site.world.run(argv).ok().out.strip() == host


def memcached_stats(inside, host):
    with socket.create_connection((host, inside.port), TIMEOUT) as conn:
        conn.sendall(b"set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n")
        answer = b""
        while piece := conn.recv(4096):
            answer += piece
    assert answer == b"STORED\r\nVALUE k 0 5\r\nhello\r\nEND\r\n", answer


def ssh(inside, host):
    got = inside.site.world.run(
        ["ssh", "-F", "none", "-i", inside.dir + "/id", "-p", inside.port,
         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
         "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
         ("tester@" if in_user_namespace() else "root@") + host,
         "echo ${SSH_CLIENT%% *}"]).ok().out.strip()
    assert got == host, (got, host)


def says_address_tls(inside, host):
    says_address(inside, host, "https")


V4_ONLY = {"python-http.server", "python-threading", "python-tls", "socat"}

SERVERS = {
    "nginx": (nginx, says_address),
    "nginx-reuseport": (nginx_reuseport, says_address),
    "redis": (redis, redis_ping),
    "postgres": (postgres, psql),
    "memcached": (memcached, memcached_stats),
    "python-http.server": (http_server, serves_hello),
    "python-threading": (
        program(PYTHON, PROGRAMS + "serve.py", "threading", "{port}"),
        says_address),
    "python-asyncio": (
        program(PYTHON, PROGRAMS + "serve.py", "asyncio", "{port}"),
        says_address),
    "python-tls": (python_tls, says_address_tls),
    "gunicorn": (gunicorn, says_address),
    "node-http": (
        program("node", PROGRAMS + "serve.js", "http", "{port}"), says_address),
    "node-cluster": (
        program("node", PROGRAMS + "serve.js", "cluster", "{port}"),
        says_address),
    "java-socket": (
        program("java", "-cp", "{built}", "Serve", "socket", "{port}"),
        says_address),
    "java-nio": (
        program("java", "-cp", "{built}", "Serve", "nio", "{port}"), says_address),
    "java-http": (
        program("java", "-cp", "{built}", "Serve", "http", "{port}"),
        says_address),
    "rust": (program("{built}/serve", "{port}"), says_address),
    "sshd": (sshd, ssh),
    "socat": (socat, says_address),
    "busybox-httpd": (busybox, serves_hello),
}
