/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyproto.h"

#include <stdlib.h>
#include <string.h>

/*
 * A PROXY protocol header at the head of a stream. What must hold: it is taken
 * at exactly one length, whatever follows; the parts before ask for more, in
 * order, until they are refused for good; and what it says survives being
 * written in both versions and read again.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static ssize_t parse(
	const uint8_t *data, size_t size, struct proxyproto_addrs *out)
{
	uint8_t *exact = malloc(size ? size : 1);
	ssize_t n;

	must(exact != NULL);
	memcpy(exact, data, size);
	n = proxyproto_parse(exact, size, out);
	free(exact);
	return n;
}

static void check_written(
	enum proxyproto version, const struct proxyproto_addrs *addrs)
{
	struct proxyproto_addrs want = *addrs, got;
	uint8_t buf[PROXYPROTO_WRITE_MAX];
	size_t len = proxyproto_write(buf, version, addrs);

	must(len <= sizeof(buf));
	must(parse(buf, len, &got) == (ssize_t)len);
	ip_port_unmap(&want.src);
	ip_port_unmap(&want.dst);
	ip_port_unmap(&got.src);
	ip_port_unmap(&got.dst);
	must(ip_port_equal(&got.src, &want.src));
	must(ip_port_equal(&got.dst, &want.dst));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxyproto_addrs addrs = {0}, part = {0};
	ssize_t n = parse(data, size, &addrs);
	size_t step = size > 512 ? 61 : 1;
	bool refused = false;

	must(n <= PROXYPROTO_MAX && n <= (ssize_t)size);
	for (size_t len = 0; len <= size; len += step) {
		ssize_t m = parse(data, len, &part);

		must(!refused || m == -1);
		refused = m == -1;
		must(m <= 0 || m == n);
		must(n <= 0 || (m > 0) == (len >= (size_t)n));
	}
	if (n == 0)
		must(size < PROXYPROTO_MAX);
	if (n <= 0)
		return 0;
	must((addrs.src.family == AF_UNSPEC) ==
		(addrs.dst.family == AF_UNSPEC));
	check_written(PROXYPROTO_V1, &addrs);
	check_written(PROXYPROTO_V2, &addrs);
	return 0;
}
