# SPDX-License-Identifier: Apache-2.0
"""Files of 1 byte to 1 GB arrive with the same SHA-256, down and up. The sizes
are those around the buffers that anybody would choose."""

import pytest

import content
from harness import HERE, PYTHON, TIMEOUT

KIB = 1024
SIZES = [1, 32 * KIB - 1, 32 * KIB, 32 * KIB + 1, 64 * KIB - 1, 64 * KIB,
         64 * KIB + 1, 96 * KIB - 1, 96 * KIB, 96 * KIB + 1, 1024 * KIB,
         10 * 1024 * KIB, 100 * 1024 * KIB,
         pytest.param(1000 * 1000 * 1000, marks=pytest.mark.full)]


def patience(size):
    """TIMEOUT, and 10 MB/s at the least (sanitizers are slow)."""
    return TIMEOUT + size / 10e6


@pytest.mark.parametrize("size", SIZES)
def test_down(enclave, web, size):
    command = "curl -sS '%s' | sha256sum" % web.url("/bytes/%d" % size)
    result = enclave.run(["sh", "-c", command], timeout=patience(size)).ok()
    assert result.out.split()[0] == content.sha256(size)


@pytest.mark.parametrize("size", SIZES)
def test_up(enclave, web, size):
    # -H: the length is known, so curl need not send chunks, which the server
    # does not read
    command = ("%s -B %s/content.py %d | curl -sS -T - -H 'Content-Length: %d' "
               "-H 'Transfer-Encoding:' '%s'" % (
                   PYTHON, HERE, size, size, web.url("/sum")))
    result = enclave.run(["sh", "-c", command], timeout=patience(size)).ok()
    assert result.out == "%s %d" % (content.sha256(size), size)
