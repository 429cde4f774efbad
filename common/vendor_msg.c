/* SPDX-License-Identifier: Apache-2.0 */
#include "common/vendor_msg.h"
#include "common/endpoint.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char bad_op[] = "expected a known operation";

void vendor_request_init(struct vendor_request *req, enum vendor_op op)
{
	memset(req, 0, sizeof(*req));
	req->magic = VENDOR_MAGIC;
	req->version = VENDOR_VERSION;
	req->op = (uint16_t)op;
	req->size = sizeof(*req);
}

static bool is_address(const struct ip_port *addr)
{
	return addr->family == AF_INET || addr->family == AF_INET6;
}

static bool is_address_or_none(const struct ip_port *addr)
{
	return addr->family == AF_UNSPEC || is_address(addr);
}

const char *vendor_request_check(const struct vendor_request *req, size_t len)
{
	if (len != sizeof(*req))
		return "expected a request of 1024 bytes";
	if (req->magic != VENDOR_MAGIC || req->size != sizeof(*req))
		return "not a request: wrong magic or size";
	if (req->version != VENDOR_VERSION)
		return "expected protocol version 1";
	if (!memchr(req->name, '\0', sizeof(req->name)))
		return "name without its NUL";
	if (!memchr(req->endpoint, '\0', sizeof(req->endpoint)))
		return "endpoint without its NUL";
	switch (req->op) {
	case VENDOR_CONNECT:
		if (req->dst.family == AF_UNSPEC && req->name[0])
			break;
		if (!is_address(&req->dst) || req->name[0])
			return "expected one destination, a name or an address";
		break;
	case VENDOR_BIND:
	case VENDOR_REJOIN:
		if (!is_address(&req->dst))
			return "expected an IPv4 or IPv6 address to bind";
		break;
	case VENDOR_LISTEN:
	case VENDOR_PING:
	case VENDOR_PROBE: break;
	default: return bad_op;
	}
	if (!is_address_or_none(&req->source))
		return "expected an IPv4 or IPv6 source address";
	return NULL;
}

void vendor_result_init(
	struct vendor_result *res, enum vendor_op op, int status)
{
	memset(res, 0, sizeof(*res));
	res->magic = VENDOR_MAGIC;
	res->version = VENDOR_VERSION;
	res->op = (uint16_t)op;
	res->size = sizeof(*res);
	res->status = status;
}

const char *vendor_result_check(
	const struct vendor_result *res, size_t len, int nr_fds)
{
	int want = 0;

	if (len != sizeof(*res))
		return "expected a result of 80 bytes";
	if (res->magic != VENDOR_MAGIC || res->size != sizeof(*res) ||
		res->version != VENDOR_VERSION)
		return "not a result: wrong magic, size or version";
	if (res->op < VENDOR_CONNECT || res->op > VENDOR_ACCEPT)
		return bad_op;
	if (res->status < 0)
		return "expected a status of 0 or an errno";
	if (!is_address_or_none(&res->remote) ||
		!is_address_or_none(&res->local))
		return "expected IPv4 or IPv6 addresses or none";
	if (res->status == 0 &&
		(res->op == VENDOR_CONNECT || res->op == VENDOR_ACCEPT))
		want = 1;
	if (nr_fds != want)
		return "wrong number of fds for this result";
	return NULL;
}

/* Append without stdio: this runs inside a hooked connect(). */
static char *append(char *at, const char *end, const char *text)
{
	while (*text && at < end - 1)
		*at++ = *text++;
	*at = '\0';
	return at;
}

static char *append_uint(char *at, const char *end, unsigned long value)
{
	char digits[24];
	char *d = digits + sizeof(digits) - 1;

	*d = '\0';
	do
		*--d = (char)('0' + value % 10);
	while (value /= 10);
	return append(at, end, d);
}

const char *vendor_path(char *buf, size_t size)
{
	const char *path = getenv("SOCKET_VENDOR_PATH");
	const char *end = buf + size;
	char *at;

	if (path) {
		if (path[0] != '/')
			return "expected an absolute path";
		if (strlen(path) > ENDPOINT_PATH_MAX || strlen(path) >= size)
			return "expected a path of at most 107 bytes";
		append(buf, end, path);
		return NULL;
	}
	if (geteuid() == 0) {
		append(buf, end, "/run/proxify/vendor.sock");
		return NULL;
	}
	at = append(buf, end, "/tmp/proxify-");
	at = append_uint(at, end, geteuid());
	append(at, end, "/vendor.sock");
	return NULL;
}
