# SPDX-License-Identifier: Apache-2.0
"""How the suites of tools/check build, run and count.

A suite writes everything it does to build-check/logs/SUITE.log, and says how many
cases passed and failed. A test that was skipped counts as failed: everything that
the tests need is installed before, so a skip is a test that silently stopped
testing.

Many tests are about deadlines, on a machine that may be busy with something else.
So what fails is run once more by itself, if it is not much: what fails again has
failed, and what passes then is named as unsteady in the output.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.environ.get("CHECK_DIR", os.path.join(ROOT, "build-check"))
PYTHON = "/usr/bin/python3"
JOBS = str(os.cpu_count() or 2)

# Analysers look at these; programs for the tests are held to the same rules.
C_GLOBS = ["*.c", "*.h"]


CARRIERS = ["unix", "tcp", "vsock"]


# Where a run in the virtual machine leaves its results, as it sees it.
VM_XML = "/out/results.xml"


class Failed(Exception):
    """A suite that could not even count its cases."""


class Log:
    """The log of one suite, and the programs that write to it."""

    def __init__(self, name, gives_way=False):
        self.name = name
        self.nice = ["nice", "-n", "10"] if gives_way else []
        # in front of every program: what runs it in another Debian
        self.inside = []
        os.makedirs(os.path.join(OUT, "logs"), exist_ok=True)
        self.path = os.path.join(OUT, "logs", name + ".log")
        # passed cases that took the carrier as a parameter, by carrier
        self.carriers = dict.fromkeys(CARRIERS, 0)
        with open(self.path, "w", encoding="utf-8"):
            pass

    def say(self, text):
        """A line on the terminal, which the lanes share."""
        sys.stdout.write("%-10s %s\n" % (self.name, text))
        sys.stdout.flush()

    def count_carrier(self, case):
        """Note over which carrier a case ran, see tests/e2e/conftest.py."""
        for item in case.iter("property"):
            if item.get("name") == "carrier":
                self.carriers[item.get("value")] += 1

    def run(self, argv, env=None, check=True, timeout=1500):
        """Run a program into the log; return its exit status and output."""
        with open(self.path, "a", encoding="utf-8") as log:
            log.write("$ %s\n" % " ".join(argv))
            log.flush()
            start = log.tell()
            done = subprocess.run(
                self.nice + self.inside + argv, cwd=ROOT, env=dict(os.environ, **(env or {})),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                timeout=timeout, check=False)
        with open(self.path, "rb") as log:
            log.seek(start)
            text = log.read().decode("utf-8", "replace")
        if check and done.returncode:
            raise Failed("%s: exit %d" % (" ".join(argv[:3]), done.returncode))
        return done.returncode, text

    def tail(self, lines=60):
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])


def sources(*globs):
    out = subprocess.run(["git", "ls-files", "--"] + list(globs or C_GLOBS),
                         cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(out.stdout.split())


# ---- builds ----

BUILDS = {
    "gcc": ({}, []),
    "clang": ({"CC": "clang"}, ["-Dfuzz=true", "-Db_lundef=false"]),
    "asan": ({}, ["-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "ubsan": ({}, ["-Db_sanitize=undefined", "-Db_lundef=false"]),
    "tsan": ({}, ["-Db_sanitize=thread", "-Db_lundef=false"]),
}


def build_dir(name):
    return os.path.join(OUT, name)


ready = set()  # what is built and up to date


def build(log, name):
    """Configure and build, warnings being errors. Return the directory. A name
    that is none of BUILDS is gcc's, of another Debian."""
    env, options = BUILDS.get(name, BUILDS["gcc"])
    path = build_dir(name)
    if name in ready:
        return path
    if not os.path.exists(path + "/build.ninja"):
        # what is undefined must not go on as if nothing had been
        if "san" in name:
            env = dict(env, CFLAGS="-fno-sanitize-recover=all "
                                   "-fno-omit-frame-pointer")
        log.run(["meson", "setup", path, "--werror"] + options, env=env)
    log.run(["ninja", "-C", path])
    ready.add(name)
    return path


# More failures than this are not run again.
SECOND_CHANCES = 12


# ---- unit tests ----


def meson_tests(log, path, suite, env=None, timeout_factor=1, names=()):
    """Run a meson suite; return how many of its programs passed and failed."""
    log.run(["meson", "test", "-C", path, "--no-rebuild", "--suite", suite,
             "--print-errorlogs", "--num-processes", "1" if names else JOBS, "--timeout-multiplier",
             str(timeout_factor), *names],
            env=dict({"CK_TIMEOUT_MULTIPLIER": str(timeout_factor)}, **(env or {})),
            check=False)
    with open(path + "/meson-logs/testlog.txt", encoding="utf-8",
              errors="replace") as testlog:
        text = testlog.read()
    sums = {key: int(value) for key, value in
            re.findall(r"^(Ok|Expected Fail|Fail|Unexpected Pass|Skipped|Timeout):"
                       r"\s+(\d+)", text, re.M)}
    bad = sum(n for key, n in sums.items() if key not in ("Ok", "Expected Fail"))
    return sums.get("Ok", 0), bad, text


