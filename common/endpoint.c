/* SPDX-License-Identifier: Apache-2.0 */
#include "common/endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VSOCK_DEFAULT_CID  3
#define VSOCK_DEFAULT_PORT 8888

int parse_uint(const char *text, size_t len, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (len == 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(text[i] - '0');

		if (text[i] < '0' || text[i] > '9' ||
			value > (UINT64_MAX - digit) / 10)
			return -1;
		value = value * 10 + digit;
	}
	if (value > max)
		return -1;
	*out = value;
	return 0;
}

static int parse_port(const char *text, uint64_t max, uint32_t *out)
{
	uint64_t port;

	if (parse_uint(text, strlen(text), max, &port) == -1)
		return -1;
	*out = (uint32_t)port;
	return 0;
}

const char *endpoint_parse_ports(struct endpoint *out, const char *text)
{
	const char *dash = strchr(text, '-');
	size_t len = dash ? (size_t)(dash - text) : strlen(text);
	uint64_t first, last;

	if (parse_uint(text, len, UINT32_MAX, &first) == -1)
		return "expected a vsock port, a number below 2^32";
	last = first;
	if (dash && (parse_uint(dash + 1, strlen(dash + 1), UINT32_MAX,
			     &last) == -1 ||
			    last < first || last - first >= ENDPOINT_PORTS_MAX))
		return "expected a range of at most 64 vsock ports, the lower "
		       "one first";
	out->port = (uint32_t)first;
	out->more = (uint32_t)(last - first);
	return NULL;
}

static int parse_cid(const char *text, size_t len, uint32_t *out)
{
	static const struct {
		const char *name;
		uint32_t cid;
	} names[] = {
		{"any", VMADDR_CID_ANY},
		{"host", VMADDR_CID_HOST},
		{"local", 1 /* VMADDR_CID_LOCAL, not in headers before 5.6 */},
	};
	uint64_t cid;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i].name) == len &&
			memcmp(names[i].name, text, len) == 0) {
			*out = names[i].cid;
			return 0;
		}
	}
	if (parse_uint(text, len, UINT32_MAX, &cid) == -1)
		return -1;
	*out = (uint32_t)cid;
	return 0;
}

static const char *parse_vsock(struct endpoint *out, const char *text)
{
	const char *colon = strchr(text, ':');
	const char *why;

	if (!colon)
		return "expected vsock:CID:PORT";
	if (parse_cid(text, (size_t)(colon - text), &out->cid) == -1)
		return "expected a CID that is a number below 2^32, 'any', "
		       "'host' or 'local'";
	why = endpoint_parse_ports(out, colon + 1);
	if (!why)
		out->kind = ENDPOINT_VSOCK;
	return why;
}

static const char *copy_path(struct endpoint *out, const char *path, size_t len)
{
	if (len == 0 || path[0] != '/')
		return "expected an absolute path";
	if (len > ENDPOINT_PATH_MAX)
		return "expected a path of at most 107 bytes";
	memcpy(out->text, path, len);
	out->text[len] = '\0';
	return NULL;
}

static const char *parse_unix(struct endpoint *out, const char *text)
{
	const char *why = copy_path(out, text, strlen(text));

	if (!why)
		out->kind = ENDPOINT_UNIX;
	return why;
}

static const char *parse_mux(struct endpoint *out, const char *text)
{
	const char *colon = strrchr(text, ':');
	const char *why;

	if (!colon)
		return "expected vsock-mux:/path:PORT";
	why = copy_path(out, text, (size_t)(colon - text));
	if (why)
		return why;
	if (parse_port(colon + 1, UINT32_MAX, &out->port) == -1)
		return "expected a vsock port, a number below 2^32";
	out->kind = ENDPOINT_VSOCK_MUX;
	return NULL;
}

/* Letters, digits, hyphen, underscore and dots: what a look-up may be asked
 * for without surprising a resolver or a log. */
static bool is_host_name(const char *text, size_t len)
{
	if (len == 0 || len > ENDPOINT_NAME_MAX || text[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			    (c >= '0' && c <= '9') || c == '-' || c == '_' ||
			    c == '.'))
			return false;
	}
	return true;
}

