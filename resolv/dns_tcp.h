/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_TCP_H
#define RESOLV_DNS_TCP_H

/*
 * DNS messages over one stream socket (RFC 1035 section 4.2.2, RFC 7766
 * section 8): a two-byte length, then the message. The same for the stub's
 * clients and for its connections to servers.
 *
 * Theory of operation
 *
 * Reading collects bytes in a buffer that exists only while a message is not
 * whole, starts small and grows to that message's length at most; an idle
 * connection holds none. Whole messages are handed out one by one. The owner
 * may stop reading at any of them (back-pressure); what was already read
 * waits in the buffer.
 *
 * Writing goes to the kernel at once if it can and queues the rest, up to a
 * limit. Length and message go out together (RFC 7766 section 8).
 *
 * The poll mask follows from (reading, end of file seen, bytes queued) and is
 * set in one place. Failure is told through closed(), once, and always from
 * the loop: dns_tcp_send() never calls back. No call-back is made after
 * dns_tcp_close(), which may be called from within any of them; the struct
 * itself must stay valid until the loop's turn ends.
 */

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dns_tcp;

/**
 * struct dns_tcp_ops - what the owner wants to hear
 * @message: a whole message; writable, valid during the call
 * @closed:  the other side ended (@err 0; its answers may still be sent, as
 *           writing goes on) or failed (@err an errno; nothing goes on)
 * @drained: all that was queued for writing has gone; may be NULL
 */
struct dns_tcp_ops {
	void (*message)(struct dns_tcp *tcp, uint8_t *msg, size_t len);
	void (*closed)(struct dns_tcp *tcp, int err);
	void (*drained)(struct dns_tcp *tcp);
};

/**
 * struct dns_tcp - one connection; embed it
 * @fd:      -1 when closed
 * @err:     a write error that the loop has yet to report, or 0
 * @reading: the owner wants messages
 * @eof:     the other side will send no more
 * @rx:      bytes read, [rx_off, rx_len) not yet handed out, of rx_size
 * @tx:      bytes to write, [tx_off, tx_len) not yet written, of tx_size
 * @tx_max:  most bytes to queue
 */
struct dns_tcp {
	struct ev_loop *loop;
	const struct dns_tcp_ops *ops;
	ev_io io;
	int fd;
	int err;
	bool reading;
	bool eof;
	uint8_t *rx;
	size_t rx_off, rx_len, rx_size;
	uint8_t *tx;
	size_t tx_off, tx_len, tx_size;
	size_t tx_max;
};

/** dns_tcp_init() - a closed connection: dns_tcp_close() does nothing */
void dns_tcp_init(struct dns_tcp *tcp);

/**
 * dns_tcp_open() - begin on a connected socket
 * @tcp:    closed
 * @fd:     non-blocking; owned from now on
 * @tx_max: most bytes to queue for writing
 * @ops:    call-backs
 */
void dns_tcp_open(struct dns_tcp *tcp, struct ev_loop *loop, int fd,
	size_t tx_max, const struct dns_tcp_ops *ops);

/** dns_tcp_close() - end, and free the buffers; again does nothing */
void dns_tcp_close(struct dns_tcp *tcp);

/**
 * dns_tcp_send() - send a message
 * @tcp: open
 * @msg: the message
 * @len: 1 to 65535
 *
 * Return: 0 (sent, queued, or lost because the connection broke, which
 * closed() will tell), or -1 and errno: ENOBUFS when @tx_max would be
 * exceeded, ENOMEM.
 */
int dns_tcp_send(struct dns_tcp *tcp, const uint8_t *msg, size_t len);

/** dns_tcp_set_reading() - stop or go on with handing out messages */
void dns_tcp_set_reading(struct dns_tcp *tcp, bool on);

/** dns_tcp_queued() - bytes that wait for the other side to read */
static inline size_t dns_tcp_queued(const struct dns_tcp *tcp)
{
	return tcp->tx_len - tcp->tx_off;
}

#endif
