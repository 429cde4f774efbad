/* SPDX-License-Identifier: Apache-2.0 */
#include "inbound_stage.h"
#include "common/fd.h"
#include "common/log.h"
#include "vendor/worker.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct stage stage;
struct host host;

static pid_t worker;
static int vendor_listener = -1;
static int idle_fds;

/* ---- the worker ---- */

static int vendor_listen(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(
		AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", stage.config.path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, SOMAXCONN), 0);
	return fd;
}

static void ping(void)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate = front_connect(&stage);
	int carrier;

	vendor_request_init(&req, VENDOR_PING);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	front_result(gate, &res, &carrier, 0);
	ck_assert_int_eq(res.status, 0);
	closefd(&gate);
}

/* The turn that answers the second question began after the first one's. */
void worker_settle(void)
{
	ping();
	ping();
}

/* In the child: nothing of the test's but the listener. */
static void shed(void)
{
	closefd_if(&stage.listener);
	for (int i = 0; i < HOST_CONNS; i++) {
		if (host.conns[i].kind != CONN_NONE)
			closefd(&host.conns[i].fd);
	}
}

void worker_start(void)
{
	if (vendor_listener == -1)
		vendor_listener = vendor_listen();
	worker = fork();
	ck_assert_int_ge(worker, 0);
	if (worker == 0) {
		shed();
		log_init("worker", stage.config.log_level, STDERR_FILENO);
		exit(worker_run(vendor_listener, &stage.config));
	}
	worker_settle();
	idle_fds = stage_count_fds(worker);
}

void worker_kill(void)
{
	ck_assert_int_eq(kill(worker, SIGKILL), 0);
	stage_wait_exit(worker);
	worker = 0;
}

pid_t worker_pid(void)
{
	return worker;
}

void worker_freeze(void)
{
	int status;

	ck_assert_int_eq(kill(worker, SIGSTOP), 0);
	ck_assert_int_eq(waitpid(worker, &status, WUNTRACED), worker);
	ck_assert(WIFSTOPPED(status));
}

void worker_thaw(void)
{
	ck_assert_int_eq(kill(worker, SIGCONT), 0);
}

int worker_fds(void)
{
	return stage_count_fds(worker) - idle_fds;
}

void inbound_setup(void)
{
	const char *level = getenv("TEST_LOG");

	stage_open(&stage);
	memset(&host, 0, sizeof(host));
	host.next_port = 20000;
	stage.config.no_mirror = true;
	stage.config.log_level = LOG_ERROR;
	if (level)
		log_level_parse(level, &stage.config.log_level);
	host_start();
}

void inbound_teardown(void)
{
	if (worker > 0) {
		UNTIL(worker_fds() <= 0);
		ck_assert_int_eq(kill(worker, SIGTERM), 0);
		ck_assert_int_eq(stage_wait_exit(worker), 0);
		worker = 0;
	}
	host_stop();
	closefd_if(&vendor_listener);
	stage_close(&stage);
}

/* ---- the host proxy ---- */

void host_start(void)
{
	unlink(stage.host);
	stage_listen(&stage, SOMAXCONN);
	ck_assert_int_eq(fd_set_nonblock(stage.listener, true), 0);
	host.away = false;
}

void host_hang_up(struct conn *conn)
{
	closefd(&conn->fd);
	conn->kind = CONN_NONE;
}

void host_stop(void)
{
	host.away = true;
	closefd_if(&stage.listener);
	for (int i = 0; i < HOST_CONNS; i++) {
		if (host.conns[i].kind != CONN_NONE)
			host_hang_up(&host.conns[i]);
	}
}

static bool matches(const struct conn *c, enum conn_kind kind, uint16_t port)
{
	return c->kind == kind && (port == 0 || c->port == port);
}

int host_count(enum conn_kind kind, uint16_t port)
{
	int nr = 0;

	for (int i = 0; i < HOST_CONNS; i++)
		nr += matches(&host.conns[i], kind, port);
	return nr;
}

struct conn *host_find(enum conn_kind kind, uint16_t port)
{
	for (int i = 0; i < HOST_CONNS; i++) {
		if (matches(&host.conns[i], kind, port))
			return &host.conns[i];
	}
	return NULL;
}

static void accept_all(void)
{
	for (int i = 0; i < HOST_CONNS; i++) {
		struct conn *c = &host.conns[i];

		if (c->kind != CONN_NONE)
			continue;
		memset(c, 0, sizeof(*c));
		c->fd = accept4(stage.listener, NULL, NULL, SOCK_CLOEXEC);
		if (c->fd == -1)
			return;
		c->kind = CONN_HELLO;
	}
}

