/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/option.h"
#include "common/fd.h"
#include "preload/pointer.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#ifndef IPPROTO_MPTCP
# define IPPROTO_MPTCP 262
#endif

/* What TCP_INFO calls the state of each kind. */
static const uint8_t tcp_state[] = {
	[RECORD_NONE] = TCP_CLOSE,
	[RECORD_GATE] = TCP_SYN_SENT,
	[RECORD_CARRIER] = TCP_ESTABLISHED,
	[RECORD_BOUND] = TCP_CLOSE,
	[RECORD_LISTENER] = TCP_LISTEN,
};

/* Of SOL_SOCKET, those that are plain values and change how the socket behaves
 * or reads back. */
bool option_is_kept(int level, int name, socklen_t len)
{
	if (name < 0 || name > UINT8_MAX || len == 0)
		return false;
	if (level != SOL_SOCKET)
		return len <= OPTION_VALUE &&
		       (level == IPPROTO_TCP || level == IPPROTO_IP ||
			       level == IPPROTO_IPV6);
	switch (name) {
	case SO_KEEPALIVE:
	case SO_LINGER:
	case SO_RCVTIMEO:
	case SO_SNDTIMEO:
	case SO_RCVBUF:
	case SO_SNDBUF:
	case SO_RCVBUFFORCE:
	case SO_SNDBUFFORCE:
	case SO_PRIORITY:
	case SO_MARK:
	case SO_REUSEADDR:
	case SO_REUSEPORT:
	case SO_OOBINLINE:
	case SO_RCVLOWAT:
	case SO_DONTROUTE:
	case SO_BUSY_POLL:
	case SO_INCOMING_CPU:
	case SO_MAX_PACING_RATE:
	case SO_BINDTODEVICE: return true;
	default: return false;
	}
}

const struct option_value *option_noted(
	const struct record *rec, int level, int name)
{
	for (int i = 0; i < RECORD_OPTIONS; i++) {
		const struct option_value *opt = &rec->options[i];

		if (opt->len && opt->level == level && opt->name == name)
			return opt;
	}
	return NULL;
}

/* Where to note it: its own place, or a free one, or NULL. */
static struct option_value *place_for(struct record *rec, int level, int name)
{
	const struct option_value *opt = option_noted(rec, level, name);

	if (opt)
		return &rec->options[opt - rec->options];
	for (int i = 0; i < RECORD_OPTIONS; i++) {
		if (!rec->options[i].len)
			return &rec->options[i];
	}
	return NULL;
}

static void put(struct record *rec, int level, int name, const void *value,
	socklen_t len)
{
	struct option_value *opt = place_for(rec, level, name);

	if (!opt)
		return;
	/* The kernel does not look at more than that either. */
	if (len > OPTION_VALUE)
		len = OPTION_VALUE;
	memset(opt, 0, sizeof(*opt));
	opt->level = (uint8_t)level;
	opt->name = (uint8_t)name;
	opt->len = (uint8_t)len;
	memcpy(opt->value, value, len);
}

static bool is_tcp(int fd)
{
	int protocol = socket_int(fd, SO_PROTOCOL);

	return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

static void note(int fd, struct found *found, int level, int name,
	const void *value, socklen_t len)
{
	do
		put(&found->rec, level, name, value, len);
	while (!amend(fd, found) && found->cookie != 0);
	if (found->rec.tagged)
		tag_attach(fd, &found->rec);
}

void option_note(int fd, int level, int name, const void *value, socklen_t len)
{
	struct found found;

	if (!option_is_kept(level, name, len))
		return;
	if (!lookup_options(fd, &found)) {
		if (found.cookie == 0 || (level != IPPROTO_TCP && !is_tcp(fd)))
			return;
	}
	note(fd, &found, level, name, value, len);
}

void option_replay(int fd, const struct record *rec)
{
	int saved = errno;

	if (rec->kind == RECORD_GATE || rec->kind == RECORD_BOUND)
		return;
	for (int i = 0; i < RECORD_OPTIONS; i++) {
		const struct option_value *opt = &rec->options[i];

		if (opt->len &&
			(opt->level == SOL_SOCKET || rec->kind == RECORD_NONE))
			real()->setsockopt(fd, opt->level, opt->name,
				opt->value, opt->len);
	}
	errno = saved;
}

/* Try it on a socket that is TCP. */
static int ask_oracle(const struct found *found, int level, int name,
	const void *value, socklen_t len)
{
	int saved = errno;
	int tcp = real_socket(found->rec.family, SOCK_STREAM);
	int rc;

	if (tcp == -1) {
		if (!option_is_kept(level, name, len))
			return -1;
		if (!pointer_is_readable(value, len))
			return fail(EFAULT);
		errno = saved;
		return 0;
	}
	rc = real()->setsockopt(tcp, level, name, value, len);
	closefd(&tcp);
	return rc;
}

int option_oracle_set(int fd, struct found *found, int level, int name,
	const void *value, socklen_t len)
{
	int rc = ask_oracle(found, level, name, value, len);

	if (rc == 0 && option_is_kept(level, name, len))
		note(fd, found, level, name, value, len);
	return rc;
}

/* No fd for the oracle: what was set is better than nothing. */
static int tell_note(
	const struct option_value *opt, void *value, socklen_t *len)
{
	socklen_t n;

	if (!opt)
		return -1;
	if (!pointer_is_readable(len, sizeof(*len)) ||
		!pointer_is_readable(value, opt->len))
		return fail(EFAULT);
	n = *len < opt->len ? *len : opt->len;
	memcpy(value, opt->value, n);
	*len = n;
	return 0;
}

int option_oracle_get(const struct found *found, int level, int name,
	void *value, socklen_t *len)
{
	const struct option_value *opt = option_noted(&found->rec, level, name);
	int saved = errno;
	int tcp = real_socket(found->rec.family, SOCK_STREAM);
	int rc;

	if (tcp == -1) {
		rc = tell_note(opt, value, len);
		if (rc == 0)
			errno = saved;
		return rc;
	}
	if (opt)
		real()->setsockopt(tcp, level, name, opt->value, opt->len);
	rc = real()->getsockopt(tcp, level, name, value, len);
	closefd(&tcp);
	/* The oracle is not connected; the socket it speaks for is. */
	if (rc == 0 && level == IPPROTO_TCP && name == TCP_INFO && *len > 0)
		*(uint8_t *)value = tcp_state[found->rec.kind];
	return rc;
}
