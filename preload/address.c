/* SPDX-License-Identifier: Apache-2.0 */

/*
 * getpeername() and getsockname().
 *
 * The real call goes first. Only an answer that TCP would not give (an address
 * of another family, or "not connected" from a vsock that was shut down) makes
 * the library look at the socket at all. A TCP carrier does answer with an IP
 * address, the host proxy's: with such a host proxy every answer is looked at.
 */

#include "preload/address.h"
#include "preload/config.h"
#include "preload/gate.h"
#include "preload/listen.h"
#include "preload/pointer.h"
#include "preload/real.h"

#include <errno.h>
#include <string.h>

socklen_t address_take(
	union sockaddr_any *out, const struct sockaddr *addr, socklen_t len)
{
	if (len < sizeof(addr->sa_family) || len > sizeof(*out) ||
		!pointer_is_readable(addr, len))
		return 0;
	memset(out, 0, sizeof(*out));
	memcpy(out, addr, len);
	return len;
}

void address_give(const struct ip_port *from, int family, struct sockaddr *addr,
	socklen_t *len)
{
	struct ip_port ip = *from;
	union sockaddr_any any;
	socklen_t whole;

	if (ip.family == AF_UNSPEC)
		ip.family = (uint16_t)family;
	whole = ip_port_to_sockaddr(&ip, &any);
	memcpy(addr, &any, whole < *len ? whole : *len);
	*len = whole;
}

/* Could TCP have given this answer? */
static bool is_plain(int rc, const struct sockaddr *addr, socklen_t room)
{
	if (rc == -1)
		return errno != ENOTCONN;
	if (room < sizeof(addr->sa_family))
		return false;
	return (addr->sa_family == AF_INET || addr->sa_family == AF_INET6) &&
	       config()->endpoint.kind != ENDPOINT_TCP;
}

EXPORT int getpeername(
	int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	bool bad = !addr || !len || pointer_is_wild(len);
	socklen_t room = bad ? 0 : *len;
	struct found found;
	int rc;
	int err;

	if (slot_may_be_gate(fd) &&
		gate_settle(fd, GATE_LOOK, &err) > GATE_NONE && err != 0)
		return fail(ENOTCONN);
	rc = real()->getpeername(fd, addr, len);
	if (bad || is_plain(rc, addr, room) || !lookup(fd, &found))
		return rc;
	if (found.rec.kind != RECORD_CARRIER)
		return fail(ENOTCONN);
	*len = room;
	address_give(&found.rec.remote, found.rec.family, addr, len);
	return 0;
}

EXPORT int getsockname(
	int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	bool bad = !addr || !len || pointer_is_wild(len);
	socklen_t room = bad ? 0 : *len;
	int saved = errno;
	struct found found;
	int rc;
	int err;

	if (reserve_deferred(fd) == -1)
		return -1;
	errno = saved;
	if (slot_may_be_gate(fd))
		gate_settle(fd, GATE_LOOK, &err);
	rc = real()->getsockname(fd, addr, len);
	if (bad || is_plain(rc, addr, room) || !lookup(fd, &found))
		return rc;
	*len = room;
	address_give(&found.rec.local, found.rec.family, addr, len);
	errno = saved;
	return 0;
}
