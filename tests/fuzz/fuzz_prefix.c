/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefix.h"

#include <stdlib.h>
#include <string.h>

/*
 * An original destination at the head of a stream. What must hold: it is
 * taken at exactly one length, whatever follows; every shorter part asks for
 * more; and what was taken is written back as the same bytes (v4-mapped IPv6
 * apart, which is written as IPv4).
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static ssize_t parse(const uint8_t *data, size_t size, struct ip_port *out)
{
	uint8_t *exact = malloc(size ? size : 1);
	ssize_t n;

	must(exact != NULL);
	memcpy(exact, data, size);
	n = prefix_parse(exact, size, out);
	free(exact);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t back[PREFIX_MAX];
	struct ip_port addr, part, again;
	ssize_t n = parse(data, size, &addr);

	must(n <= PREFIX_MAX && n <= (ssize_t)size);
	must((n == -1) == (size > 0 && data[0] != 4 && data[0] != 6));
	for (size_t len = 0; n > 0 && len < (size_t)n; len++)
		must(parse(data, len, &part) == 0);
	if (n <= 0)
		return 0;
	must(parse(data, (size_t)n, &part) == n);
	must(ip_port_equal(&part, &addr));
	again = addr;
	ip_port_unmap(&again);
	must(prefix_write(back, &addr) ==
		(again.family == AF_INET ? PREFIX_V4_LEN : PREFIX_V6_LEN));
	if (again.family == addr.family)
		must(memcmp(back, data, (size_t)n) == 0);
	return 0;
}
