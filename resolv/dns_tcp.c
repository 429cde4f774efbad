/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_tcp.h"
#include "common/fd.h"
#include "resolv/dns_msg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PREFIX_LEN      2
#define RX_SIZE_MIN     4096
#define TX_SIZE_MIN     4096
#define READS_PER_EVENT 8 /* then others have their turn */

static void check(const struct dns_tcp *tcp)
{
	assert(tcp->rx_off <= tcp->rx_len && tcp->rx_len <= tcp->rx_size);
	assert(tcp->tx_off <= tcp->tx_len && tcp->tx_len <= tcp->tx_size);
	assert(tcp->fd >= 0 || !ev_is_active(&tcp->io));
}

/* The one place that decides what to poll for. */
static void rewatch(struct dns_tcp *tcp)
{
	int events = 0;
	int pending = 0;

	check(tcp);
	if (tcp->reading && !tcp->eof)
		events |= EV_READ;
	if (dns_tcp_queued(tcp) > 0)
		events |= EV_WRITE;
	if (ev_is_active(&tcp->io)) {
		if (events == (tcp->io.events & (EV_READ | EV_WRITE)))
			return;
		/* Stopping forgets events fed but not yet seen: keep them. */
		pending = ev_clear_pending(tcp->loop, &tcp->io);
		ev_io_stop(tcp->loop, &tcp->io);
	}
	if (events != 0) {
		ev_io_set(&tcp->io, tcp->fd, events);
		ev_io_start(tcp->loop, &tcp->io);
	}
	if (pending & EV_CUSTOM)
		ev_feed_event(tcp->loop, &tcp->io, EV_CUSTOM);
}

static size_t rx_have(const struct dns_tcp *tcp)
{
	return tcp->rx_len - tcp->rx_off;
}

/* Bytes of the message at the front with its prefix, once that is known. */
static size_t rx_need(const struct dns_tcp *tcp)
{
	const uint8_t *p;

	if (rx_have(tcp) < PREFIX_LEN)
		return PREFIX_LEN;
	p = tcp->rx + tcp->rx_off;
	return PREFIX_LEN + ((size_t)p[0] << 8 | p[1]);
}

/*
 * rx_reserve() - see to it that there is room for the message at the front
 *
 * Bytes are moved only when the message at the front would not fit behind
 * them, so each message is moved at most once.
 *
 * Return: 0, or -1 if there is no memory.
 */
static int rx_reserve(struct dns_tcp *tcp)
{
	size_t need = rx_need(tcp);
	size_t size = tcp->rx_size;
	uint8_t *rx;

	if (tcp->rx_off > 0 && tcp->rx_off + need > size) {
		memmove(tcp->rx, tcp->rx + tcp->rx_off, rx_have(tcp));
		tcp->rx_len -= tcp->rx_off;
		tcp->rx_off = 0;
	}
	if (size < RX_SIZE_MIN)
		size = RX_SIZE_MIN;
	if (size < tcp->rx_off + need)
		size = tcp->rx_off + need;
	if (size == tcp->rx_size)
		return 0;
	rx = realloc(tcp->rx, size);
	if (!rx)
		return -1;
	tcp->rx = rx;
	tcp->rx_size = size;
	return 0;
}

static void rx_release_if_empty(struct dns_tcp *tcp)
{
	if (rx_have(tcp) > 0)
		return;
	free(tcp->rx);
	tcp->rx = NULL;
	tcp->rx_off = tcp->rx_len = tcp->rx_size = 0;
}

/* Hand out whole messages for as long as the owner wants them. */
static void deliver(struct dns_tcp *tcp)
{
	while (tcp->fd >= 0 && tcp->reading && rx_have(tcp) >= PREFIX_LEN) {
		size_t need = rx_need(tcp);
		uint8_t *msg = tcp->rx + tcp->rx_off + PREFIX_LEN;

		if (rx_have(tcp) < need)
			break;
		tcp->rx_off += need;
		/* The buffer cannot move: only this function's callers read. */
		tcp->ops->message(tcp, msg, need - PREFIX_LEN);
	}
}

