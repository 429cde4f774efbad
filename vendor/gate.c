/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "vendor/gate_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * This file has the states, the messages and the end of a gate, and the set of
 * all; vendor/gate_request.c does what a request asks.
 *
 * A gate goes through these states, always forward:
 *
 *	WAITING   accepted, no request yet. Ends after the request
 *	          timeout
 *	WORKING   the request is peeked and lies in the queue; a dial runs
 *	SENDING   the result did not go out for want of memory, or because too
 *	          many passed fds are under way; tried again soon
 *	SERVED    the result went out and the request is consumed: the peer's
 *	          socket is writable. Kept until the peer closes its end, which
 *	          is what the library does when it takes the carrier
 *	PARKED    a REJOIN was refused; closed after PARK_TIME, since whoever
 *	          rejoins does so again at once
 *	CLOSED    fd closed, waits to be freed at the end of the loop turn
 *
 * Each has one registration for its whole life (vendor/edge.h). The peer's
 * hang-up ends a gate in any state, and cancels its dial: the application
 * closed its socket.
 *
 * A failure is answered with a result and a close with the request unread, a
 * success with a result and the request consumed, in this order, so that the
 * peer that is woken finds the result. A refusal before any request arrived
 * (a uid that is not served) has nothing to leave unread; the peer's send()
 * then fails with EPIPE and its result is there all the same.
 *
 * Requests are read without room for control messages: fds that come with one
 * are never installed here, the kernel only reports them (MSG_CTRUNC), and a
 * message that brings any is refused.
 */

#define SEND_PAUSE 0.02 /* between two tries in SENDING */
#define SEND_TRIES 250  /* 5 s */

static const char *const state_names[] = {
	[GATE_WAITING] = "waiting",
	[GATE_WORKING] = "working",
	[GATE_SENDING] = "sending",
	[GATE_SERVED] = "served",
	[GATE_PARKED] = "parked",
	[GATE_CLOSED] = "closed",
};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == GATE_CLOSED + 1,
	"a name for each state");

/* ---- states ---- */

void gate_set_state(struct gate *g, enum gate_state state)
{
	assert(state >= g->state);
	log_debug("gate %llu (uid %u): %s -> %s", (unsigned long long)g->id,
		g->uid, state_names[g->state], state_names[state]);
	g->state = state;
}

static void unlink_gate(struct gate *g)
{
	struct gates *gates = g->gates;

	if (g->prev)
		g->prev->next = g->next;
	else
		gates->open = g->next;
	if (g->next)
		g->next->prev = g->prev;
	gates->count--;
}

void gate_close(struct gate *g)
{
	struct gates *gates = g->gates;

	if (g->state == GATE_CLOSED)
		return;
	gate_set_state(g, GATE_CLOSED);
	ev_timer_stop(gates->loop, &g->timer);
	if (g->dial)
		dial_cancel(g->dial);
	g->dial = NULL;
	if (g->edge.poll)
		edge_drop(&g->edge);
	closefd_if(&g->fd); /* unless it is the inbound service's now */
	closefd_if(&g->carrier);
	unlink_gate(g);
	g->next = gates->dead;
	gates->dead = g;
}

/* ---- the result ---- */

/* Worth another try: what is short now may be there soon. */
static bool is_shortage(int err)
{
	return err == EAGAIN || err == ENOBUFS || err == ENOMEM ||
	       err == ETOOMANYREFS;
}

static void send_later(struct gate *g)
{
	if (g->state == GATE_SENDING && g->tries-- == 0) {
		log_warn_ratelimit("gate %llu (uid %u): no room for the "
				   "result, given up: %s",
			(unsigned long long)g->id, g->uid, log_strerror(errno));
		gate_close(g);
		return;
	}
	if (g->state != GATE_SENDING) {
		gate_set_state(g, GATE_SENDING);
		g->tries = SEND_TRIES;
	}
	ev_timer_stop(g->gates->loop, &g->timer);
	ev_timer_set(&g->timer, SEND_PAUSE, 0);
	ev_timer_start(g->gates->loop, &g->timer);
}