/* All digits and dots: meant as an IPv4 address, so never looked up. */
static bool looks_numeric(const char *text)
{
	return text[strspn(text, "0123456789.")] == '\0';
}

static const char *parse_host(
	struct endpoint *out, const char *text, size_t len)
{
	if (len > ENDPOINT_NAME_MAX)
		return "expected a host name of at most 253 bytes";
	memcpy(out->text, text, len);
	out->text[len] = '\0';
	if (inet_pton(AF_INET, out->text, out->addr.ip) == 1) {
		out->addr.family = AF_INET;
		out->text[0] = '\0';
		return NULL;
	}
	/* musl's inet_pton() leaves the octets it had read before it failed */
	memset(out->addr.ip, 0, sizeof(out->addr.ip));
	if (looks_numeric(out->text) || !is_host_name(out->text, len))
		return "expected an IPv4 address, a host name, or an IPv6 "
		       "address in brackets";
	return NULL;
}

static const char *parse_bracketed(
	struct endpoint *out, const char *text, size_t len)
{
	char ip[INET6_ADDRSTRLEN];

	if (len >= sizeof(ip))
		return "expected an IPv6 address between the brackets";
	memcpy(ip, text, len);
	ip[len] = '\0';
	if (inet_pton(AF_INET6, ip, out->addr.ip) != 1)
		return "expected an IPv6 address between the brackets";
	out->addr.family = AF_INET6;
	return NULL;
}

static const char *parse_tcp(struct endpoint *out, const char *text)
{
	const char *colon = strrchr(text, ':');
	const char *why;
	size_t len;

	if (!colon)
		return "expected tcp:HOST:PORT";
	len = (size_t)(colon - text);
	if (text[0] == '[') {
		if (len < 2 || text[len - 1] != ']')
			return "expected tcp:[IPv6]:PORT";
		why = parse_bracketed(out, text + 1, len - 2);
	} else {
		why = parse_host(out, text, len);
	}
	if (why)
		return why;
	if (parse_port(colon + 1, UINT16_MAX, &out->port) == -1)
		return "expected a TCP port, a number below 65536";
	out->addr.port = (uint16_t)out->port;
	out->kind = ENDPOINT_TCP;
	return NULL;
}

const char *endpoint_parse(struct endpoint *out, const char *text)
{
	static const struct {
		const char *scheme;
		const char *(*parse)(struct endpoint *out, const char *text);
	} schemes[] = {
		{"vsock:", parse_vsock},
		{"unix:", parse_unix},
		{"tcp:", parse_tcp},
		{"vsock-mux:", parse_mux},
	};
	const char *why = "expected vsock:CID:PORT, unix:/path, tcp:HOST:PORT "
			  "or vsock-mux:/path:PORT";

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t len = strlen(schemes[i].scheme);

		if (strncmp(text, schemes[i].scheme, len) == 0) {
			why = schemes[i].parse(out, text + len);
			break;
		}
	}
	if (why)
		memset(out, 0, sizeof(*out));
	return why;
}

static void format_vsock(const struct endpoint *ep, char *buf, size_t size)
{
	char ports[24];

	snprintf(ports, sizeof(ports), ep->more ? "%u-%u" : "%u", ep->port,
		ep->port + ep->more);
	if (ep->cid == VMADDR_CID_ANY)
		snprintf(buf, size, "vsock:any:%s", ports);
	else if (ep->cid == VMADDR_CID_HOST)
		snprintf(buf, size, "vsock:host:%s", ports);
	else if (ep->cid == 1)
		snprintf(buf, size, "vsock:local:%s", ports);
	else
		snprintf(buf, size, "vsock:%u:%s", ep->cid, ports);
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->kind == b->kind && a->cid == b->cid && a->port == b->port &&
	       a->more == b->more && ip_port_equal(&a->addr, &b->addr) &&
	       strcmp(a->text, b->text) == 0;
}

