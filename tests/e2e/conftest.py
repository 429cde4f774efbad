# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the world, and an enclave with a host proxy over each carrier."""

import os
import resource
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import carrier as carriers
import compiled
import harness
import modes
import names
import servers

CARRIERS = ["unix", "tcp", "vsock"]


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true",
                     help="with the cases that take long (1 GB files)")
    parser.addoption("--carrier", action="append", choices=CARRIERS,
                     help="only these carriers (default: those that are here)")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes long, only with --full")
    config.addinivalue_line(
        "markers", "tcp_as_root(reason): not over tcp for an ordinary user")
    config.addinivalue_line("markers", "vsock: only where there is real vsock")
    config.addinivalue_line(
        "markers", "hooked_resolver: only where the libc's resolver can be hooked")
    config.addinivalue_line(
        "markers", "enclave: only with one to boot, see tests/vm/enclave")
    config.addinivalue_line(
        "markers", "no_asan(reason): AddressSanitizer's runtime breaks the program")
    if os.environ.get("E2E_SANDBOX"):
        # thousands of connections at once, some of them this process's
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture:
        capture.stop_global_capturing()
    harness.enter_sandbox()


def pytest_collection_modifyitems(config, items):
    """Leave out what was not asked for. Nothing is skipped: a skip would look
    like a test that ran."""
    keep, drop = [], []
    here = carriers.here()
    for item in items:
        wanted = config.getoption("--full") or not item.get_closest_marker("full")
        if item.get_closest_marker("vsock") and "vsock" not in here:
            wanted = False
        if item.get_closest_marker("hooked_resolver") and \
                harness.glibc() >= (2, 34):
            wanted = False
        if item.get_closest_marker("enclave") and "VM_ENCLAVE" not in os.environ:
            wanted = False
        if item.get_closest_marker("no_asan") and harness.PRELOAD_EXTRA:
            wanted = False
        if item.get_closest_marker("tcp_as_root") and \
                harness.in_user_namespace() and \
                item.callspec.params["carrier"] == "tcp":
            wanted = False
        (keep if wanted else drop).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def pytest_generate_tests(metafunc):
    marks = metafunc.definition.iter_markers("parametrize")
    if any(mark.args[0] == "carrier" for mark in marks):
        return
    if "carrier" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--carrier") or carriers.here()
        metafunc.parametrize("carrier", chosen, scope="module")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections.append(("transcript", "\n".join(harness.transcript)))
        report.sections.append(("daemons", harness.daemon_logs()))


@pytest.fixture(autouse=True)
def clean_slate(request):
    """Each test has its own transcript, and may not upset a sanitizer. The
    report says over which carrier it ran."""
    harness.forget_logs()
    params = getattr(request.node, "callspec", None)
    if params and "carrier" in params.params:
        request.node.user_properties.append(("carrier", params.params["carrier"]))
    yield
    reports = harness.sanitizer_reports()
    assert not reports, reports


@pytest.fixture(scope="session")
def world():
    return harness.World()


@pytest.fixture(scope="session")
def crowd(world):
    return compiled.compiled(world, "crowd") + "/crowd"


@pytest.fixture
def echo_port(world, crowd):
    """A server that has no thread for each client. Each test has its own: ports
    towards it stay taken for a minute after its clients are gone."""
    server = harness.Daemon(
        "world-crowd", [crowd, "serve", harness.WORLD4], world.tmp)
    server.wait_ready(lambda: server.log().strip().isdigit())
    yield int(server.log())
    server.kill()


@pytest.fixture(scope="session")
def nginx(world):
    return servers.Nginx(world)


@pytest.fixture(scope="session")
def web(world):
    return servers.Web(world)


@pytest.fixture(scope="session")
def name_servers(world):
    return names.NameServers(world)


@pytest.fixture(scope="module")
def site(world, carrier):
    """An enclave and its proxy, shared by the tests of one file."""
    site = harness.Site(world, carrier)
    yield site
    site.close()


@pytest.fixture
def new_site(world, carrier):
    """A function that makes an enclave and proxy for one test: for those that
    need options or break something."""
    made = []

    def make(*proxy_args, **kw):
        made.append(harness.Site(world, carrier, proxy_args, **kw))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def enclave(site):
    return site.enclave


# ---- the forwarding modes ----


@pytest.fixture
def stage(world, carrier):
    """An enclave and an outside for proxies in any mode. (The tests of names have
    a stage of their own.)"""
    stage = modes.Stage(world, carrier)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def ports(world, nginx):
    """The servers of the world."""
    redis, postgres = modes.Redis(world), modes.Postgres(world)
    yield {"nginx": nginx.port, "redis": redis.port, "postgres": postgres.port}
    redis.kill()
    postgres.kill()
