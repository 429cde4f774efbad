/* SPDX-License-Identifier: Apache-2.0 */
#include "test_dns_fake.h"
#include "common/fd.h"
#include "test_dns_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define TX_SIZE ((size_t)16 * 1024 * 1024)

uint32_t fake_ip(const uint8_t *question, size_t len)
{
	uint32_t hash = 5381;

	while (len-- > 0) {
		uint8_t c = *question++;

		if (c >= 'A' && c <= 'Z')
			c = (uint8_t)(c + 32);
		hash = hash * 33 + c;
	}
	return hash;
}

/* ---- connections ---- */

static void conn_close(struct fake_conn *conn)
{
	struct fake *fake = conn->fake;
	int i;

	ev_io_stop(fake->loop, &conn->io);
	ev_io_stop(fake->loop, &conn->out);
	ev_timer_stop(fake->loop, &conn->late);
	closefd(&conn->fd);
	for (i = 0; i < FAKE_CONNS; i++)
		if (fake->conns[i] == conn)
			fake->conns[i] = NULL;
	fake->open--;
	free(conn->tx);
	free(conn);
}

static void on_out(struct ev_loop *loop, ev_io *io, int revents)
{
	struct fake_conn *conn = io->data;
	size_t n = conn->tx_len - conn->tx_off;
	ssize_t sent;

	if (conn->fake->manner == FAKE_DRIP && n > 1)
		n = 1;
	sent = send(conn->fd, conn->tx + conn->tx_off, n, MSG_NOSIGNAL);
	if (sent > 0)
		conn->tx_off += (size_t)sent;
	if (conn->tx_off == conn->tx_len) {
		conn->tx_off = conn->tx_len = 0;
		ev_io_stop(loop, io);
	}
}

static void out(struct fake_conn *conn, const void *data, size_t len)
{
	ck_assert_uint_le(len, TX_SIZE - conn->tx_len);
	memcpy(conn->tx + conn->tx_len, data, len);
	conn->tx_len += len;
	ev_io_start(conn->fake->loop, &conn->out);
}

/* Push out what there is before the connection is closed. */
static void flush(struct fake_conn *conn)
{
	if (conn->tx_len > conn->tx_off)
		(void)!send(conn->fd, conn->tx + conn->tx_off,
			conn->tx_len - conn->tx_off, MSG_NOSIGNAL);
}

static struct wire w;

/* The end of the question of a query that is known to be good. */
static size_t question_end(const uint8_t *q)
{
	size_t at = 12;

	while (q[at])
		at += 1u + q[at];
	return at + 5;
}

static void build(const uint8_t *q, unsigned id, unsigned rcode, bool other)
{
	size_t end = question_end(q);

	wire_header(&w, id, 0x8180 | rcode, 1, rcode == 0, 0, 0);
	if (other)
		wire_name(&w, "other.test");
	else
		wire_bytes(&w, q + 12, end - 12 - 4);
	wire_bytes(&w, q + end - 4, 4);
	if (rcode == 0)
		wire_a(&w, fake_ip(q + 12, end - 16));
}

static void send_part(struct fake_conn *conn, size_t part)
{
	uint8_t prefix[2] = {(uint8_t)(w.len >> 8), (uint8_t)w.len};

	out(conn, prefix, 2);
	out(conn, w.buf, part);
}

static void send_whole(struct fake_conn *conn)
{
	send_part(conn, w.len);
}

static void answer_kept(struct fake_conn *conn)
{
	while (conn->kept > 0) {
		const uint8_t *q = conn->keep[--conn->kept];

		build(q, wire_get16(q), conn->fake->rcode, false);
		send_whole(conn);
	}
}