const char *endpoint_format(const struct endpoint *ep, char *buf, size_t size)
{
	char ip[IP_PORT_STRLEN];

	switch (ep->kind) {
	case ENDPOINT_VSOCK: format_vsock(ep, buf, size); break;
	case ENDPOINT_UNIX: snprintf(buf, size, "unix:%s", ep->text); break;
	case ENDPOINT_VSOCK_MUX:
		snprintf(buf, size, "vsock-mux:%s:%u", ep->text, ep->port);
		break;
	case ENDPOINT_TCP:
		if (ep->addr.family == AF_UNSPEC)
			snprintf(buf, size, "tcp:%s:%u", ep->text, ep->port);
		else
			snprintf(buf, size, "tcp:%s",
				ip_port_format(&ep->addr, ip, sizeof(ip)));
		break;
	case ENDPOINT_NONE: snprintf(buf, size, "-"); break;
	}
	return buf;
}

#define PORT_SUFFIX_MAX 11 /* "_4294967295" */

bool endpoint_has_room(const struct endpoint *ep)
{
	return ep->kind != ENDPOINT_UNIX ||
	       strlen(ep->text) <= ENDPOINT_PATH_MAX - PORT_SUFFIX_MAX;
}

void endpoint_set_port(struct endpoint *ep, uint32_t port)
{
	size_t len;

	switch (ep->kind) {
	case ENDPOINT_UNIX:
		len = strlen(ep->text);
		snprintf(ep->text + len, sizeof(ep->text) - len, "_%u", port);
		break;
	case ENDPOINT_TCP:
		ep->port = port;
		ep->addr.port = (uint16_t)port;
		break;
	case ENDPOINT_VSOCK:
	case ENDPOINT_VSOCK_MUX: ep->port = port; break;
	case ENDPOINT_NONE: break;
	}
}

void endpoint_pick(struct endpoint *ep, uint32_t number)
{
	ep->port += number % (ep->more + 1);
	ep->more = 0;
}

socklen_t endpoint_sockaddr(
	const struct endpoint *ep, union endpoint_sockaddr *out)
{
	memset(out, 0, sizeof(*out));
	switch (ep->kind) {
	case ENDPOINT_VSOCK:
		out->vm.svm_family = AF_VSOCK;
		out->vm.svm_cid = ep->cid;
		out->vm.svm_port = ep->port;
		return sizeof(out->vm);
	case ENDPOINT_UNIX:
	case ENDPOINT_VSOCK_MUX:
		out->un.sun_family = AF_UNIX;
		memcpy(out->un.sun_path, ep->text, strlen(ep->text) + 1);
		return sizeof(out->un);
	case ENDPOINT_TCP:
		if (ep->addr.family == AF_UNSPEC)
			return 0;
		return ip_port_to_sockaddr(&ep->addr, &out->ip);
	case ENDPOINT_NONE: break;
	}
	return 0;
}

static const char *cid_from_env(struct endpoint *out)
{
	const char *text = getenv("PROXY_PARENT_CID");
	uint64_t value = VSOCK_DEFAULT_CID;

	if (text && parse_uint(text, strlen(text), UINT32_MAX, &value) == -1)
		return "expected a number below 2^32";
	out->cid = (uint32_t)value;
	return NULL;
}

static const char *ports_from_env(struct endpoint *out)
{
	const char *text = getenv("PROXY_PARENT_PORT");

	out->port = VSOCK_DEFAULT_PORT;
	return text ? endpoint_parse_ports(out, text) : NULL;
}

const char *endpoint_from_env(struct endpoint *out, const char **bad)
{
	const char *text = getenv("PROXY_ENDPOINT");
	const char *why;

	memset(out, 0, sizeof(*out));
	if (text) {
		*bad = "PROXY_ENDPOINT";
		return endpoint_parse(out, text);
	}
	*bad = "PROXY_PARENT_CID";
	why = cid_from_env(out);
	if (!why) {
		*bad = "PROXY_PARENT_PORT";
		why = ports_from_env(out);
	}
	if (!why)
		out->kind = ENDPOINT_VSOCK;
	return why;
}