static void fail(struct dns_tcp *tcp, int err)
{
	tcp->eof = true;
	tcp->err = 0;
	tcp->tx_off = tcp->tx_len = 0;
	rewatch(tcp);
	tcp->ops->closed(tcp, err);
}

static void end_of_file(struct dns_tcp *tcp)
{
	tcp->eof = true;
	rewatch(tcp);
	tcp->ops->closed(tcp, 0);
}

/* Return: whether to try once more. */
static bool read_some(struct dns_tcp *tcp)
{
	ssize_t n;

	if (rx_reserve(tcp) == -1) {
		fail(tcp, ENOMEM);
		return false;
	}
	n = recv(tcp->fd, tcp->rx + tcp->rx_len, tcp->rx_size - tcp->rx_len, 0);
	if (n > 0) {
		tcp->rx_len += (size_t)n;
		return true;
	}
	if (n == -1 && errno == EINTR)
		return true;
	if (tcp->err != 0)
		return false; /* it is told when all has been read */
	if (n == 0)
		end_of_file(tcp);
	else if (errno != EAGAIN)
		fail(tcp, errno);
	return false;
}

static void on_readable(struct dns_tcp *tcp)
{
	int i;

	deliver(tcp); /* what was left when reading had been stopped */
	for (i = 0; i < READS_PER_EVENT; i++) {
		if (tcp->fd < 0 || !tcp->reading || tcp->eof)
			break;
		if (!read_some(tcp))
			break;
		deliver(tcp);
	}
	if (tcp->fd < 0)
		return;
	rx_release_if_empty(tcp);
	rewatch(tcp);
}

/*
 * on_write_error() - report it, after all that had been received before
 *
 * A server that closes after so many queries resets the connection when more
 * of them are on the way. What it answered is still there to be read, and not
 * more than the kernel's buffer holds.
 */
static void on_write_error(struct dns_tcp *tcp)
{
	deliver(tcp);
	while (tcp->fd >= 0 && tcp->reading && !tcp->eof && read_some(tcp))
		deliver(tcp);
	if (tcp->fd >= 0 && tcp->err != 0)
		fail(tcp, tcp->err);
}

/*
 * write_some() - write what is queued
 *
 * An error is kept for the loop to report, because the caller may be in the
 * middle of something.
 */
static void write_some(struct dns_tcp *tcp)
{
	ssize_t n;

	while (dns_tcp_queued(tcp) > 0) {
		n = send(tcp->fd, tcp->tx + tcp->tx_off, dns_tcp_queued(tcp),
			MSG_NOSIGNAL);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && errno == EAGAIN)
			return;
		if (n == -1) {
			tcp->err = errno;
			tcp->tx_off = tcp->tx_len = 0;
			ev_feed_event(tcp->loop, &tcp->io, EV_CUSTOM);
			break;
		}
		tcp->tx_off += (size_t)n;
	}
	free(tcp->tx);
	tcp->tx = NULL;
	tcp->tx_off = tcp->tx_len = tcp->tx_size = 0;
}

static void on_event(struct ev_loop *loop, ev_io *io, int revents)
{
	struct dns_tcp *tcp = io->data;

	assert(tcp->fd >= 0);
	if (tcp->err == 0 && revents & EV_WRITE)
		write_some(tcp);
	if (tcp->err != 0) {
		on_write_error(tcp);
		return;
	}
	if (revents & EV_WRITE && dns_tcp_queued(tcp) == 0) {
		rewatch(tcp);
		if (tcp->ops->drained)
			tcp->ops->drained(tcp);
	}
	if (tcp->fd >= 0 && revents & (EV_READ | EV_CUSTOM))
		on_readable(tcp);
}

void dns_tcp_init(struct dns_tcp *tcp)
{
	*tcp = (struct dns_tcp){.fd = -1};
	ev_init(&tcp->io, on_event);
}