/* Return: whether the connection is still there. */
static bool serve(struct fake_conn *conn, const uint8_t *q, size_t len)
{
	struct fake *fake = conn->fake;
	unsigned id = wire_get16(q);

	fake->asked++;
	conn->served++;
	build(q, id, 0, false);
	switch (fake->manner) {
	case FAKE_REFUSE:
	case FAKE_CLOSE:
	case FAKE_SILENT: return true;
	case FAKE_DRIP:
	case FAKE_ANSWER: break;
	case FAKE_CLOSE_ASKED: conn_close(conn); return false;
	case FAKE_CLOSE_AFTER:
		if (conn->served <= fake->limit)
			break;
		flush(conn);
		conn_close(conn);
		return false;
	case FAKE_CLOSE_BEHIND:
		send_whole(conn);
		if (conn->served < fake->limit)
			return true;
		flush(conn);
		conn_close(conn);
		return false;
	case FAKE_WRONG_ID: build(q, id ^ 0x5555, 0, false); break;
	case FAKE_WRONG_QUESTION: build(q, id, 0, true); break;
	case FAKE_WRONG_THEN_RIGHT:
		build(q, id ^ 0x5555, 0, false);
		send_whole(conn);
		build(q, id, 0, true);
		send_whole(conn);
		build(q, id, 0, false);
		break;
	case FAKE_HALF: send_part(conn, w.len / 2); return true;
	case FAKE_HALF_CLOSE:
		send_part(conn, w.len / 2);
		flush(conn);
		conn_close(conn);
		return false;
	case FAKE_HUGE:
		wire_set16(&w, 10, 1);
		wire_bytes(&w, "\0\0\x10\0\1\0\0\0\0", 9);
		wire_u16(&w, 65535 - (unsigned)w.len - 2);
		while (w.len < 65535)
			wire_u8(&w, 0xaa);
		break;
	case FAKE_GARBAGE: out(conn, "\0\20HTTP/1.0 400 Bad", 18); return true;
	case FAKE_RCODE: build(q, id, fake->rcode, false); break;
	case FAKE_BARE:
		wire_header(&w, id, 0x8180 | fake->rcode, 0, 0, 0, 0);
		break;
	case FAKE_SHUFFLE:
		ck_assert_uint_lt(conn->kept, FAKE_KEEP);
		memcpy(conn->keep[conn->kept], q, len < 300 ? len : 300);
		conn->keep_len[conn->kept++] = len;
		if (conn->kept >= fake->limit)
			answer_kept(conn);
		return true;
	case FAKE_LATE:
		ck_assert_uint_lt(conn->kept, FAKE_KEEP);
		memcpy(conn->keep[conn->kept], q, len < 300 ? len : 300);
		conn->keep_len[conn->kept++] = len;
		if (!ev_is_active(&conn->late)) {
			ev_timer_set(&conn->late, fake->delay, 0.);
			ev_timer_start(fake->loop, &conn->late);
		}
		return true;
	case FAKE_SLOW_NAME:
		if (memcmp(q + 12, "\4slow\4test", 11) == 0)
			conn->stuck = true;
		if (conn->stuck)
			return true;
		break;
	}
	send_whole(conn);
	return true;
}

static void on_late(struct ev_loop *loop, ev_timer *timer, int revents)
{
	answer_kept(timer->data);
}

