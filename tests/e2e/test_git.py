# SPDX-License-Identifier: Apache-2.0
"""git clones over http:// and git://; a fork and exec of helpers is part of it."""

import shutil

import pytest

from harness import WORLD4, WORLD6, Daemon, listening
from servers import make_repository


@pytest.fixture
def target(enclave):
    path = enclave.tmp + "/clone"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def readme(path):
    with open(path + "/README", encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("host", [WORLD4, WORLD6])
def test_clone_http(enclave, nginx, target, host):
    url = nginx.url("/project.git", host)
    enclave.run(["git", "clone", "-q", url, target]).ok()
    assert readme(target) == "readme\n"


def test_clone_without_proxify_fails(enclave, nginx, target):
    result = enclave.plain(["git", "clone", "-q", nginx.url("/project.git"), target])
    assert result.rc == 128


@pytest.fixture(scope="module")
def git_daemon(world):
    base = world.dir("git")
    make_repository(base + "/project.git", world)
    port = world.port()
    daemon = Daemon("world-git", [
        "git", "daemon", "--export-all", "--base-path=" + base,
        "--listen=" + WORLD4, "--port=%d" % port, "--reuseaddr"], world.tmp,
        # the repository may belong to another user of the user namespace
        env={"HOME": base, "PATH": "/usr/bin:/bin", "GIT_CONFIG_COUNT": "1",
             "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"})
    daemon.wait_ready(lambda: listening(WORLD4, port))
    yield "git://%s:%d/project.git" % (WORLD4, port)
    daemon.kill()


def test_clone_git(enclave, git_daemon, target):
    enclave.run(["git", "clone", "-q", git_daemon, target]).ok()
    assert readme(target) == "readme\n"
