/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_PAIRING_H
#define VENDOR_PAIRING_H

/*
 * How the host proxy is asked for a standby connection, and how it tells that a
 * client has come: the second reply has the client's address, and a third one,
 * unless the port is held by plain BIND, which of the host's addresses it
 * reached (common/hold_name.h).
 *
 * They are read to the last byte and not one byte further: what follows is the
 * client's stream, and by then the application's.
 */

#include "common/socks5.h"

/**
 * struct pool_port - which port
 * @plain: by plain BIND, else by @key
 * @family: of the address in a plain BIND, AF_INET or AF_INET6
 * @key:   that the port is held with
 */
struct pool_port {
	uint16_t port;
	bool plain;
	sa_family_t family;
	uint8_t key[16];
};

enum pairing_state {
	PAIRING_WHOLE,
	PAIRING_PART, /* wait for the fd */
	PAIRING_FAILED,
};

/**
 * struct pairing - the replies so far; zeroed but for @plain to begin with
 * @plain:  by plain BIND: there is no third reply
 * @got:    bytes in @in
 * @in:     the second reply, or the third
 * @remote: the client, when the second is whole; else AF_UNSPEC
 * @local:  the address that it reached, when the third is; else AF_UNSPEC
 */
struct pairing {
	bool plain;
	size_t got;
	uint8_t in[SOCKS5_REPLY_MAX];
	struct ip_port remote;
	struct ip_port local;
};

/** pairing_ask() - the destination of a BIND that asks for a standby connection
 */
void pairing_ask(const struct pool_port *port, struct socks5_addr *dst);

/**
 * pairing_read() - read what is there
 * @fd:  non-blocking, behind its first reply
 * @why: set upon PAIRING_FAILED
 */
enum pairing_state pairing_read(struct pairing *p, int fd, const char **why);

/** pairing_has_begun() - has a byte of it come? */
bool pairing_has_begun(const struct pairing *p);

#endif
