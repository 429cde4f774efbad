/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/origdst.h"

#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <string.h>

/* <linux/netfilter_ipv6/ip6_tables.h> has it, and much that clashes with
 * <netinet/in.h>. */
#define IP6T_SO_ORIGINAL_DST 80

/* What the socket is bound to. Return: 0 or an errno. */
static int local_address(int fd, struct ip_port *out)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	memset(&any, 0, sizeof(any));
	memset(out, 0, sizeof(*out));
	if (getsockname(fd, &any.sa, &len) == -1)
		return errno;
	if (ip_port_from_sockaddr(out, &any.sa, len) == -1)
		return EAFNOSUPPORT;
	ip_port_unmap(out);
	return 0;
}

/* What connection tracking remembers. Return: 0 or an errno. */
static int tracked_address(int fd, sa_family_t family, struct ip_port *out)
{
	union sockaddr_any any;
	socklen_t len = family == AF_INET ? sizeof(any.in) : sizeof(any.in6);
	int level = family == AF_INET ? SOL_IP : SOL_IPV6;

	_Static_assert(SO_ORIGINAL_DST == IP6T_SO_ORIGINAL_DST,
		"one name for both levels");
	memset(&any, 0, sizeof(any));
	memset(out, 0, sizeof(*out));
	if (getsockopt(fd, level, SO_ORIGINAL_DST, &any, &len) == -1)
		return errno;
	if (ip_port_from_sockaddr(out, &any.sa, len) == -1)
		return EAFNOSUPPORT;
	return 0;
}

/* Did this TPROXY listener's connection come to the listener itself? */
static bool is_listener(
	const struct ip_port *local, const struct ip_port *listener)
{
	struct ip_port own = *listener;

	ip_port_unmap(&own);
	if (local->port != own.port)
		return false;
	return ip_port_is_any(&own) || ip_port_equal(local, &own);
}

int origdst_get(int fd, bool tproxy, const struct ip_port *listener,
	struct ip_port *out)
{
	struct ip_port local;
	int err = local_address(fd, &local);

	if (err)
		return err;
	if (tproxy) {
		*out = local;
		return is_listener(&local, listener) ? ELOOP : 0;
	}
	err = tracked_address(fd, local.family, out);
	if (err)
		return err;
	return ip_port_equal(out, &local) ? ELOOP : 0;
}
