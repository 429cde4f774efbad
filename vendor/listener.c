/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/listener.h"
#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

/*
 * Theory of operation
 *
 * A control goes through these states, always forward:
 *
 *	BINDING    BIND came; waits for the port, at most as long as the
 *	           front-end is ready to wait for the host proxy
 *	BOUND      answered with 0: the port is kept
 *	LISTENING  LISTEN was answered with 0, or it came by REJOIN: ACCEPTs
 *	           are sent while fewer than the backlog lie unread
 *	CLOSED     hung up by either side; freed at the end of the turn
 *
 * A message		in BINDING	in BOUND	in LISTENING
 *	LISTEN		closed		answered	answered: new backlog
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
 *
 * Nothing is closed while a client is being offered: a control that cannot be
 * written to is left out until its hang-up, which is on its way, is handled.
 */

#define LISTENER_MAGIC 0x6c73746eu
#define CONTROL_MAGIC  0x6374726cu

#define BACKLOG_MAX    MIRROR_BACKLOG_MAX
#define MESSAGES_TURN  8      /* read of one control in one turn */
#define CLAIM_PATIENCE 10.0   /* seconds for a host proxy that is there */
#define WAIT_MAX       3600.0 /* longest to wait for one that is not */
#define ROOM_MIN       256    /* messages */

enum control_state {
	CONTROL_BINDING,
	CONTROL_BOUND,
	CONTROL_LISTENING,
	CONTROL_CLOSED,
};

static const char *const state_names[] = {
	[CONTROL_BINDING] = "binding",
	[CONTROL_BOUND] = "bound",
	[CONTROL_LISTENING] = "listening",
	[CONTROL_CLOSED] = "closed",
};
_Static_assert(
	sizeof(state_names) / sizeof(state_names[0]) == CONTROL_CLOSED + 1,
	"a name for each state");

/**
 * struct control - one socket of a front-end
 * @broken:  could not be written to; its hang-up is on its way
 * @fd:      SOCK_SEQPACKET, non-blocking
 * @backlog: how many ACCEPTs may lie unread, 1 to BACKLOG_MAX
 * @wait_until: BINDING: loop time up to which the host proxy may be away
 * @patience: BINDING: the end of all patience
 */
struct control {
	uint32_t magic;
	enum control_state state;
	struct listener *listener;
	bool broken;
	int fd;
	int backlog;
	struct edge edge;
	ev_tstamp wait_until;
	ev_timer patience;
	struct list link;
	struct reap reap;
};

/* ---- life of a listener ---- */

static void listener_free(struct reap *reap)
{
	struct listener *l = list_entry(reap, struct listener, reap);

	l->magic = 0;
	free(l);
}

static void on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct listener *l = timer->data;

	assert(l->magic == LISTENER_MAGIC && !l->export);
	if (l->set->attach(l) != 0) {
		listener_wait(l);
		return;
	}
	export_listen(l->export, l->backlog);
	export_pump(l->export);
}

struct listener *listener_new(struct listeners *set,
	const struct vendor_request *req, const struct endpoint *ep, uid_t uid)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->magic = LISTENER_MAGIC;
	l->set = set;
	l->addr = req->dst;
	l->v6only = req->flags & VENDOR_V6ONLY;
	l->loopback = req->flags & VENDOR_LOOPBACK;
	l->reuseport = req->flags & VENDOR_REUSEPORT;
	l->uid = uid;
	l->backlog = 1;
	l->ep = *ep;
	if (req->op == VENDOR_REJOIN)
		memcpy(l->key, req->key, sizeof(l->key));
	else if (getrandom(l->key, sizeof(l->key), 0) !=
		 (ssize_t)sizeof(l->key)) {
		free(l);
		return NULL;
	}
	list_init(&l->controls);
	list_init(&l->export_link);
	list_add_tail(&set->all, &l->link);
	set->nr_listeners++;
	ev_timer_init(&l->again, on_again, 0, 0);
	l->again.data = l;
	return l;
}

static void listener_leave(struct listener *l)
{
	assert(l->magic == LISTENER_MAGIC && list_empty(&l->controls));
	ev_timer_stop(l->set->env->loop, &l->again);
	list_del(&l->link);
	l->set->nr_listeners--;
	if (l->export)
		export_detach(l->export, l);
	reap_later(&l->set->env->reaper, &l->reap, listener_free);
}

void listener_wait(struct listener *l)
{
	assert(!l->export);
	ev_timer_set(&l->again, env_pause(&l->pause), 0);
	ev_timer_start(l->set->env->loop, &l->again);
}

/* ---- states of a control ---- */

static uint32_t mask_of(const struct control *c)
{
	const struct export *e = c->listener->export;
	uint32_t mask = EPOLLIN | EPOLLRDHUP;

	if (c->state == CONTROL_LISTENING && e && e->starved)
		mask |= EPOLLOUT;
	return mask;
}

