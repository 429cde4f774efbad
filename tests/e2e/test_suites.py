# SPDX-License-Identifier: Apache-2.0
"""With PROXY_LOOPBACK=host the loopback is the host's in both directions: test
suites of other projects, which bind and connect to 127.0.0.1, run through the
proxy. Python's own for its servers and clients, unmodified."""

import pytest

from harness import PYTHON, TIMEOUT

MODULES = ["test_socketserver", "test_httpservers", "test_smtplib",
           "test_poplib", "test_urllib2_localnet", "test_wsgiref",
           "test_asyncio.test_server", "test_asyncio.test_streams"]


@pytest.mark.parametrize("module", MODULES)
def test_python(site, module):
    got = site.run([PYTHON, "-m", "unittest", "test." + module],
                   env={"PROXY_LOOPBACK": "host"}, timeout=4 * TIMEOUT).ok()
    assert "\nOK" in got.err, got.err
    used = [line for line in site.proxy.log().splitlines()
            if "loopback for port" in line]
    assert used, "nothing went through the proxy"