static void reply(struct conn *c, enum socks5_reply code)
{
	struct ip_port bound = {.family = AF_INET, .port = c->port};
	uint8_t buf[SOCKS5_METHOD_LEN + SOCKS5_REPLY_V4_LEN];
	size_t len = socks5_write_method(buf, SOCKS5_METHOD_OK);

	len += socks5_write_reply(buf + len, code, &bound);
	/* Who asked may have gone in the meantime. */
	if (send(c->fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len ||
		code != SOCKS5_SUCCEEDED)
		host_hang_up(c);
}

static bool overlap(const struct hold_name *a, const struct hold_name *b)
{
	return (a->v4 && b->v4) || (a->v6 && b->v6);
}

static enum socks5_reply take_hold(struct conn *c)
{
	host.holds++;
	if (host.by_name)
		return host.by_name;
	for (int i = 0; i < HOST_CONNS; i++) {
		const struct conn *other = &host.conns[i];

		if (c->port && matches(other, CONN_HOLD, c->port) &&
			overlap(&other->name, &c->name))
			return SOCKS5_REFUSED;
	}
	if (c->port == 0)
		c->port = host.next_port++;
	c->kind = CONN_HOLD;
	return SOCKS5_SUCCEEDED;
}

static enum socks5_reply take_join(struct conn *c)
{
	host.joins++;
	if (host.join)
		return host.join;
	for (int i = 0; i < HOST_CONNS; i++) {
		const struct conn *other = &host.conns[i];

		if (!matches(other, CONN_HOLD, c->port) ||
			memcmp(other->name.key, c->name.key, HOLD_KEY_LEN) != 0)
			continue;
		c->kind = CONN_JOIN;
		return SOCKS5_SUCCEEDED;
	}
	return SOCKS5_NOT_ALLOWED;
}

static enum socks5_reply take_plain(
	struct conn *c, const struct socks5_request *request)
{
	host.plains++;
	ck_assert(ip_port_is_any(&request->dst.addr));
	if (request->dst.addr.family == AF_INET6) {
		host.plains6++;
		if (host.plain6)
			return host.plain6;
	} else if (host.plain)
		return host.plain;
	if (c->port == 0)
		c->port = host.next_port++;
	c->kind = CONN_PLAIN;
	return SOCKS5_SUCCEEDED;
}

static void take_request(struct conn *c, const struct socks5_request *request)
{
	enum socks5_reply code;

	ck_assert_int_eq(request->command, SOCKS5_BIND);
	c->port = request->dst.addr.port;
	c->kind = CONN_MUTE;
	if (host.mute)
		return;
	ck_assert_int_eq(hold_name_parse(&c->name, &request->dst), 0);
	switch (c->name.verb) {
	case HOLD_HOLD: code = take_hold(c); break;
	case HOLD_JOIN: ck_abort_msg("a vendor meets"); break;
	case HOLD_MEET: code = take_join(c); break;
	case HOLD_NONE:
	default: code = take_plain(c, request); break;
	}
	reply(c, code);
}

static void read_hello(struct conn *c)
{
	static const uint8_t greeting[] = {5, 1, 0};
	struct socks5_request request;
	enum socks5_reply code;
	ssize_t n = recv(
		c->fd, c->in + c->got, sizeof(c->in) - c->got, MSG_DONTWAIT);

	if (n == -1 && errno == EAGAIN)
		return;
	if (n <= 0) {
		host_hang_up(c);
		return;
	}
	c->got += (size_t)n;
	if (c->got < sizeof(greeting))
		return;
	ck_assert_mem_eq(c->in, greeting, sizeof(greeting));
	n = socks5_parse_request(c->in + 3, c->got - 3, &request, &code);
	ck_assert_int_ne(n, -1);
	if (n == 0)
		return;
	ck_assert_int_eq(n, (ssize_t)c->got - 3);
	take_request(c, &request);
}

/* Holds and standby connections say nothing; that they end is what counts. */
static void watch_end(struct conn *c)
{
	char byte;
	ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);

	ck_assert_int_le(n, 0);
	if (n == 0 || errno != EAGAIN)
		host_hang_up(c);
}

void host_turn(int timeout_ms)
{
	static struct pollfd pfds[HOST_CONNS + 1];
	static struct conn *which[HOST_CONNS + 1];
	nfds_t nr = 0;

	if (stage.listener != -1)
		pfds[nr++] = (struct pollfd){stage.listener, POLLIN, 0};
	for (int i = 0; i < HOST_CONNS; i++) {
		struct conn *c = &host.conns[i];

		if (c->kind == CONN_NONE || c->kind == CONN_PAIRED)
			continue;
		which[nr] = c;
		pfds[nr++] = (struct pollfd){c->fd, POLLIN, 0};
	}
	if (poll(pfds, nr, timeout_ms) <= 0)
		return;
	for (nfds_t i = stage.listener != -1; i < nr; i++) {
		if (!pfds[i].revents)
			continue;
		if (which[i]->kind == CONN_HELLO)
			read_hello(which[i]);
		else
			watch_end(which[i]);
	}
	if (stage.listener != -1 && pfds[0].revents)
		accept_all();
}

static size_t write_address(uint8_t *buf, struct ip_port addr)
{
	ip_port_map(&addr);
	return socks5_write_reply(buf, SOCKS5_SUCCEEDED, &addr);
}

size_t host_reply2(uint8_t *buf, const char *client, uint16_t port)
{
	size_t len = write_address(buf, ip(client, port));

	return len + write_address(buf + len,
			     ip(strchr(client, ':') ? HOST6 : HOST4, 8088));
}