def failed_programs(path):
    """Names of the programs that failed in the last meson test."""
    with open(path + "/meson-logs/testlog.json", encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    return [r["name"].split(" / ")[-1].split(":")[-1] for r in results
            if r["result"] not in ("OK", "EXPECTEDFAIL")]


def unit(log, path, env=None, timeout_factor=1):
    """The unit tests of a build, counted by check's own cases."""
    passed, failed = unit_run(log, path, env, timeout_factor)
    names = failed_programs(path)
    if not failed or len(names) > SECOND_CHANCES:
        return passed, failed
    again, still = unit_run(log, path, env, timeout_factor, names)
    if still:
        return passed, still
    log.say("unsteady, passed the second time: " + ", ".join(names))
    return max(passed + failed, again), 0


def unit_run(log, path, env, timeout_factor, names=()):
    _, bad, text = meson_tests(log, path, "unit", env, timeout_factor, names)
    passed = failed = 0
    for checks, failures, errors in re.findall(
            r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", text):
        failed += int(failures) + int(errors)
        passed += int(checks) - int(failures) - int(errors)
    # a program that died before it could count is one failure
    return passed, max(failed, bad)


# ---- end-to-end tests ----


# A virtual machine takes all processors: one at a time.
one_machine = threading.Lock()


def pytest(log, name, build_path, options=(), env=None, machine=None):
    """tests/e2e against a build; each test is a case. With a machine, that is
    where they run: machine(argv, env, out) makes an argv and an environment of
    them, out being the directory here that is VM_XML's there."""
    passed, bad = pytest_run(log, name, build_path, options, env, machine)
    if not bad or len(bad) > SECOND_CHANCES:
        return passed, len(bad)
    options = [o for o in options if not o.startswith(("tests/", "--deselect"))]
    try:
        again, still = pytest_run(log, name + "-again", build_path, options + bad,
                                  env, machine)
    except Failed:
        return passed, len(bad)
    names = [n.rpartition("::")[2] for n in bad if n not in still]
    if names:
        log.say("unsteady, passed the second time: " + ", ".join(names))
    return passed + again, len(still)


def pytest_run(log, name, build_path, options, env, machine):
    """Return how many passed, and the names of those that did not."""
    xml = os.path.join(OUT, "logs", name + ".xml")
    vm_out = os.path.join(OUT, "vm-out", name)
    vm_xml = os.path.join(vm_out, os.path.basename(VM_XML))
    for old in (xml, vm_xml):
        if os.path.exists(old):
            os.unlink(old)
    env = dict({"BUILD": build_path}, **(env or {}))
    argv = aslr_wrap(env) + [
        PYTHON, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q",
        "--durations=10", "--tb=short", "-W", "error",
        "--junitxml=" + (VM_XML if machine else xml), *options]
    if not any(o.startswith("tests/") for o in options):
        argv.append("tests/e2e")
    if machine:
        argv, env = machine(argv, env, vm_out)
    with one_machine if machine else contextlib.nullcontext():
        log.run(argv, env=env, check=False, timeout=3000)
    if os.path.exists(vm_xml):
        shutil.move(vm_xml, xml)
    if not os.path.exists(xml):
        raise Failed("pytest did not get to its end")
    passed, bad = 0, []
    for case in ElementTree.parse(xml).iter("testcase"):
        if any(case.find(k) is not None for k in ("failure", "error", "skipped")):
            bad.append("%s.py::%s" % (case.get("classname").replace(".", "/"),
                                      case.get("name")))
        else:
            passed += 1
            log.count_carrier(case)
    if not passed + len(bad):
        raise Failed("pytest ran no test")
    return passed, list(dict.fromkeys(bad))


def aslr_wrap(env):
    """gcc 12's sanitizers need their shadow memory free, which kernels that
    randomise with more than 28 bits do not grant."""
    if not env or not any(key.endswith("SAN_OPTIONS") for key in env):
        return []
    try:
        with open("/proc/sys/vm/mmap_rnd_bits", encoding="ascii") as bits:
            return ["setarch", "-R"] if int(bits.read()) > 28 else []
    except OSError:
        return []


# ---- a program for each file ----


def each_file(log, files, command):
    """Run command(file) for every file, JOBS at a time; a case per file."""
    running, passed, failed = [], 0, 0
    with open(log.path, "a", encoding="utf-8") as out:
        for name in files + [None] * int(JOBS):
            if len(running) >= int(JOBS) or name is None:
                if running:
                    ok = running.pop(0).wait() == 0
                    passed += ok
                    failed += not ok
            if name is not None:
                running.append(subprocess.Popen(
                    log.nice + command(name), cwd=ROOT, stdin=subprocess.DEVNULL,
                    stdout=out, stderr=out))
    return passed, failed
