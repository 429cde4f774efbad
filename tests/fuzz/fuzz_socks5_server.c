/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "proxy/client.h"
#include "proxy/connect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The server's side of SOCKS5: the real client state machine and relay on a
 * socket pair, fed in pieces of any size. Look-ups and connects are replaced
 * below by ones that answer at once, later, never, or with a failure, as the
 * port asks; what they "connect" to is another socket pair.
 *
 * The first byte of the input seeds how the rest is cut. What must hold,
 * whatever is sent: the answers are the method answer and at most one reply,
 * what reaches the destination is exactly what followed the request, and
 * nothing ever follows one that an export has taken.
 */

#define CHECK(cond) \
 do {               \
  if (!(cond))      \
   abort();         \
 } while (0)

static struct ev_loop *loop;
static struct reaper reaper;
static struct relay_group group;
static struct nameservers nameservers;
static struct service *service;
static struct fd_budget budget;
static struct client_env env;

static int origin = -1; /* the destination's end, if connected */
static int taken = -1;  /* the connection that an export has */
static struct watch_set watches;
static struct connect_job *pending_job;
static connect_cb *pending_cb;
static void *pending_arg;

/* ---- in place of connect.c and resolve.c ---- */

void tcp_options(int fd)
{
}

void vsock_options(int fd)
{
}

void connect_init(
	struct connect_job *job, struct ev_loop *l, struct fd_budget *b)
{
	memset(job, 0, sizeof(*job));
	job->fd = -1;
}

void connect_order(struct ip_port *addrs, size_t nr)
{
}

int connect_timed_out(const struct connect_job *job)
{
	return ETIMEDOUT;
}

static void join(struct connect_job *job, const struct ip_port *addr)
{
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		      pair) == 0);
	job->fd = pair[0];
	origin = pair[1];
	job->local = *addr;
}

bool connect_start(struct connect_job *job, const struct ip_port *addrs,
	size_t nr, connect_cb *cb, void *arg)
{
	CHECK(nr >= 1 && nr <= CONNECT_ADDRS_MAX && job->fd == -1);
	job->one = addrs[0];
	switch (addrs[0].port % 4) {
	case 0: job->err = ECONNREFUSED; return true;
	case 1: join(job, &addrs[0]); return true;
	default:
		pending_job = job;
		pending_cb = cb;
		pending_arg = arg;
		return false;
	}
}

void connect_cancel(struct connect_job *job)
{
	if (pending_job == job)
		pending_job = NULL;
	closefd_if(&job->fd);
}

/* What was left pending: some of it connects now. */
static void connect_pending(void)
{
	struct connect_job *job = pending_job;

	if (!job || job->one.port % 4 == 3)
		return;
	pending_job = NULL;
	join(job, &job->one);
	pending_cb(job, pending_arg);
}

struct resolve_query {
	int unused;
};

static struct resolve_query query;

struct resolve_query *resolve_start(struct resolver *resolver, const char *name,
	uint16_t port, resolve_cb *cb, void *arg)
{
	struct ip_port addr = {
		.family = AF_INET, .port = port, .ip = {192, 0, 2, 1}};

	CHECK(strlen(name) <= SOCKS5_NAME_MAX && name[0]);
	if (name[0] == 'n') {
		cb(arg, RESOLVE_NO_ADDRESS, "no such name", NULL, 0);
		return NULL;
	}
	if (name[0] == 's')
		return &query;
	cb(arg, RESOLVE_OK, "", &addr, 1);
	return NULL;
}

void resolve_cancel(struct resolve_query *q)
{
	CHECK(q == &query);
}

/* ---- in place of exports.c ---- */

enum socks5_reply exports_request(struct exports *x,
	const struct socks5_addr *dst, const struct member_conn *conn,
	const char **why)
{
	const struct ip_port bound = {.port = dst->addr.port};
	uint8_t out[MEMBER_OUT_MAX];
	struct hold_name name;
	size_t len = conn->out_len;

	*why = "as the port asks";
	if (hold_name_parse(&name, dst) == -1 || dst->addr.port % 4 == 0)
		return SOCKS5_GENERAL_FAILURE;
	CHECK(name.verb != HOLD_HOLD || name.v4 || name.v6);
	CHECK(len == 0 || len == SOCKS5_METHOD_LEN);
	memcpy(out, conn->out, len);
	len += socks5_write_reply(out + len, SOCKS5_SUCCEEDED, &bound);
	CHECK(taken == -1);
	taken = conn->fd;
	CHECK(send(taken, out, len, MSG_NOSIGNAL) == (ssize_t)len);
	return SOCKS5_SUCCEEDED;
}

/* ---- the harness ---- */

static void on_end(void *arg)
{
}

