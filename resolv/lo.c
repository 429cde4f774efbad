/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/lo.h"
#include "common/fd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define REPLY_TIMEOUT 2 /* seconds; the kernel answers at once */
#define REPLY_TRIES   16
#define REPLY_SIZE    4096

/* Header, message and two attributes with an address each. */
struct add_request {
	struct nlmsghdr head;
	struct ifaddrmsg addr;
	uint8_t attrs[2 * RTA_SPACE(16)];
};

static void put_attr(struct add_request *req, unsigned short type,
	const void *data, size_t n)
{
	size_t at = NLMSG_ALIGN(req->head.nlmsg_len);
	struct rtattr attr = {
		.rta_type = type,
		.rta_len = (unsigned short)RTA_LENGTH(n),
	};

	memcpy((uint8_t *)req + at, &attr, sizeof(attr));
	memcpy((uint8_t *)req + at + RTA_LENGTH(0), data, n);
	req->head.nlmsg_len = (uint32_t)(at + RTA_ALIGN(RTA_LENGTH(n)));
}

/* Return: 0, or -1 and errno. */
static int build(struct add_request *req, const struct ip_port *addr)
{
	size_t n = addr->family == AF_INET ? 4 : 16;
	unsigned index = if_nametoindex("lo");

	if (index == 0)
		return -1;
	memset(req, 0, sizeof(*req));
	req->head.nlmsg_len = NLMSG_LENGTH(sizeof(req->addr));
	req->head.nlmsg_type = RTM_NEWADDR;
	req->head.nlmsg_flags =
		NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	req->head.nlmsg_seq = 1;
	req->addr.ifa_family = (uint8_t)addr->family;
	req->addr.ifa_prefixlen = (uint8_t)(n * 8);
	req->addr.ifa_flags = IFA_F_PERMANENT | IFA_F_NODAD;
	req->addr.ifa_scope = RT_SCOPE_UNIVERSE;
	req->addr.ifa_index = index;
	put_attr(req, IFA_LOCAL, addr->ip, n);
	put_attr(req, IFA_ADDRESS, addr->ip, n);
	return 0;
}

/* Return: 0, or -1 and errno as the kernel gave it. */
static int read_ack(int fd)
{
	union {
		struct nlmsghdr head;
		uint8_t bytes[REPLY_SIZE];
	} reply;
	int tries;

	for (tries = 0; tries < REPLY_TRIES; tries++) {
		ssize_t n = recv(fd, &reply, sizeof(reply), 0);
		struct nlmsgerr ack;

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if ((size_t)n < NLMSG_LENGTH(sizeof(ack)) ||
			reply.head.nlmsg_type != NLMSG_ERROR ||
			reply.head.nlmsg_seq != 1)
			continue;
		memcpy(&ack, NLMSG_DATA(&reply.head), sizeof(ack));
		if (ack.error == 0)
			return 0;
		errno = -ack.error;
		return -1;
	}
	errno = EPROTO;
	return -1;
}

int lo_add_address(const struct ip_port *addr)
{
	const struct timeval timeout = {.tv_sec = REPLY_TIMEOUT};
	struct add_request req;
	int ret = -1;
	int fd;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd == -1)
		return -1;
	if (build(&req, addr) == -1 ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout,
			sizeof(timeout)) == -1 ||
		send(fd, &req, req.head.nlmsg_len, 0) == -1)
		goto out;
	ret = read_ack(fd);
	if (ret == -1 && errno == EEXIST)
		ret = 0;
out:
	closefd(&fd);
	return ret;
}

static struct ip_port numeric(int family, const char *text)
{
	struct ip_port addr = {.family = (uint16_t)family};

	inet_pton(family, text, addr.ip);
	return addr;
}

int lo_add_dummies(void)
{
	const struct ip_port v4 = numeric(AF_INET, LO_DUMMY_V4);
	const struct ip_port v6 = numeric(AF_INET6, LO_DUMMY_V6);

	if (lo_add_address(&v4) == -1)
		return -1;
	if (lo_add_address(&v6) == -1 && errno != EAFNOSUPPORT &&
		errno != EOPNOTSUPP && errno != EACCES)
		return -1;
	return 0;
}

bool lo_is_local(const struct ip_port *addr)
{
	struct ip_port any_port = *addr;
	union sockaddr_any sa;
	socklen_t len;
	bool local;
	int fd;

	any_port.port = 0;
	len = ip_port_to_sockaddr(&any_port, &sa);
	fd = socket(addr->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	local = bind(fd, &sa.sa, len) == 0;
	closefd(&fd);
	return local;
}

/* Is it an address of an interface that is not loopback? */
static bool is_outward(const struct ip_port *source)
{
	struct ifaddrs *list;
	struct ifaddrs *ifa;
	bool outward = false;

	if (getifaddrs(&list) == -1)
		return false;
	for (ifa = list; ifa; ifa = ifa->ifa_next) {
		struct ip_port addr;

		if (ifa->ifa_flags & IFF_LOOPBACK || !ifa->ifa_addr ||
			ip_port_from_sockaddr(&addr, ifa->ifa_addr,
				sizeof(struct sockaddr_in6)) == -1)
			continue;
		if (addr.family == source->family &&
			memcmp(addr.ip, source->ip, sizeof(addr.ip)) == 0)
			outward = true;
	}
	freeifaddrs(list);
	return outward;
}

bool lo_leads_out(const struct ip_port *addr)
{
	struct ip_port dst = *addr;
	struct ip_port source;
	union sockaddr_any sa;
	socklen_t len;
	bool out = false;
	int fd;

	dst.port = 9; /* discard; connecting a UDP socket sends nothing */
	len = ip_port_to_sockaddr(&dst, &sa);
	fd = socket(addr->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	if (connect(fd, &sa.sa, len) == 0) {
		len = sizeof(sa);
		out = getsockname(fd, &sa.sa, &len) == 0 &&
		      ip_port_from_sockaddr(&source, &sa.sa, len) == 0 &&
		      is_outward(&source);
	}
	closefd(&fd);
	return out;
}

bool lo_has_way_out(void)
{
	/* Nobody's addresses (RFC 5737, RFC 3849): a default route has them. */
	const struct ip_port v4 = numeric(AF_INET, "192.0.2.1");
	const struct ip_port v6 = numeric(AF_INET6, "2001:db8::1");

	return lo_leads_out(&v4) || lo_leads_out(&v6);
}