static void arm(struct control *c)
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
	if (state != CONTROL_BINDING)
		ev_timer_stop(c->listener->set->env->loop, &c->patience);
}

static void control_free(struct reap *reap)
{
	struct control *c = list_entry(reap, struct control, reap);

	c->magic = 0;
	free(c);
}

static void control_close(struct control *c)
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

static void answer_bind(struct control *c, int err, bool away)
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

void listener_outcome(struct listener *l, uint16_t port, int err, bool away)
{
	struct list *i, *tmp;

	assert(l->magic == LISTENER_MAGIC);
	if (!err)
		l->addr.port = port;
	list_foreach_safe(i, tmp, &l->controls)
		answer_bind(list_entry(i, struct control, link), err, away);
}

static void on_patience(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct control *c = timer->data;

	assert(c->magic == CONTROL_MAGIC && c->state == CONTROL_BINDING);
	answer_bind(c, ENETDOWN, false);
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
	arm(c);
	if (c->listener->export)
		export_pump(c->listener->export);
}

static void on_listen(struct control *c, const struct vendor_request *req)
{
	int backlog = clamp_backlog(req->backlog);
	int err = export_listen(c->listener->export, backlog);

	if (!answer(c, VENDOR_LISTEN, err) || err)
		return;
	c->backlog = backlog;
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

	assert(l->magic == LISTENER_MAGIC);
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

void listener_end(struct listener *l)
{
	struct list *i, *tmp;

	assert(l->magic == LISTENER_MAGIC);
	if (list_empty(&l->controls)) {
		listener_leave(l);
		return;
	}
	list_foreach_safe(i, tmp, &l->controls)
		control_close(list_entry(i, struct control, link));
}

void listener_sweep(struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
	{
		struct control *c = list_entry(i, struct control, link);
		struct pollfd pfd = {.fd = c->fd, .events = POLLRDHUP};

		if (poll(&pfd, 1, 0) > 0)
			control_close(c);
	}
}

/* ---- clients ---- */

bool listener_is_listening(const struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
	{
		if (list_entry(i, struct control, link)->state ==
			CONTROL_LISTENING)
			return true;
	}
	return false;
}

/* How many ACCEPTs lie in its queue. The kernel takes one byte away only
 * after it has told us that there is room: so to the nearest whole number. */
static int unread(const struct control *c)
{
	int unit = c->listener->set->env->accept_unit;
	int bytes = 0;

	if (ioctl(c->fd, SIOCOUTQ, &bytes) == -1)
		return 0;
	return (bytes + unit / 2) / unit;
}

/* The one with the least unread, or NULL; *listening: is there any at all? */
static struct control *choose(const struct listener *l, bool *listening)
{
	struct control *best = NULL;
	int least = 0;
	struct list *i, *tmp;

	*listening = false;
	list_foreach_safe(i, tmp, &l->controls)
	{
		struct control *c = list_entry(i, struct control, link);
		int n;

		if (c->state != CONTROL_LISTENING || c->broken)
			continue;
		*listening = true;
		n = unread(c);
		if (n < c->backlog && (!best || n < least)) {
			best = c;
			least = n;
		}
	}
	return best;
}

/* What the application sees: addresses of its socket's family. The host's own
 * address is not told, so the one that was bound stands for it. */
static void fill_accept(const struct listener *l, const struct client *client,
	struct vendor_result *res)
{
	vendor_result_init(res, VENDOR_ACCEPT, 0);
	res->remote = client->remote;
	res->local = client->local;
	if (res->local.family == AF_UNSPEC) {
		res->local = l->addr;
		ip_port_unmap(&res->local);
		if (client->remote.family == AF_INET &&
			ip_port_is_any(&res->local))
			res->local.family = AF_INET;
	}
	if (l->addr.family == AF_INET6) {
		ip_port_map(&res->remote);
		ip_port_map(&res->local);
	}
}

static enum offer why_not_sent(struct control *c)
{
	switch (errno) {
	case EAGAIN: return OFFER_FULL;
	case ENOMEM:
	case ENOBUFS:
	case ETOOMANYREFS: return OFFER_SHORT;
	default: c->broken = true; return OFFER_NONE;
	}
}

enum offer listener_offer(struct listener *l, const struct client *client)
{
	struct vendor_result res;
	struct control *c;
	bool listening;

	assert(l->magic == LISTENER_MAGIC);
	fill_accept(l, client, &res);
	while ((c = choose(l, &listening))) {
		enum offer offer;

		if (fd_send(c->fd, &res, sizeof(res), client->fd, 0) ==
			(ssize_t)sizeof(res))
			return OFFER_TAKEN;
		offer = why_not_sent(c);
		if (offer != OFFER_NONE)
			return offer;
	}
	return listening ? OFFER_FULL : OFFER_NONE;
}

void listener_arm(struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
		arm(list_entry(i, struct control, link));
}
