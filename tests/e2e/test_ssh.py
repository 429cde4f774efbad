# SPDX-License-Identifier: Apache-2.0
"""ssh and rsync: long-lived streams of programs that play with their fds."""

import os

import pytest

import content
from harness import WORLD4, Daemon, listening, run, sh

SSHD_CONFIG = """
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/user_key.pub
PidFile {dir}/sshd.pid
ListenAddress {host}:{port}
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
"""


@pytest.fixture(scope="module")
def user_prefix(world):
    """How to start a server as an ordinary user. An sshd or rsyncd that thinks
    it is root wants to change to another user, of which a user namespace has
    none; so here it is another user, "tester", of a namespace of its own."""
    home = world.dir("home")
    passwd = world.tmp + "/passwd"
    with open(passwd, "w", encoding="utf-8") as file:
        file.write("root:x:0:0::/root:/bin/sh\n"
                   "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
                   "tester:x:1000:1000::%s:/bin/sh\n" % home)
    return ["unshare", "--mount", "sh", "-ec",
            "mount --bind %s /etc/passwd; "
            "exec unshare --user --map-user=1000 --map-group=1000 \"$@\"" % passwd,
            "sh"]


@pytest.fixture(scope="module")
def sshd(world, user_prefix):
    """(port, the client's key)"""
    directory = world.dir("sshd")
    for name in "host_key", "user_key":
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
             directory + "/" + name]).ok()
    port = world.port()
    with open(directory + "/config", "w", encoding="utf-8") as config:
        config.write(SSHD_CONFIG.format(dir=directory, host=WORLD4, port=port))
    path = run(["sh", "-c", "command -v sshd"]).ok().out.strip()
    daemon = Daemon("world-sshd", [path, "-D", "-e", "-f", directory + "/config"],
                    world.tmp, prefix=user_prefix)
    daemon.wait_ready(lambda: listening(WORLD4, port))
    yield port, directory + "/user_key"
    daemon.kill()


def ssh(sshd):
    return ["ssh", "-F", "none", "-i", sshd[1], "-p", str(sshd[0]),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]


def test_ssh(enclave, sshd):
    argv = ssh(sshd) + ["tester@" + WORLD4, "echo over ssh; cat; exit 7"]
    got = enclave.run(argv, stdin=b"and back\n")
    assert (got.rc, got.out) == (7, "over ssh\nand back\n")


def test_ssh_carries_a_file(enclave, sshd):
    size = 5 << 20
    argv = ssh(sshd) + ["tester@" + WORLD4, "sha256sum"]
    got = enclave.run(argv, stdin=content.data(size)).ok()
    assert got.out.split()[0] == content.sha256(size)


@pytest.fixture(scope="module")
def rsyncd(world, user_prefix):
    directory = world.dir("rsync")
    port = world.port()
    os.makedirs(directory + "/files/deep")
    os.chmod(directory + "/files", 0o777)
    for n in range(100):
        with open("%s/files/deep/%d" % (directory, n), "wb") as file:
            file.write(content.data(n * 1000))
    with open(directory + "/config", "w", encoding="utf-8") as config:
        config.write("use chroot = no\nport = %d\naddress = %s\n"
                     "[files]\npath = %s/files\n" % (port, WORLD4, directory))
    daemon = Daemon("world-rsync", ["rsync", "--daemon", "--no-detach", "--config",
                                    directory + "/config"], world.tmp,
                    prefix=user_prefix)
    daemon.wait_ready(lambda: listening(WORLD4, port))
    yield "rsync://%s:%d/files/" % (WORLD4, port), directory + "/files"
    daemon.kill()


def test_rsync(enclave, rsyncd):
    url, original = rsyncd
    copy = enclave.tmp + "/copy"
    enclave.run(["rsync", "-rt", "--timeout=20", url, copy]).ok()
    sh("diff -r %s %s" % (original, copy))
