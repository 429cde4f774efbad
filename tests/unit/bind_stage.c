/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"

#include "common/log.h"
#include "proxy/resolve.h"

#include "test_proxy_net.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* ---- life ---- */

void bind_stage_open(struct bind_stage *s)
{
	memset(s, 0, sizeof(*s));
	tempdir_make(s->dir);
	log_init("test", LOG_ERROR, STDERR_FILENO);
	ck_assert_int_eq(resolve_library_init(), 0);
	bind_policy_init(&s->policy);
	fd_budget_init(&s->budget, 8000, 0);
	fd_limit_raise();
	s->fds = count_fds();
}

static void serve_on(struct service_config *config, const char *text)
{
	memset(config, 0, sizeof(*config));
	config->mode = &mode_table[MODE_SOCKS5];
	config->handshake_timeout = 20;
	config->connect_timeout = 20;
	ck_assert_ptr_null(endpoint_parse(&config->listen, text));
}

void bind_stage_start(struct bind_stage *s)
{
	struct service_config service[2];
	char text[TEMPDIR_LEN + 16];

	snprintf(text, sizeof(text), "unix:%s/s", s->dir);
	serve_on(&service[0], text);
	serve_on(&service[1], "tcp:127.0.0.1:0");
	s->config.set = service_set_open(service, 2, NULL);
	ck_assert_ptr_nonnull(s->config.set);
	for (int i = 0; i < 2; i++)
		s->listener[i] = &s->config.set->service[i]->entrance->listener;
	s->config.nr_workers = STAGE_WORKERS;
	s->config.buffer_size = 65536;
	s->config.resolv_conf = "/nonexistent";
	s->config.bind = &s->policy;
	s->config.budget = &s->budget;
	s->config.event_fd = eventfd(0, EFD_CLOEXEC);
	for (unsigned int i = 0; i < STAGE_WORKERS; i++) {
		s->worker[i] = worker_new(&s->config, i);
		ck_assert_ptr_nonnull(s->worker[i]);
	}
	for (unsigned int i = 0; i < STAGE_WORKERS; i++)
		ck_assert_int_eq(worker_start(s->worker[i]), 0);
}

void bind_stage_close(struct bind_stage *s)
{
	for (unsigned int i = 0; i < STAGE_WORKERS; i++)
		worker_kill(s->worker[i]);
	for (unsigned int i = 0; i < STAGE_WORKERS; i++)
		worker_join(s->worker[i]);
	for (unsigned int i = 0; i < STAGE_WORKERS; i++)
		worker_free(s->worker[i]);
	ck_assert_int_eq(atomic_load(&s->budget.used), 0);
	for (int i = 0; i < 2; i++) {
		struct service *service = s->config.set->service[i];

		ck_assert_int_eq(atomic_load(&service->refs), 1);
		ck_assert_int_eq(atomic_load(&service->entrance->nr), 0);
	}
	service_set_retire(s->config.set, NULL);
	close(s->config.event_fd);
	resolve_library_cleanup();
	tempdir_remove(s->dir);
	ck_assert_int_eq(count_fds(), s->fds);
}

/* ---- bytes ---- */

static void set_patience(int fd)
{
	struct timeval patience = {(time_t)WAIT_SECONDS, 0};

	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
				 sizeof(patience)),
		0);
}

void put(int fd, const void *buf, size_t len)
{
	ck_assert_int_eq(send(fd, buf, len, MSG_NOSIGNAL), (ssize_t)len);
}

void expect(int fd, const void *buf, size_t len)
{
	uint8_t got[64];

	ck_assert_uint_le(len, sizeof(got));
	ck_assert_int_eq(recv(fd, got, len, MSG_WAITALL), (ssize_t)len);
	ck_assert_mem_eq(got, buf, len);
}

void expect_silence(int fd)
{
	char byte;

	ck_assert_int_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	ck_assert(errno == EAGAIN || errno == EWOULDBLOCK);
}

void expect_end(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	ck_assert(n == 0 || (n == -1 && errno == ECONNRESET));
	close(fd);
}

void expect_open(int one, int other)
{
	put(one, "?", 1);
	expect(other, "?", 1);
	put(other, "!", 1);
	expect(one, "!", 1);
}

/* ---- the enclave's side ---- */

int stage_dial(const struct bind_stage *s)
{
	union endpoint_sockaddr addr;
	socklen_t len = endpoint_sockaddr(&s->listener[0]->ep, &addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	set_patience(fd);
	ck_assert_int_eq(connect(fd, &addr.sa, len), 0);
	return fd;
}

int stage_dial_tcp(const struct bind_stage *s, uint8_t host)
{
	struct ip_port from = {.family = AF_INET, .ip = {127, 0, 0, host}};
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&from, &any);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	set_patience(fd);
	ck_assert_int_eq(bind(fd, &any.sa, len), 0);
	len = ip_port_to_sockaddr(&s->listener[1]->ep.addr, &any);
	ck_assert_int_eq(connect(fd, &any.sa, len), 0);
	return fd;
}

