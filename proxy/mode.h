/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_MODE_H
#define PROXY_MODE_H

/*
 * The modes of the proxy, one row each. A mode is no code of its own: it says
 * how a connection that was accepted learns where it is bound for, and how the
 * other end is reached. What happens in between and afterwards is the same for
 * all of them (forward.c, dialer.c, relay.c); SOCKS5, which has a dialogue,
 * shares all but the first of these.
 */

#include <stdbool.h>
#include <stddef.h>

/* How a connection learns its destination. */
enum mode_learn {
	LEARN_SOCKS5,   /* by dialogue: client.c */
	LEARN_NOTHING,  /* there is no question: it is in the configuration */
	LEARN_PREFIX,   /* at the head of the stream: prefix.h */
	LEARN_REDIRECT, /* from the kernel that redirected it: origdst.h */
};

/* What is connected to. */
enum mode_reach {
	REACH_TARGET,      /* the configured target */
	REACH_DESTINATION, /* what was learned, over TCP */
	REACH_PORT,        /* the target, on the port that was learned */
};

/**
 * struct mode - a mode of the proxy
 * @name:        of the mode, and of the command that is a link to `proxy`
 * @learn, @reach: see above
 * @from_vsock:  the listener is the vsock side (-v), else the IP side (-i)
 * @send_prefix: what was learned goes ahead of the stream
 * @forth, @back: the two directions, for log lines
 * @summary:     one sentence for the help text
 */
struct mode {
	const char *name;
	enum mode_learn learn;
	enum mode_reach reach;
	bool from_vsock;
	bool send_prefix;
	const char *forth;
	const char *back;
	const char *summary;
};

enum mode_id {
	MODE_SOCKS5,
	MODE_VSOCK_TO_IP,
	MODE_IP_TO_VSOCK,
	MODE_VSOCK_TO_IP_TRANSPARENT,
	MODE_IP_TO_VSOCK_TRANSPARENT,
	MODE_TRANSPARENT_PORT_TO_VSOCK,
	NR_MODES,
};

/** mode_table - indexed by enum mode_id */
extern const struct mode mode_table[NR_MODES];

/** mode_find() - by name, of @len bytes. Return: NULL if there is none */
const struct mode *mode_find(const char *name, size_t len);

/** mode_is_transparent() - does @mode learn an original destination? */
static inline bool mode_is_transparent(const struct mode *mode)
{
	return mode->learn == LEARN_PREFIX || mode->learn == LEARN_REDIRECT;
}

#endif
