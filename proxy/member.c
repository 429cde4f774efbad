/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/member.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/peer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MEMBER_MAGIC 0x4d454d42u /* "MEMB" */

static const char *const state_names[] = {
	[MEMBER_REPLYING] = "REPLYING",
	[MEMBER_IDLE] = "IDLE",
	[MEMBER_GONE] = "GONE",
};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == MEMBER_GONE + 1,
	"a name for each state");

static void set_state(struct member *m, enum member_state state)
{
	assert(m->state != MEMBER_GONE);
	log_debug("conn %" PRIu64 ": BIND %s -> %s", m->conn.id,
		state_names[m->state], state_names[state]);
	m->state = state;
}

/* ---- the end ---- */

static void destroy(struct reap *reap)
{
	struct member *m = list_entry(reap, struct member, reap);

	assert(m->magic == MEMBER_MAGIC && m->state == MEMBER_GONE);
	assert(list_empty(&m->link) && list_empty(&m->idle_link));
	m->magic = 0;
	free(m);
}

static void let_go(struct member *m)
{
	watch_for(&m->watch, 0);
	set_state(m, MEMBER_GONE);
	reap_later(m->env->reaper, &m->reap, destroy);
}

void member_end(struct member *m)
{
	assert(m->magic == MEMBER_MAGIC);
	let_go(m);
	closefd(&m->conn.fd);
	m->env->gone(m);
}

void member_fault(struct member *m, const char *what)
{
	char peer[PEER_STRLEN];

	log_warn_ratelimit("conn %" PRIu64 " (%s): %s", m->conn.id,
		peer_format(m->conn.fd, peer, sizeof(peer)), what);
	member_end(m);
}

int member_release(struct member *m)
{
	int fd = m->conn.fd;

	assert(m->magic == MEMBER_MAGIC && m->state == MEMBER_IDLE);
	let_go(m);
	m->conn.fd = -1;
	return fd;
}

/* ---- events ---- */

/* What to wait for: the only place that decides it. */
static int set_watcher(struct member *m)
{
	return watch_for(&m->watch,
		EV_READ | (m->state == MEMBER_REPLYING ? EV_WRITE : 0));
}

bool member_alive(struct member *m)
{
	uint8_t byte;
	ssize_t n;

	assert(m->magic == MEMBER_MAGIC && m->state != MEMBER_GONE);
	n = recv(m->conn.fd, &byte, 1, MSG_DONTWAIT);
	if (n == -1 && fd_try_again(errno))
		return true;
	if (n > 0) {
		member_fault(m, "sent bytes on a connection that waits for a "
				"client or holds a port");
		return false;
	}
	log_debug("conn %" PRIu64 ": left: %s", m->conn.id,
		n == 0 ? "end of stream" : log_strerror(errno));
	member_end(m);
	return false;
}

/* Send the rest of the reply. The last thing that an event does. */
static void flush_out(struct member *m)
{
	struct member_conn *conn = &m->conn;
	ssize_t n = send(conn->fd, conn->out, conn->out_len, MSG_NOSIGNAL);

	if (n == -1 && !fd_try_again(errno)) {
		member_end(m);
		return;
	}
	if (n > 0) {
		conn->out_len -= (size_t)n;
		memmove(conn->out, conn->out + n, conn->out_len);
	}
	if (conn->out_len == 0)
		set_state(m, MEMBER_IDLE);
	if (set_watcher(m) == -1)
		member_fault(m, log_strerror(errno));
	else if (m->state == MEMBER_IDLE)
		m->env->ready(m);
}

static void on_watch(struct watch *w, int revents)
{
	struct member *m = list_entry(w, struct member, watch);

	assert(m->magic == MEMBER_MAGIC && m->state != MEMBER_GONE);
	if ((revents & EV_READ) && !member_alive(m))
		return;
	if (m->state == MEMBER_REPLYING)
		flush_out(m);
}

/* ---- life ---- */

struct member *member_new(
	struct member_env *env, enum member_role role, void *owner)
{
	struct member *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->magic = MEMBER_MAGIC;
	m->state = MEMBER_REPLYING;
	m->role = role;
	m->env = env;
	m->owner = owner;
	m->conn.fd = -1;
	list_init(&m->link);
	list_init(&m->idle_link);
	return m;
}

void member_free(struct member *m)
{
	assert(m->magic == MEMBER_MAGIC && m->conn.fd == -1);
	m->magic = 0;
	free(m);
}

void member_start(struct member *m, const struct member_conn *conn)
{
	assert(m->magic == MEMBER_MAGIC && m->conn.fd == -1);
	assert(conn->fd >= 0 && conn->out_len <= sizeof(conn->out));
	m->conn = *conn;
	watch_init(&m->watch, m->env->watches, conn->fd, on_watch);
	flush_out(m);
}
