/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hold_name.h"

#include <stdlib.h>
#include <string.h>

/*
 * The input is a name as a request carries it. One that is taken must be
 * exactly what its parts are written as; one that is not of this kind, or
 * malformed, must leave nothing that could be mistaken for one.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct socks5_addr addr, again;
	struct hold_name name;
	int rc;

	if (size > SOCKS5_NAME_MAX)
		return 0;
	memset(&addr, 0, sizeof(addr));
	memset(&name, 0xa5, sizeof(name));
	addr.name_len = (uint8_t)size;
	memcpy(addr.name, data, size);
	addr.addr.port = 80;
	rc = hold_name_parse(&name, &addr);
	must(rc == 0 || rc == -1);
	if (rc == -1) {
		must(size >= 5 && name.verb != HOLD_NONE);
		return 0;
	}
	if (name.verb == HOLD_NONE) {
		must(!name.v4 && !name.v6 && !name.loopback);
		return 0;
	}
	must((name.verb == HOLD_HOLD) == (name.v4 || name.v6));
	hold_name_write(&name, 80, &again);
	must(again.name_len == size && memcmp(again.name, data, size) == 0);
	must(ip_port_equal(&again.addr, &addr.addr));
	return 0;
}
