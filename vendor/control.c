/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/control.h"
#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * Theory of operation
 *
 * A control goes through these states, always forward:
 *
 *	BINDING    BIND came; waits for the port, at most as long as the
 *	           front-end is ready to wait for the host proxy
 *	BOUND      answered with 0: the port is kept
 *	OPENING    LISTEN came; waits for the host to listen, so that whoever
 *	           connects once listen() has returned is not refused. What ends
 *	           it is answered with 0, good or bad: the port is this
 *	           listener's, and the host proxy is tried again for ever
 *	LISTENING  LISTEN was answered with 0, or it came by REJOIN: ACCEPTs
 *	           are sent while fewer than the backlog lie unread
 *	CLOSED     hung up by either side; freed at the end of the turn
 *
 * A message		in BINDING	in BOUND	in LISTENING, OPENING
 *	LISTEN		closed		OPENING		answered: new backlog
 *	BIND, REJOIN	closed		EINVAL, as bind(2) says; nothing else
 *	any other, malformed, with fds: logged, answered EPROTO, closed
 *
 * The front-end's hang-up closes it; what lies unread in its queue then dies
 * with the queue, as in TCP's. The last control takes the listener with it.
 *
 * How many ACCEPTs lie unread is asked of the kernel (SIOCOUTQ counts the
 * bytes charged to us; each message costs the same), so that nothing needs to
 * be counted that a reader in another process takes away. A control whose
 * export has clients waiting watches for EPOLLOUT: each message that is read
 * reports it anew, as long as the send buffer is no more than a quarter full.
 * The buffer is therefore made four times as big as the longest queue, if the
 * system allows.
 */

#define CONTROL_MAGIC 0x6374726cu

#define BACKLOG_MAX    MIRROR_BACKLOG_MAX
#define MESSAGES_TURN  8      /* read of one control in one turn */
#define CLAIM_PATIENCE 10.0   /* seconds for a host proxy that is there */
#define WAIT_MAX       3600.0 /* longest to wait for one that is not */
#define OPEN_PATIENCE  5.0    /* seconds for the host to listen */
#define ROOM_MIN       256    /* messages */

static const char *const state_names[] = {
	[CONTROL_BINDING] = "binding",
	[CONTROL_BOUND] = "bound",
	[CONTROL_OPENING] = "opening",
	[CONTROL_LISTENING] = "listening",
	[CONTROL_CLOSED] = "closed",
};
_Static_assert(
	sizeof(state_names) / sizeof(state_names[0]) == CONTROL_CLOSED + 1,
	"a name for each state");

/* ---- states of a control ---- */

static uint32_t mask_of(const struct control *c)
{
	const struct export *e = c->listener->export;
	uint32_t mask = EPOLLIN | EPOLLRDHUP;

	if (c->state == CONTROL_LISTENING && e && e->starved)
		mask |= EPOLLOUT;
	return mask;
}

void control_arm(struct control *c)
{
	uint32_t mask = mask_of(c);

	if (c->edge.mask == mask || !c->edge.poll)
		return;
	if (edge_mod(&c->edge, mask) == -1)
		log_warn_ratelimit("epoll: %s", log_strerror(errno));
}

static void set_state(struct control *c, enum control_state state)
{
	char name[IP_PORT_STRLEN];

	assert(state >= c->state);
	if (state == c->state)
		return;
	log_debug("control %d of %s (uid %u): %s -> %s", c->fd,
		ip_port_format(&c->listener->addr, name, sizeof(name)),
		c->listener->uid, state_names[c->state], state_names[state]);
	c->state = state;
	if (state != CONTROL_BINDING && state != CONTROL_OPENING)
		ev_timer_stop(c->listener->set->env->loop, &c->patience);
}

static void control_free(struct reap *reap)
{
	struct control *c = list_entry(reap, struct control, reap);

	c->magic = 0;
	free(c);
}

void control_close(struct control *c)
{
	struct listener *l = c->listener;

	if (c->state == CONTROL_CLOSED)
		return;
	set_state(c, CONTROL_CLOSED);
	if (c->edge.poll)
		edge_drop(&c->edge);
	closefd(&c->fd);
	list_del(&c->link);
	l->set->nr_controls--;
	reap_later(&l->set->env->reaper, &c->reap, control_free);
	if (list_empty(&l->controls))
		listener_leave(l);
	else if (l->export)
		export_update(l->export);
}