void dns_tcp_open(struct dns_tcp *tcp, struct ev_loop *loop, int fd,
	size_t tx_max, const struct dns_tcp_ops *ops)
{
	assert(tcp->fd == -1 && fd >= 0);
	dns_tcp_init(tcp);
	tcp->loop = loop;
	tcp->fd = fd;
	tcp->tx_max = tx_max;
	tcp->ops = ops;
	tcp->io.data = tcp;
	tcp->reading = true;
	rewatch(tcp);
}

void dns_tcp_close(struct dns_tcp *tcp)
{
	if (tcp->fd == -1)
		return;
	ev_io_stop(tcp->loop, &tcp->io);
	closefd(&tcp->fd);
	free(tcp->rx);
	free(tcp->tx);
	tcp->rx = tcp->tx = NULL;
	tcp->rx_off = tcp->rx_len = tcp->rx_size = 0;
	tcp->tx_off = tcp->tx_len = tcp->tx_size = 0;
}

/* Return: 0, or -1 and errno. */
static int tx_reserve(struct dns_tcp *tcp, size_t more)
{
	size_t have = dns_tcp_queued(tcp);
	size_t size = tcp->tx_size;
	uint8_t *tx;

	if (have + more > tcp->tx_max) {
		errno = ENOBUFS;
		return -1;
	}
	if (tcp->tx_off > 0 && tcp->tx_len + more > size) {
		memmove(tcp->tx, tcp->tx + tcp->tx_off, have);
		tcp->tx_off = 0;
		tcp->tx_len = have;
	}
	if (tcp->tx_len + more <= size)
		return 0;
	size = size < TX_SIZE_MIN ? TX_SIZE_MIN : size * 2;
	if (size < tcp->tx_len + more)
		size = tcp->tx_len + more;
	tx = realloc(tcp->tx, size);
	if (!tx)
		return -1;
	tcp->tx = tx;
	tcp->tx_size = size;
	return 0;
}

/* Try to write at once. Return: bytes written, 0 if none or on error. */
static size_t send_now(struct dns_tcp *tcp, struct iovec *iov)
{
	struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n = sendmsg(tcp->fd, &mh, MSG_NOSIGNAL);

	if (n >= 0)
		return (size_t)n;
	if (errno != EAGAIN && errno != EINTR) {
		tcp->err = errno;
		ev_feed_event(tcp->loop, &tcp->io, EV_CUSTOM);
	}
	return 0;
}

int dns_tcp_send(struct dns_tcp *tcp, const uint8_t *msg, size_t len)
{
	uint8_t prefix[PREFIX_LEN] = {(uint8_t)(len >> 8), (uint8_t)len};
	struct iovec iov[2] = {
		{.iov_base = prefix, .iov_len = PREFIX_LEN},
		{.iov_base = (void *)(uintptr_t)msg, .iov_len = len},
	};
	size_t done = 0;
	int i;

	assert(tcp->fd >= 0 && len > 0 && len <= DNS_MSG_MAX);
	if (tcp->err != 0)
		return 0;
	if (dns_tcp_queued(tcp) == 0)
		done = send_now(tcp, iov);
	if (tcp->err != 0 || done == PREFIX_LEN + len)
		return 0;
	if (tx_reserve(tcp, PREFIX_LEN + len - done) == -1) {
		/* Half a message is out: the stream is of no more use. */
		if (done > 0) {
			tcp->err = errno;
			ev_feed_event(tcp->loop, &tcp->io, EV_CUSTOM);
			return 0;
		}
		return -1;
	}
	for (i = 0; i < 2; i++) {
		size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;

		done -= skip;
		memcpy(tcp->tx + tcp->tx_len, (uint8_t *)iov[i].iov_base + skip,
			iov[i].iov_len - skip);
		tcp->tx_len += iov[i].iov_len - skip;
	}
	rewatch(tcp);
	return 0;
}

void dns_tcp_set_reading(struct dns_tcp *tcp, bool on)
{
	if (tcp->fd < 0 || tcp->reading == on)
		return;
	tcp->reading = on;
	rewatch(tcp);
	/* Whole messages may wait in the buffer while the socket is silent. */
	if (on && rx_have(tcp) > 0)
		ev_feed_event(tcp->loop, &tcp->io, EV_CUSTOM);
}