int gate_consume(struct gate *g)
{
	char byte;

	/* One byte takes the whole message out of the queue. */
	return recv(g->fd, &byte, 1, MSG_DONTWAIT) == -1 ? -1 : 0;
}

/* Send the result and open the gate, or close it. */
static void send_result(struct gate *g)
{
	if (fd_send(g->fd, &g->result, sizeof(g->result), g->carrier, 0) ==
		-1) {
		/* EPIPE: the peer has gone, there is nobody to tell. */
		if (is_shortage(errno))
			send_later(g);
		else
			gate_close(g);
		return;
	}
	if (g->result.status != 0) {
		gate_close(g);
		return;
	}
	closefd_if(&g->carrier);
	ev_timer_stop(g->gates->loop, &g->timer);
	if (gate_consume(g) == -1)
		gate_close(g);
	else
		gate_set_state(g, GATE_SERVED);
}

void gate_answer(struct gate *g, int status)
{
	g->result.status = status;
	send_result(g);
}

/* ---- the request ---- */

static void refuse(struct gate *g, ssize_t len, const char *why)
{
	/* Nothing read is an empty message or, mostly, a peer that left
	 * without a word, as one does who only looks whether we listen. */
	if (len > 0)
		log_warn_ratelimit("gate %llu (uid %u): message of %zd bytes "
				   "refused: %s",
			(unsigned long long)g->id, g->uid, len, why);
	vendor_result_init(&g->result, VENDOR_CONNECT, EPROTO);
	send_result(g);
}

