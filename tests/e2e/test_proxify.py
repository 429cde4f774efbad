# SPDX-License-Identifier: Apache-2.0
"""The launcher: its exit statuses, what it refuses and why, and that nothing of
it is left behind in the program it becomes."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from harness import PYTHON, TIMEOUT, run, text
from servers import HELLO


def one_line(result, *parts):
    """One line on stderr, with each of the parts in it."""
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    for part in parts:
        assert str(part) in lines[0], (part, lines[0])


@pytest.mark.parametrize("code", [0, 1, 2, 77, 125, 126, 127, 128, 255])
def test_exit_status_is_the_programs(enclave, code):
    result = enclave.run(["sh", "-c", "exit %d" % code])
    assert (result.rc, result.out, result.err) == (code, "", "")


def test_death_by_signal_is_the_programs(enclave):
    result = enclave.run(["sh", "-c", "kill -KILL $$"])
    assert result.rc == 128 + signal.SIGKILL


def test_arguments_and_stdin_pass_through(enclave):
    result = enclave.run(["printf", "<%s>", "a b", "", "--help", "-x"]).ok()
    assert result.out == "<a b><><--help><-x>"
    assert enclave.run(["cat"], stdin=b"through").ok().out == "through"


def test_options_end_at_the_program(enclave):
    for argv in (["printf", "%s", "--version"], ["--", "printf", "%s", "--version"]):
        assert enclave.run(argv).ok().out == "--version"


def test_help_and_version(enclave):
    text_ = enclave.run(["--help"]).ok().out
    for word in ("--endpoint", "PROXY_ENDPOINT", "127"):
        assert word in text_
    assert re.fullmatch(r"proxify \d+\.\d+\.\d+\n",
                        enclave.run(["--version"]).ok().out)


def test_not_found_is_127(enclave):
    for name in ("no-such-program", "/no/such/program", "./relative"):
        # a PATH with a folder that may not be searched would be 126
        result = enclave.run([name], env={"PATH": "/usr/bin:/bin"})
        assert result.rc == 127
        one_line(result, name, "not found")


def test_not_executable_is_126(enclave):
    path = enclave.tmp + "/data"
    with open(path, "w", encoding="utf-8") as file:
        file.write("no program")
    result = enclave.run([path])
    assert result.rc == 126
    one_line(result, path, "Permission denied")
    assert enclave.run([enclave.tmp]).rc == 126


def test_missing_interpreter_is_127(enclave):
    """The line names what is missing, not the script, which is there."""
    path = enclave.tmp + "/orphan"
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/no/such/interpreter\n")
    os.chmod(path, 0o755)
    result = enclave.run([path])
    assert result.rc == 127
    one_line(result, path, "/no/such/interpreter", "not found")


@pytest.mark.parametrize("option", ["--no-such-option", "--endpoint"])
def test_bad_option_is_125(enclave, option):
    result = enclave.run([option])
    assert result.rc == 125
    assert option in result.err


def test_bad_user_is_125(enclave):
    """Also where a vendor is running, which will not be told."""
    enclave.run(["true"]).ok()
    result = enclave.run(["echo", "ran"], options=["--allow-uid", "no-such-user"])
    assert (result.rc, result.out) == (125, "")
    one_line(result, "--allow-uid", "no-such-user", "expected a uid")
    enclave.run(["true"], options=["--allow-uid=root", "--allow-uid", "any"]).ok()


def test_no_program_is_125(enclave):
    assert enclave.run([]).rc == 125


@pytest.mark.parametrize("name, value, expected", [
    ("PROXY_ENDPOINT", "carrier-pigeon:1", "expected"),
    ("PROXY_ENDPOINT", "unix:relative", "expected"),
    ("PROXY_ENDPOINT", "tcp:10.0.0.1:70000", "expected"),
    ("PROXY_ENDPOINT", "", "expected"),
    ("PROXY_BYPASS", "10.0.0.0/33", "expected"),
    ("PROXY_LOOPBACK", "maybe", "local or host"),
    ("PROXY_LOG", "loud", "error, warn, info or debug"),
    ("SOCKET_VENDOR_PATH", "relative", "absolute"),
    ("SOCKET_VENDOR_PATH", "/" + "x" * 200, "107"),
])
def test_bad_variable_is_125(enclave, name, value, expected):
    """The line names the variable, the value, and what was expected."""
    result = enclave.run(["echo", "ran"], env={name: value})
    assert (result.rc, result.out) == (125, "")
    one_line(result, name, value, expected)


@pytest.mark.parametrize("name", ["PROXY_PARENT_CID", "PROXY_PARENT_PORT"])
def test_bad_number_is_125(enclave, name):
    result = enclave.run(["echo", "ran"], env={name: "3x", "PROXY_ENDPOINT": None})
    assert (result.rc, result.out) == (125, "")
    one_line(result, name, "3x", "expected")


@pytest.mark.parametrize("name", ["libproxy_preload.so", "socket_vendor"])
def test_missing_sibling_is_125(world, enclave, name):
    folder = world.dir("incomplete")
    for file in os.listdir(world.bin):
        if file != name:
            shutil.copy2(world.bin + "/" + file, folder)
    result = run([folder + "/proxify", "echo", "ran"], prefix=enclave.prefix(),
                 env=enclave.environ({"SOCKET_VENDOR_PATH":
                                      enclave.tmp + "/other/v.sock"}, False))
    assert (result.rc, result.out) == (125, "")
    one_line(result, name)


@pytest.fixture(scope="module")
def static_program(world):
    source = world.tmp + "/static.c"
    with open(source, "w", encoding="utf-8") as file:
        file.write("int main(void) { return 0; }\n")
    run(["cc", "-static", "-o", world.tmp + "/static", source]).ok()
    return world.tmp + "/static"


def test_static_program_is_refused(enclave, static_program):
    result = enclave.run([static_program])
    assert result.rc == 126
    one_line(result, static_program, "static")


def test_static_program_by_force(enclave, static_program):
    enclave.run([static_program], options=["--force"]).ok()


def test_setuid_program_is_refused(world, enclave):
    path = world.tmp + "/setuid"
    shutil.copy("/bin/true", path)
    os.chmod(path, 0o4755)
    result = enclave.run([path])
    if result.rc == 0:
        # Setuid to the caller's own uid changes nothing, so ld.so preloads.
        assert os.stat(path).st_uid == os.geteuid()
    else:
        assert result.rc == 126
        one_line(result, path, "set")


def test_script_of_a_static_interpreter_is_refused(world, enclave, static_program):
    path = world.tmp + "/script"
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!%s\n" % static_program)
    os.chmod(path, 0o755)
    result = enclave.run([path])
    assert result.rc == 126
    one_line(result, path, "static")


def test_script_is_followed(world, enclave, nginx):
    path = world.tmp + "/fetch.sh"
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/usr/bin/env sh\nexec curl -sS %s\n" % nginx.url())
    os.chmod(path, 0o755)
    assert enclave.run([path]).ok().out == HELLO


def test_substitution_ends(new_site):
    """x=$(proxify cmd), with a vendor to start: a daemon that keeps the caller's
    stdout would keep the shell waiting for ever."""
    site = new_site()
    script = "x=$(%s/proxify echo done); echo \"<$x>\"" % site.world.bin
    result = site.enclave.plain(["sh", "-c", script]).ok()
    assert result.out == "<done>\n"
    assert site.enclave.processes("socket_vendor")


def test_vendor_lets_go_of_its_starter(new_site):
    """No inherited fd, no cwd, no stdio of who happened to start it."""
    site = new_site()
    site.run(["true"]).ok()
    for pid in site.enclave.processes("socket_vendor"):
        assert os.readlink("/proc/%d/cwd" % pid) == "/"
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            except FileNotFoundError:
                continue
            assert not target.startswith("pipe:") or int(fd) > 2, (fd, target)


def test_application_has_no_extra_fds(enclave):
    """proxify and the library leave no fd in the program."""
    argv = [PYTHON, "-c", "import os; print(os.listdir('/proc/self/fd'))"]
    plain = enclave.plain(argv).ok().out
    assert enclave.run(argv).ok().out == plain


def test_no_output_of_its_own(enclave, nginx):
    """Not a byte on stdout or stderr that the program did not write."""
    result = enclave.run(["curl", "-sS", nginx.url()],
                         env={"PROXY_LOG": "debug"}).ok()
    assert result.out == HELLO
    result = enclave.run(["curl", "-sS", nginx.url()]).ok()
    assert (result.out, result.err) == (HELLO, "")


def test_earlier_preload_is_kept(enclave):
    """LD_PRELOAD of the user comes after ours, and is not lost."""
    argv = ["sh", "-c", "echo $LD_PRELOAD"]
    first = enclave.run(argv, env={"LD_PRELOAD": None}).ok().out.strip()
    assert first.endswith("/libproxy_preload.so")
    libm = run(["sh", "-c", "ls /lib/*/libm.so.6 | head -n 1"]).ok().out.strip()
    both = enclave.run(argv, env={"LD_PRELOAD": libm}).ok().out.strip()
    assert re.split("[: ]", both)[0] == first
    assert libm in both
    # a proxify within proxify does not pile up
    again = enclave.run(
        ["sh", "-c", "%s/proxify sh -c 'echo $LD_PRELOAD'" % enclave.world.bin],
        env={"LD_PRELOAD": None}).ok().out.strip()
    assert again == first


def test_loopback_is_brought_up(new_site):
    site = new_site()
    before = site.enclave.plain(["ip", "-o", "link", "show", "lo"]).ok().out
    assert "state DOWN" in before
    after = site.run(["ip", "-o", "link", "show", "lo"]).ok().out
    assert ",UP" in after


def test_signals_reach_the_program(enclave):
    source = ("import signal, sys, time\n"
              "signal.signal(signal.SIGTERM, lambda *a: sys.exit(42))\n"
              "print('ready', flush=True)\n"
              "while True: signal.pause()\n")
    proc = enclave.popen([PYTHON, "-c", source], stdout=subprocess.PIPE)
    assert proc.stdout.readline() == b"ready\n"
    os.killpg(proc.pid, signal.SIGTERM)
    assert proc.wait(TIMEOUT) in (42, -signal.SIGTERM)
    proc.stdout.close()


def test_host_proxy_missing(new_site):
    """Nobody behind the endpoint: at once an error, and one line that says so."""
    site = new_site(start=False)
    result = site.run(["curl", "-sS", "--max-time", "20", "http://10.77.0.1:80/"])
    assert result.rc == 7
    assert result.seconds < 5
    mine = [line for line in result.err.splitlines() if "curl:" not in line]
    assert len(mine) == 1, result.err
    assert site.enclave.endpoint in mine[0]


def test_host_proxy_comes_later(new_site, nginx):
    """The vendor that was started without a host proxy finds it when it is up."""
    site = new_site(start=False)
    assert site.run(["curl", "-sS", nginx.url()]).rc == 7
    site.start_proxy()
    assert site.run(["curl", "-sS", nginx.url()]).ok().out == HELLO


def test_host_proxy_restarts(new_site, nginx):
    site = new_site()
    assert site.run(["curl", "-sS", nginx.url()]).ok().out == HELLO
    site.proxy.kill()
    assert site.run(["curl", "-sS", nginx.url()]).rc == 7
    site.start_proxy()
    assert site.run(["curl", "-sS", nginx.url()]).ok().out == HELLO


def test_host_proxy_dies_under_a_stream(new_site):
    """The program learns it; it does not hang."""
    from servers import Peer, echo
    site = new_site()
    source = ("import socket, sys\n"
              "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n"
              "s.sendall(b'x'); s.recv(1)\n"
              "print('ready', flush=True)\n"
              "try: print('got', s.recv(1))\n"
              "except OSError as e: print(type(e).__name__)\n")
    with Peer(echo, resets=True) as peer:
        proc = site.enclave.popen(
            [PYTHON, "-c", source, peer.host, peer.port], stdout=subprocess.PIPE)
        assert proc.stdout.readline() == b"ready\n"
        site.proxy.kill()
        assert text(proc.stdout.readline()) in (
            "got b''\n", "ConnectionResetError\n")
        assert proc.wait(TIMEOUT) == 0
        proc.stdout.close()


