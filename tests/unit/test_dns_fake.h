/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_DNS_FAKE_H
#define TEST_DNS_FAKE_H

/*
 * A DNS server over TCP that misbehaves as it is told, on the test's own event
 * loop, and a dialer of plain TCP sockets that leads to it.
 *
 * An answer to a question of type A holds one address that follows from the
 * name (fake_ip()), so that an answer to the wrong question shows.
 */

#include "resolv/dns_upstream.h"

#include <ev.h>

enum fake_manner {
	FAKE_ANSWER,       /* well, at once */
	FAKE_SILENT,       /* never */
	FAKE_REFUSE,       /* nobody listens */
	FAKE_CLOSE,        /* accepts and closes */
	FAKE_CLOSE_ASKED,  /* closes when asked */
	FAKE_CLOSE_AFTER,  /* answers @limit queries, closes at the next one */
	FAKE_CLOSE_BEHIND, /* answers @limit queries and closes */
	FAKE_WRONG_ID,
	FAKE_WRONG_QUESTION,
	FAKE_WRONG_THEN_RIGHT, /* both of these, and then the answer */
	FAKE_HALF,             /* the first half of the answer, then nothing */
	FAKE_HALF_CLOSE,       /* the same, then closes */
	FAKE_HUGE,             /* an answer of 65535 bytes */
	FAKE_GARBAGE,          /* bytes that are no message */
	FAKE_RCODE,            /* an answer with @rcode */
	FAKE_BARE,             /* a header with @rcode, no question */
	FAKE_SHUFFLE,   /* keeps @limit queries, answers them backwards */
	FAKE_LATE,      /* well, @delay after the first of a batch */
	FAKE_DRIP,      /* answers byte by byte */
	FAKE_SLOW_NAME, /* in turn, but never the name "slow.test" and
			 * nothing behind it on that connection */
};

#define FAKE_CONNS 64
#define FAKE_KEEP  512

struct fake_conn {
	struct fake *fake;
	ev_io io;
	ev_io out;
	ev_timer late;
	int fd;
	unsigned served;
	bool stuck;
	size_t have;
	uint8_t in[65537];
	size_t tx_len, tx_off;
	uint8_t *tx;
	unsigned kept;
	uint8_t keep[FAKE_KEEP][300];
	size_t keep_len[FAKE_KEEP];
};

/**
 * struct fake - a server; set @manner at any time
 * @delay:	seconds, see FAKE_LATE
 * @asked:	queries received
 * @accepted:	connections accepted
 * @open:	of these, still open
 */
struct fake {
	struct ev_loop *loop;
	enum fake_manner manner;
	unsigned limit;
	unsigned rcode;
	double delay;
	struct socks5_addr addr;
	int fd;
	ev_io io;
	unsigned asked;
	unsigned accepted;
	unsigned open;
	struct fake_conn *conns[FAKE_CONNS];
};

/** fake_start() - listen on @ip; FAKE_REFUSE: find a port and do not listen */
void fake_start(struct fake *fake, struct ev_loop *loop, const char *ip,
	enum fake_manner manner);

/** fake_stop() - close it and its connections; start it again if you like */
void fake_stop(struct fake *fake);

/** fake_restart() - stop it and listen again on the same port */
void fake_restart(struct fake *fake);

/** fake_ip() - the address that a question's name has; case does not count */
uint32_t fake_ip(const uint8_t *question, size_t len);

/**
 * fake_dialer() - plain non-blocking connect() to the servers' addresses
 *
 * A server that is a name is a black hole: nothing ever comes of it.
 */
struct dns_dialer fake_dialer(struct ev_loop *loop);

/** fake_dialing() - connection attempts that have not ended */
unsigned fake_dialing(void);

#endif