static void init(void)
{
	static const char *const denied[] = {"10.0.0.0/8", "fd00::/8"};
	static const struct endpoint none;
	struct service_config config = {
		.mode = &mode_table[MODE_SOCKS5],
		.handshake_timeout = 1000,
		.connect_timeout = 1000,
	};

	log_init("fuzz", LOG_ERROR, STDERR_FILENO);
	loop = ev_loop_new(EVBACKEND_EPOLL);
	CHECK(loop);
	reaper_init(&reaper, loop);
	CHECK(relay_group_init(&group, loop, &reaper, RELAY_BUFFER_MIN, on_end,
		      NULL) == 0);
	nameservers_init(&nameservers, "/nonexistent");
	service = service_new(&config, entrance_new(&none));
	CHECK(service);
	service->entrance->listener.family = AF_UNIX;
	for (size_t i = 0; i < 2; i++)
		CHECK(!rules_add(
			&service->config.rules, denied[i], RULES_DENY));
	fd_budget_init(&budget, 1000, 0);
	env.loop = loop;
	env.reaper = &reaper;
	env.relays = &group;
	env.nameservers = &nameservers;
	env.budget = &budget;
	list_init(&env.clients);
	list_init(&env.forwards);
	env.id_step = 1;
	CHECK(watch_set_init(&watches, loop) == 0);
	env.watches = &watches;
	env.exports = (struct exports *)&env; /* only ever passed on */
	env.gone = on_end;
}

static void turn(void)
{
	for (int i = 0; i < 3; i++)
		ev_run(loop, EVRUN_NOWAIT);
}

/* Where the payload begins, or @len if the handshake is not whole. */
static size_t payload_at(const uint8_t *data, size_t len)
{
	struct socks5_request req;
	enum socks5_reply reply;
	bool no_auth;
	ssize_t g = socks5_parse_greeting(data, len, &no_auth);
	ssize_t r;

	if (g <= 0 || !no_auth)
		return len;
	r = socks5_parse_request(data + g, len - (size_t)g, &req, &reply);
	return r <= 0 ? len : (size_t)(g + r);
}

/* Take what can be read. Return: bytes. */
static size_t drain(int fd, uint8_t *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size && (n = recv(fd, buf + len, size - len, 0)) > 0)
		len += (size_t)n;
	return len;
}

static void check_answers(int fd)
{
	struct socks5_answer answer;
	uint8_t buf[256];
	size_t len = drain(fd, buf, sizeof(buf));
	ssize_t n;

	if (len == 0)
		return;
	CHECK(len >= 2 && buf[0] == 5 && (buf[1] == 0 || buf[1] == 0xff));
	if (len == 2)
		return;
	CHECK(buf[1] == 0);
	n = socks5_parse_reply(buf + 2, len - 2, &answer);
	CHECK(n > 0 && (size_t)n == len - 2);
	CHECK(answer.reply <= SOCKS5_ATYP_NOT_SUPPORTED);
	CHECK((answer.reply == 0) == (origin != -1 || taken != -1));
}

static void check_payload(const uint8_t *data, size_t len)
{
	static uint8_t buf[65536];
	size_t start = payload_at(data, len);
	size_t got;

	if (origin == -1)
		return;
	got = drain(origin, buf, sizeof(buf));
	CHECK(got == len - start);
	CHECK(memcmp(buf, data + start, got) == 0);
}

/* Send all of it in pieces. Return: how much was taken. */
static size_t feed(int fd, uint32_t seed, const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		size_t piece;
		ssize_t n;

		seed = seed * 1103515245 + 12345;
		piece = 1 + (seed >> 16) % (seed % 3 ? 7 : 700);
		if (piece > len - at)
			piece = len - at;
		n = send(fd, data + at, piece, MSG_NOSIGNAL);
		turn();
		if (n == -1)
			break;
		at += (size_t)n;
		if (seed % 5 == 0)
			connect_pending();
	}
	return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2];
	size_t fed;

	if (!loop)
		init();
	if (size == 0)
		return 0;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		      pair) == 0);
	CHECK(service_enter(service));
	CHECK(client_new(&env, service, pair[1]) == 0);
	fed = feed(pair[0], data[0], data + 1, size - 1);
	connect_pending();
	turn();
	shutdown(pair[0], SHUT_WR);
	turn();
	check_answers(pair[0]);
	if (fed == size - 1)
		check_payload(data + 1, size - 1);
	client_abort_all(&env);
	relay_group_abort(&group);
	turn();
	CHECK(env.nr == 0 && group.nr == 0);
	CHECK(atomic_load(&service->entrance->nr) == 0);
	close(pair[0]);
	closefd_if(&origin);
	closefd_if(&taken);
	pending_job = NULL;
	return 0;
}