static struct conn *find_standby(uint16_t port)
{
	struct conn *c = host_find(CONN_JOIN, port);

	return c ? c : host_find(CONN_PLAIN, port);
}

int host_client(uint16_t port, const char *client, uint16_t client_port)
{
	uint8_t buf[HOST_REPLY2_LEN];
	size_t len = host_reply2(buf, client, client_port);
	struct conn *c;

	for (;;) {
		UNTIL(find_standby(port));
		c = find_standby(port);
		if (c->kind == CONN_PLAIN)
			len = SOCKS5_REPLY_V6_LEN;
		if (send(c->fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len)
			break;
		host_hang_up(c); /* it belonged to a worker that died */
	}
	c->kind = CONN_NONE;
	return c->fd;
}

/* ---- front-ends ---- */

struct ip_port ip(const char *text, uint16_t port)
{
	struct ip_port addr = {.port = port, .family = AF_INET};

	if (strchr(text, ':'))
		addr.family = AF_INET6;
	ck_assert_int_eq(inet_pton(addr.family, text, addr.ip), 1);
	return addr;
}

void bind_request(struct vendor_request *req, const char *text, uint16_t port,
	unsigned flags)
{
	vendor_request_init(req, VENDOR_BIND);
	req->dst = ip(text, port);
	req->flags = flags;
}

static int new_control(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", stage.config.path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(
		connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void front_more(int control, const struct vendor_request *req)
{
	ck_assert_int_eq(
		fd_send(control, req, sizeof(*req), -1, 0), sizeof(*req));
}

int front_send(const struct vendor_request *req)
{
	int control = new_control();

	front_more(control, req);
	return control;
}

bool front_pending(int control)
{
	struct pollfd pfd = {.fd = control, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

int front_answer(int control, enum vendor_op op, struct vendor_result *res)
{
	int nr_fds, stray;
	ssize_t n;

	UNTIL(front_pending(control));
	n = fd_recv(control, res, sizeof(*res), &stray, &nr_fds, 0);
	ck_assert_int_eq(n, sizeof(*res));
	ck_assert_ptr_null(vendor_result_check(res, (size_t)n, nr_fds));
	ck_assert_int_eq(nr_fds, 0);
	ck_assert_int_eq(res->op, op);
	return res->status;
}

int front_bind(const char *text, uint16_t port, unsigned flags,
	struct vendor_result *res)
{
	struct vendor_request req;
	struct vendor_result mine;
	int control;
	int err;

	bind_request(&req, text, port, flags);
	control = front_send(&req);
	err = front_answer(control, VENDOR_BIND, res ? res : &mine);
	if (err) {
		closefd(&control);
		errno = err;
	}
	return control;
}

void front_listen(int control, int backlog)
{
	struct vendor_request req;
	struct vendor_result res;

	vendor_request_init(&req, VENDOR_LISTEN);
	req.backlog = backlog;
	front_more(control, &req);
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), 0);
}

int front_serve(const char *text, uint16_t port, unsigned flags)
{
	int control = front_bind(text, port, flags, NULL);

	ck_assert_msg(control >= 0, "bind: %s", strerror(errno));
	front_listen(control, 16);
	return control;
}

int front_accept(int control, struct vendor_result *res)
{
	int nr_fds, fd;
	ssize_t n;

	UNTIL(front_pending(control));
	n = fd_recv(control, res, sizeof(*res), &fd, &nr_fds, 0);
	ck_assert_int_eq(n, sizeof(*res));
	ck_assert_ptr_null(vendor_result_check(res, (size_t)n, nr_fds));
	ck_assert_int_eq(res->op, VENDOR_ACCEPT);
	ck_assert_int_eq(res->status, 0);
	ck_assert_int_ge(fd, 0);
	return fd;
}

int front_rejoin(const struct vendor_result *bound, unsigned flags)
{
	struct vendor_request req;

	vendor_request_init(&req, VENDOR_REJOIN);
	req.dst = bound->local;
	req.flags = flags;
	req.backlog = 16;
	memcpy(req.key, bound->key, sizeof(req.key));
	return front_send(&req);
}

static bool hung_up(int control)
{
	struct pollfd pfd = {.fd = control, .events = POLLRDHUP};

	return poll(&pfd, 1, 0) == 1;
}

void expect_hang_up(int control)
{
	UNTIL(hung_up(control));
}

void expect_talk(int client, int accepted)
{
	char buf[8] = "";

	fd_set_nonblock(accepted, false);
	ck_assert_int_eq(send(client, "ping", 4, MSG_NOSIGNAL), 4);
	ck_assert_int_eq(recv(accepted, buf, 8, 0), 4);
	ck_assert_mem_eq(buf, "ping", 4);
	ck_assert_int_eq(send(accepted, "pong!", 5, MSG_NOSIGNAL), 5);
	ck_assert_int_eq(recv(client, buf, 8, 0), 5);
	ck_assert_mem_eq(buf, "pong!", 5);
}