static void on_in(struct ev_loop *loop, ev_io *io, int revents)
{
	struct fake_conn *conn = io->data;
	ssize_t n = recv(conn->fd, conn->in + conn->have,
		sizeof(conn->in) - conn->have, 0);
	size_t need;

	if (n <= 0) {
		conn_close(conn);
		return;
	}
	conn->have += (size_t)n;
	while (conn->have >= 2) {
		need = 2 + wire_get16(conn->in);
		if (conn->have < need)
			break;
		if (!serve(conn, conn->in + 2, need - 2))
			return;
		conn->have -= need;
		memmove(conn->in, conn->in + need, conn->have);
	}
	/* Nothing more is coming: what was kept is due. */
	if (conn->fake->manner == FAKE_SHUFFLE)
		answer_kept(conn);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	struct fake *fake = io->data;
	int fd = accept4(fake->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct fake_conn *conn;
	int i = 0;

	if (fd == -1)
		return;
	fake->accepted++;
	if (fake->manner == FAKE_CLOSE) {
		closefd(&fd);
		return;
	}
	conn = calloc(1, sizeof(*conn));
	conn->tx = malloc(TX_SIZE);
	conn->fake = fake;
	conn->fd = fd;
	ev_io_init(&conn->io, on_in, fd, EV_READ);
	ev_io_init(&conn->out, on_out, fd, EV_WRITE);
	ev_init(&conn->late, on_late);
	conn->io.data = conn->out.data = conn->late.data = conn;
	ev_io_start(fake->loop, &conn->io);
	while (fake->conns[i])
		ck_assert_int_lt(++i, FAKE_CONNS);
	fake->conns[i] = conn;
	fake->open++;
}

/* ---- life ---- */

static void bind_again(struct fake *fake)
{
	const int on = 1;
	union sockaddr_any sa;
	socklen_t len = ip_port_to_sockaddr(&fake->addr.addr, &sa);

	fake->fd = socket(
		sa.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fake->fd, 0);
	setsockopt(fake->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	ck_assert_int_eq(bind(fake->fd, &sa.sa, len), 0);
	len = sizeof(sa);
	ck_assert_int_eq(getsockname(fake->fd, &sa.sa, &len), 0);
	ip_port_from_sockaddr(&fake->addr.addr, &sa.sa, len);
	if (fake->manner != FAKE_REFUSE)
		ck_assert_int_eq(listen(fake->fd, 64), 0);
	ev_io_init(&fake->io, on_accept, fake->fd, EV_READ);
	fake->io.data = fake;
	if (fake->manner != FAKE_REFUSE)
		ev_io_start(fake->loop, &fake->io);
}

void fake_start(struct fake *fake, struct ev_loop *loop, const char *ip,
	enum fake_manner manner)
{
	memset(fake, 0, sizeof(*fake));
	fake->loop = loop;
	fake->manner = manner;
	fake->addr.addr.family = AF_INET;
	ck_assert_int_eq(inet_pton(AF_INET, ip, fake->addr.addr.ip), 1);
	bind_again(fake);
}

void fake_stop(struct fake *fake)
{
	int i;

	for (i = 0; i < FAKE_CONNS; i++)
		if (fake->conns[i])
			conn_close(fake->conns[i]);
	ck_assert_uint_eq(fake->open, 0);
	ev_io_stop(fake->loop, &fake->io);
	closefd_if(&fake->fd);
}

void fake_restart(struct fake *fake)
{
	fake_stop(fake);
	bind_again(fake);
}

/* ---- dialer ---- */

struct fake_dial {
	struct ev_loop *loop;
	ev_io io;
	ev_timer timer;
	dns_dialed_cb *cb;
	void *arg;
	int fd;
	int err;
};

static unsigned dialing;

static void dial_end(struct fake_dial *dial)
{
	ev_io_stop(dial->loop, &dial->io);
	ev_timer_stop(dial->loop, &dial->timer);
	dialing--;
}

static void on_connected(struct ev_loop *loop, ev_io *io, int revents)
{
	struct fake_dial *dial = io->data;
	socklen_t len = sizeof(dial->err);

	getsockopt(dial->fd, SOL_SOCKET, SO_ERROR, &dial->err, &len);
	if (dial->err)
		closefd(&dial->fd);
	dial_end(dial);
	dial->cb(dial->arg, dial->fd, dial->err);
	free(dial);
}

static void on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct fake_dial *dial = timer->data;

	closefd_if(&dial->fd);
	dial_end(dial);
	dial->cb(dial->arg, -1, dial->err ? dial->err : ETIMEDOUT);
	free(dial);
}

static void *dial_start(void *ctx, const struct socks5_addr *server,
	double timeout, dns_dialed_cb *cb, void *arg)
{
	struct fake_dial *dial = calloc(1, sizeof(*dial));
	union sockaddr_any sa;
	socklen_t len = ip_port_to_sockaddr(&server->addr, &sa);

	dial->loop = ctx;
	dial->cb = cb;
	dial->arg = arg;
	dial->fd = -1;
	ev_init(&dial->io, on_connected);
	ev_timer_init(&dial->timer, on_timeout, timeout, 0.);
	dial->io.data = dial->timer.data = dial;
	ev_timer_start(dial->loop, &dial->timer);
	dialing++;
	if (server->addr.family == AF_UNSPEC)
		return dial; /* the black hole */
	dial->fd = socket(
		sa.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd == -1 || (connect(dial->fd, &sa.sa, len) == -1 &&
				      errno != EINPROGRESS)) {
		dial->err = errno;
		closefd_if(&dial->fd);
		ev_timer_stop(dial->loop, &dial->timer);
		ev_timer_set(&dial->timer, 0., 0.);
		ev_timer_start(dial->loop, &dial->timer);
	} else {
		ev_io_set(&dial->io, dial->fd, EV_WRITE);
		ev_io_start(dial->loop, &dial->io);
	}
	return dial;
}

static void dial_cancel(void *ctx, void *handle)
{
	struct fake_dial *dial = handle;

	dial_end(dial);
	closefd_if(&dial->fd);
	free(dial);
}

struct dns_dialer fake_dialer(struct ev_loop *loop)
{
	return (struct dns_dialer){
		.start = dial_start, .cancel = dial_cancel, .ctx = loop};
}

unsigned fake_dialing(void)
{
	return dialing;
}