/* Return: whether it went out; if not, the control is closed. */
static bool answer(struct control *c, uint16_t op, int status)
{
	const struct listener *l = c->listener;
	struct vendor_result res;

	vendor_result_init(&res, op, status);
	if (op == VENDOR_BIND && status == 0) {
		res.local = l->addr;
		memcpy(res.key, l->key, sizeof(res.key));
	}
	if (fd_send(c->fd, &res, sizeof(res), -1, 0) == sizeof(res))
		return true;
	log_info_ratelimit("control %d (uid %u): no room for an answer: %s",
		c->fd, l->uid, log_strerror(errno));
	control_close(c);
	return false;
}

/* ---- the port's outcome ---- */

void control_outcome(struct control *c, int err, bool away)
{
	ev_tstamp now = ev_now(c->listener->set->env->loop);

	if (c->state != CONTROL_BINDING)
		return;
	if (err && away && now < c->wait_until)
		return;
	if (!answer(c, VENDOR_BIND, err))
		return;
	if (err)
		control_close(c);
	else
		set_state(c, CONTROL_BOUND);
}

static void on_patience(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct control *c = timer->data;

	assert(c->magic == CONTROL_MAGIC);
	if (c->state == CONTROL_OPENING) {
		control_opened(c);
		return;
	}
	assert(c->state == CONTROL_BINDING);
	control_outcome(c, ENETDOWN, false);
}

/* ---- messages ---- */

static int clamp_backlog(int32_t backlog)
{
	if (backlog < 1)
		return 1;
	return backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
}