/* Read a method answer and a first reply. Return: its code. */
static int first_reply(int fd, uint16_t *port)
{
	uint8_t buf[SOCKS5_REPLY_V4_LEN];

	expect(fd, "\5\0", 2);
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), MSG_WAITALL), sizeof(buf));
	ck_assert_uint_eq(buf[0], 5);
	ck_assert_mem_eq(buf + 2, "\0\1\0\0\0\0", 6);
	if (port)
		*port = (uint16_t)(buf[8] << 8 | buf[9]);
	return buf[1];
}

int ask_bytes(int fd, const void *request, size_t len, uint16_t *port)
{
	put(fd, "\5\1\0", 3);
	put(fd, request, len);
	return first_reply(fd, port);
}

static int ask(int fd, const struct socks5_addr *dst, uint16_t *port)
{
	uint8_t buf[3 + SOCKS5_REQUEST_MAX];
	size_t len = socks5_write_hello(buf, SOCKS5_BIND, dst);

	put(fd, buf, len);
	return first_reply(fd, port);
}

int plain(int fd, uint16_t *port)
{
	const struct socks5_addr dst = {
		.addr = {.family = AF_INET, .port = *port}};

	return ask(fd, &dst, port);
}

int plain6(int fd, uint16_t *port)
{
	const struct socks5_addr dst = {
		.addr = {.family = AF_INET6, .port = *port}};

	return ask(fd, &dst, port);
}

int ask_name(int fd, const char *name, uint16_t *port)
{
	struct socks5_addr dst = {.addr = {.port = *port}};

	dst.name_len = (uint8_t)snprintf(
		dst.name, sizeof(dst.name), "%s.proxy.internal", name);
	return ask(fd, &dst, port);
}

int hold(const struct bind_stage *s, const char *what, uint16_t *port)
{
	uint16_t wanted = *port;
	char name[64];
	int fd = stage_dial(s);

	snprintf(name, sizeof(name), "hold-%s", what);
	ck_assert_int_eq(ask_name(fd, name, port), SOCKS5_SUCCEEDED);
	ck_assert_uint_ne(*port, 0);
	ck_assert(wanted == 0 || *port == wanted);
	return fd;
}

static int stand_by(const struct bind_stage *s, const char *verb,
	const char *key, uint16_t port)
{
	uint16_t bound = port;
	char name[64];
	int fd = stage_dial(s);

	snprintf(name, sizeof(name), "%s-%s", verb, key);
	ck_assert_int_eq(ask_name(fd, name, &bound), SOCKS5_SUCCEEDED);
	ck_assert_uint_eq(bound, port);
	return fd;
}

int join(const struct bind_stage *s, const char *key, uint16_t port)
{
	return stand_by(s, "join", key, port);
}

int meet(const struct bind_stage *s, const char *key, uint16_t port)
{
	return stand_by(s, "meet", key, port);
}

void refused(
	const struct bind_stage *s, const char *name, uint16_t port, int reply)
{
	int fd = stage_dial(s);

	ck_assert_int_eq(ask_name(fd, name, &port), reply);
	expect_end(fd);
}

/* ---- the host's side ---- */

int reach(sa_family_t family, uint16_t port)
{
	struct ip_port to = {.family = family, .port = port};
	union sockaddr_any any;
	socklen_t len;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	set_patience(fd);
	if (family == AF_INET)
		memcpy(to.ip, "\x7f\0\0\1", 4);
	else
		to.ip[15] = 1;
	len = ip_port_to_sockaddr(&to, &any);
	if (connect(fd, &any.sa, len) == 0)
		return fd;
	close(fd);
	return -1;
}

int reached(sa_family_t family, uint16_t port)
{
	int fd = reach(family, port);

	ck_assert_msg(fd >= 0, "port %u: %s", port, strerror(errno));
	return fd;
}

static void expect_address(int standby, int client,
	int (*name)(int, struct sockaddr *, socklen_t *))
{
	uint8_t want[SOCKS5_REPLY_V6_LEN];
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port addr;

	ck_assert_int_eq(name(client, &any.sa, &len), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&addr, &any.sa, len), 0);
	ip_port_map(&addr);
	ck_assert_uint_eq(
		socks5_write_reply(want, SOCKS5_SUCCEEDED, &addr), 22);
	expect(standby, want, sizeof(want));
}

void expect_second(int standby, int client)
{
	expect_address(standby, client, getsockname);
}

void expect_third(int standby, int client)
{
	expect_address(standby, client, getpeername);
}

void break_off(int fd)
{
	net_reset(fd);
}

uint16_t free_port(void)
{
	static uint16_t next;
	struct ip_port addr = {.family = AF_INET6};
	union sockaddr_any any;
	socklen_t len;
	int fd, rc;

	/* Below those that the kernel chooses. */
	if (next == 0)
		next = (uint16_t)(10000 + getpid() * 17 % 20000);
	do {
		addr.port = next++;
		len = ip_port_to_sockaddr(&addr, &any);
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_ge(fd, 0);
		rc = bind(fd, &any.sa, len);
		close(fd);
	} while (rc == -1);
	return addr.port;
}