/* WAITING: look whether the request is there, and begin. */
static void take_request(struct gate *g)
{
	struct vendor_request req;
	struct iovec iov = {.iov_base = &req, .iov_len = sizeof(req)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	const char *why;
	ssize_t n;

	n = recvmsg(g->fd, &msg, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == -1) {
		gate_close(g);
		return;
	}
	ev_timer_stop(g->gates->loop, &g->timer);
	why = vendor_request_check(&req, (size_t)n);
	if (msg.msg_flags & MSG_CTRUNC)
		why = "expected no control message with it";
	if (why)
		refuse(g, n, why);
	else
		gate_begin(g, &req);
}

/* ---- events ---- */

/* SERVED: is there anything besides the hang-up to come? */
static bool has_message(const struct gate *g)
{
	char byte;

	return recv(g->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void on_gate(struct edge *edge, uint32_t events)
{
	struct gate *g = edge_owner(edge, struct gate, edge);

	assert(g->magic == GATE_MAGIC && g->state != GATE_CLOSED);
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		gate_close(g);
	} else if (g->state == GATE_WAITING) {
		take_request(g);
	} else if (g->state == GATE_SERVED && has_message(g)) {
		/* Meant for the remote, by somebody who writes past the
		 * library: kept here it would be lost without a word. */
		log_warn_ratelimit("gate %llu (uid %u): data after the "
				   "result, closed",
			(unsigned long long)g->id, g->uid);
		gate_close(g);
	}
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct gate *g = timer->data;

	assert(g->magic == GATE_MAGIC);
	if (g->state == GATE_SENDING) {
		send_result(g);
		return;
	}
	if (g->state == GATE_PARKED) {
		gate_close(g);
		return;
	}
	assert(g->state == GATE_WAITING);
	log_warn_ratelimit("gate %llu (uid %u): no request within %.0f s, "
			   "closed",
		(unsigned long long)g->id, g->uid,
		g->gates->config->request_timeout);
	gate_close(g);
}

static void on_reap(struct ev_loop *loop, ev_prepare *watcher, int revents)
{
	struct gates *gates = watcher->data;
	struct gate *g;

	assert(gates->magic == GATES_MAGIC);
	if (!gates->dead)
		return;
	while ((g = gates->dead)) {
		gates->dead = g->next;
		g->magic = 0;
		free(g);
	}
	gates->freed(gates->arg);
}

/* ---- the set ---- */

struct gates *gates_new(struct ev_loop *loop,
	const struct vendor_config *config, gates_freed_cb *freed, void *arg)
{
	struct gates *gates = calloc(1, sizeof(*gates));

	if (!gates)
		return NULL;
	gates->poll = edge_poll_ref(loop);
	if (!gates->poll) {
		free(gates);
		return NULL;
	}
	gates->inbound = inbound_new(loop, config);
	if (!gates->inbound) {
		edge_poll_unref(gates->poll);
		free(gates);
		return NULL;
	}
	gates->magic = GATES_MAGIC;
	gates->loop = loop;
	gates->config = config;
	gates->freed = freed;
	gates->arg = arg;
	ev_prepare_init(&gates->reap, on_reap);
	gates->reap.data = gates;
	ev_prepare_start(loop, &gates->reap);
	return gates;
}

void gates_free(struct gates *gates)
{
	assert(gates->magic == GATES_MAGIC);
	while (gates->open)
		gate_close(gates->open);
	on_reap(gates->loop, &gates->reap, EV_PREPARE);
	assert(gates->count == 0);
	ev_prepare_stop(gates->loop, &gates->reap);
	inbound_free(gates->inbound);
	edge_poll_unref(gates->poll);
	gates->magic = 0;
	free(gates);
}

size_t gates_count(const struct gates *gates)
{
	return gates->count;
}

/*
 * A peer that is not served gets its answer at once, and costs nothing. Its
 * request may arrive at any moment: closed with that unread, the kernel would
 * have the peer see a reset in place of the answer.
 */
static void refuse_peer(int *fd, const struct ucred *peer)
{
	struct vendor_result result;
	char byte;

	log_warn_ratelimit("pid %d of uid %u refused: not served here, see "
			   "--allow-uid",
		peer->pid, peer->uid);
	vendor_result_init(&result, VENDOR_CONNECT, EACCES);
	fd_send(*fd, &result, sizeof(result), -1, 0);
	shutdown(*fd, SHUT_RD);
	while (recv(*fd, &byte, 1, MSG_DONTWAIT) > 0)
		; /* nothing can follow */
	closefd(fd);
}

static struct gate *new_gate(struct gates *gates, int fd, uid_t uid)
{
	struct gate *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->magic = GATE_MAGIC;
	g->gates = gates;
	g->id = ++gates->last_id;
	g->uid = uid;
	g->fd = fd;
	g->carrier = -1;
	ev_timer_init(&g->timer, on_timer, gates->config->request_timeout, 0);
	g->timer.data = g;
	g->next = gates->open;
	if (g->next)
		g->next->prev = g;
	gates->open = g;
	gates->count++;
	return g;
}

void gate_open(struct gates *gates, int fd)
{
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t len = sizeof(peer);
	struct gate *g;

	assert(gates->magic == GATES_MAGIC);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1 ||
		!config_allows(gates->config, peer.uid)) {
		refuse_peer(&fd, &peer);
		return;
	}
	g = new_gate(gates, fd, peer.uid);
	if (!g) {
		closefd(&fd);
		return;
	}
	/* Mostly the request is there already. */
	take_request(g);
	if (g->state == GATE_CLOSED)
		return;
	if (g->state == GATE_WAITING)
		ev_timer_start(gates->loop, &g->timer);
	if (edge_add(gates->poll, &g->edge, g->fd, EPOLLIN | EPOLLRDHUP,
		    on_gate) == -1) {
		log_warn_ratelimit("gate %llu (uid %u): epoll: %s",
			(unsigned long long)g->id, g->uid, log_strerror(errno));
		gate_close(g);
	}
}