/* Room for four times the queue, see above. */
static void make_room(const struct control *c)
{
	int unit = c->listener->set->env->accept_unit;
	/* The kernel doubles it. It must never be less than it was. */
	int size = 2 * unit * (c->backlog > ROOM_MIN ? c->backlog : ROOM_MIN);

	/* The system's limit (net.core.wmem_max) is not ours to exceed. */
	(void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void start_listening(struct control *c)
{
	set_state(c, CONTROL_LISTENING);
	if (c->backlog > c->listener->backlog)
		c->listener->backlog = c->backlog;
	make_room(c);
	control_arm(c);
	if (c->listener->export)
		export_pump(c->listener->export);
}

void control_opened(struct control *c)
{
	assert(c->magic == CONTROL_MAGIC && c->state == CONTROL_OPENING);
	if (answer(c, VENDOR_LISTEN, 0))
		start_listening(c);
}

static void start_opening(struct control *c)
{
	struct ev_loop *loop = c->listener->set->env->loop;

	ev_timer_stop(loop, &c->patience);
	ev_timer_set(&c->patience, OPEN_PATIENCE, 0);
	ev_timer_start(loop, &c->patience);
	set_state(c, CONTROL_OPENING);
	export_update(c->listener->export);
}

static void on_listen(struct control *c, const struct vendor_request *req)
{
	struct export *e = c->listener->export;
	int backlog = clamp_backlog(req->backlog);
	int err = export_listen(e, backlog);

	if (err) {
		answer(c, VENDOR_LISTEN, err);
		return;
	}
	c->backlog = backlog;
	if (c->state == CONTROL_BOUND) {
		start_opening(c);
		return;
	}
	if (c->state == CONTROL_OPENING)
		control_opened(c); /* who cannot wait need not */
	if (c->state == CONTROL_LISTENING && answer(c, VENDOR_LISTEN, 0))
		start_listening(c);
}

static void refuse(struct control *c, ssize_t len, const char *why)
{
	log_warn_ratelimit("control %d (uid %u): message of %zd bytes refused: "
			   "%s",
		c->fd, c->listener->uid, len, why);
	if (answer(c, VENDOR_LISTEN, EPROTO))
		control_close(c);
}

static void handle(
	struct control *c, const struct vendor_request *req, ssize_t len)
{
	if (c->state == CONTROL_BINDING) {
		refuse(c, len, "expected none before BIND is answered");
		return;
	}
	switch ((enum vendor_op)req->op) {
	case VENDOR_LISTEN:
		/* Without its port a rejoined one listens all the same. */
		if (c->listener->export)
			on_listen(c, req);
		else
			answer(c, VENDOR_LISTEN, 0);
		break;
	case VENDOR_BIND:
	case VENDOR_REJOIN: answer(c, req->op, EINVAL); break;
	case VENDOR_CONNECT:
	case VENDOR_PING:
	case VENDOR_PROBE:
	case VENDOR_ACCEPT:
		refuse(c, len, "expected LISTEN on a bound socket");
		break;
	}
}

/* Return: is there perhaps another one, and the control still open? */
static bool take_message(struct control *c)
{
	struct vendor_request req;
	struct iovec iov = {.iov_base = &req, .iov_len = sizeof(req)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recvmsg(c->fd, &msg, MSG_TRUNC | MSG_DONTWAIT);
	const char *why;

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		control_close(c);
		return false;
	}
	why = vendor_request_check(&req, (size_t)n);
	if (msg.msg_flags & MSG_CTRUNC)
		why = "expected no control message with it";
	if (why)
		refuse(c, n, why);
	else
		handle(c, &req, n);
	return c->state != CONTROL_CLOSED;
}

static void take_messages(struct control *c)
{
	for (int i = 0; i < MESSAGES_TURN; i++) {
		if (!take_message(c))
			return;
	}
	/* There may be more, and an edge does not come twice. */
	if (edge_mod(&c->edge, mask_of(c)) == -1)
		control_close(c);
}

static void on_control(struct edge *edge, uint32_t events)
{
	struct control *c = list_entry(edge, struct control, edge);

	assert(c->magic == CONTROL_MAGIC && c->state != CONTROL_CLOSED);
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		control_close(c);
		return;
	}
	if (events & EPOLLIN)
		take_messages(c);
	if ((events & EPOLLOUT) && c->state == CONTROL_LISTENING &&
		c->listener->export)
		export_pump(c->listener->export);
}

/* ---- life of a control ---- */

static struct control *control_alloc(
	struct listener *l, const struct vendor_request *req)
{
	struct control *c = calloc(1, sizeof(*c));
	double wait = req->timeout_ms / 1000.0;

	if (!c)
		return NULL;
	if (wait > WAIT_MAX)
		wait = WAIT_MAX;
	c->magic = CONTROL_MAGIC;
	c->state = CONTROL_BINDING;
	c->listener = l;
	c->backlog = clamp_backlog(req->backlog);
	c->wait_until = ev_now(l->set->env->loop) + wait;
	ev_timer_init(&c->patience, on_patience, wait + CLAIM_PATIENCE, 0);
	c->patience.data = c;
	return c;
}

static void settle(struct control *c, const struct vendor_request *req)
{
	struct export *e = c->listener->export;

	if (req->op == VENDOR_REJOIN) {
		if (e)
			export_listen(e, c->backlog);
		start_listening(c);
		return;
	}
	ev_timer_start(c->listener->set->env->loop, &c->patience);
	if (e->state == EXPORT_HELD)
		listener_outcome(c->listener, e->port, 0, false);
}

int control_new(struct listener *l, int *fd, const struct vendor_request *req)
{
	struct control *c;

	if (l->set->nr_controls >= l->set->max_controls) {
		log_warn_ratelimit("uid %u: %zu controls are as many as "
				   "allowed, see --max-exports",
			l->uid, l->set->nr_controls);
		return ENOBUFS;
	}
	c = control_alloc(l, req);
	if (!c)
		return ENOBUFS;
	if (edge_add(l->set->env->poll, &c->edge, *fd, EPOLLIN | EPOLLRDHUP,
		    on_control) == -1) {
		free(c);
		return ENOBUFS;
	}
	c->fd = *fd;
	*fd = -1;
	list_add_tail(&l->controls, &c->link);
	l->set->nr_controls++;
	settle(c, req);
	return 0;
}

void control_sweep(struct control *c)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLRDHUP};

	if (poll(&pfd, 1, 0) > 0)
		control_close(c);
}

/* How many ACCEPTs lie in its queue. The kernel takes one byte away only
 * after it has told us that there is room: so to the nearest whole number. */
int control_unread(const struct control *c)
{
	int unit = c->listener->set->env->accept_unit;
	int bytes = 0;

	if (ioctl(c->fd, SIOCOUTQ, &bytes) == -1)
		return 0;
	return (bytes + unit / 2) / unit;
}
