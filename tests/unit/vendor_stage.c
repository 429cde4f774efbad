/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor_stage.h"
#include "common/fd.h"
#include "tempdir.h"

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STAT_WORDS 13 /* up to stime */

void stage_open(struct stage *s)
{
	memset(s, 0, sizeof(*s));
	s->listener = -1;
	tempdir_make(s->dir);
	snprintf(s->host, sizeof(s->host), "%s/host.sock", s->dir);
	snprintf(s->config.path, sizeof(s->config.path), "%s/vendor.sock",
		s->dir);
	s->config.endpoint.kind = ENDPOINT_UNIX;
	snprintf(s->config.endpoint.text, sizeof(s->config.endpoint.text), "%s",
		s->host);
	s->config.foreground = true;
	s->config.log_level = LOG_ERROR;
	s->config.own_uid = geteuid();
	s->config.max_gates = CONFIG_GATES_DEFAULT;
	s->config.request_timeout = CONFIG_REQUEST_TIMEOUT;
}

void stage_close(struct stage *s)
{
	closefd_if(&s->listener);
	tempdir_remove(s->dir);
}

static int unix_socket(const char *path, int type, struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	snprintf(addr->sun_path, sizeof(addr->sun_path), "%s", path);
	return fd;
}

int stage_listen(struct stage *s, int backlog)
{
	struct sockaddr_un addr;

	s->listener = unix_socket(s->host, SOCK_STREAM, &addr);
	ck_assert_int_eq(
		bind(s->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(s->listener, backlog), 0);
	return s->listener;
}

int stage_count_fds(pid_t pid)
{
	char path[32] = "/proc/self/fd";
	int nr = 0;
	DIR *dir;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr - 2 - (pid == 0); /* ".", ".." and the folder itself */
}

int stage_wait_exit(pid_t pid)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	int status = -1;

	for (int i = 0; i < STAGE_PATIENCE_MS; i++) {
		pid_t ret = waitpid(pid, &status, WNOHANG);

		if (ret == pid)
			return status;
		ck_assert_int_eq(ret, 0);
		nanosleep(&pause, NULL);
	}
	ck_abort_msg("process %d does not end", pid);
	return -1;
}

/* The stat line of a process from its state on, in words. */
static void stat_words(pid_t pid, char line[1024], char *words[STAT_WORDS])
{
	char path[32];
	char *rest = NULL;
	FILE *f;

	memset(words, 0, STAT_WORDS * sizeof(*words));
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return; /* it has gone */
	if (fgets(line, 1024, f))
		rest = strrchr(line, ')');
	fclose(f);
	for (int i = 0; rest && i < STAT_WORDS; i++)
		words[i] = strtok_r(i ? NULL : rest + 1, " ", &rest);
}

pid_t stage_parent(pid_t pid)
{
	char line[1024];
	char *words[STAT_WORDS];

	stat_words(pid, line, words);
	if (!words[1] || words[0][0] == 'Z')
		return -1;
	return (pid_t)strtol(words[1], NULL, 10);
}

long stage_cpu_ticks(pid_t pid)
{
	char line[1024];
	char *words[STAT_WORDS];

	stat_words(pid, line, words);
	ck_assert_ptr_nonnull(words[STAT_WORDS - 1]);
	return strtol(words[11], NULL, 10) + strtol(words[12], NULL, 10);
}

static void await(int fd, short events)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	ck_assert_msg(poll(&pfd, 1, STAGE_PATIENCE_MS) == 1, "nothing happens");
}

/* ---- the host proxy's side ---- */

int host_accept(const struct stage *s)
{
	int fd;

	await(s->listener, POLLIN);
	fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void read_exactly(int fd, uint8_t *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n;

		await(fd, POLLIN);
		n = recv(fd, buf + got, len - got, 0);
		ck_assert_msg(n > 0, "hello cut off after %zu bytes", got);
		got += (size_t)n;
	}
}

void host_take_hello(int peer, struct socks5_request *request)
{
	static const uint8_t greeting[] = {5, 1, 0};
	enum socks5_reply reply;
	uint8_t buf[3 + SOCKS5_REQUEST_MAX];
	size_t len = 3;
	ssize_t n;

	read_exactly(peer, buf, len);
	ck_assert_mem_eq(buf, greeting, sizeof(greeting));
	do {
		read_exactly(peer, buf + len, 1);
		len++;
		n = socks5_parse_request(buf + 3, len - 3, request, &reply);
	} while (n == 0);
	ck_assert_int_eq(n, (ssize_t)len - 3);
	ck_assert_int_eq(request->command, SOCKS5_CONNECT);
}

void host_send(int peer, const void *buf, size_t len)
{
	ck_assert_int_eq(send(peer, buf, len, MSG_NOSIGNAL), (ssize_t)len);
}

void host_answer(int peer, enum socks5_reply reply)
{
	struct ip_port bound = {
		.family = AF_INET,
		.port = 4242,
		.ip = {192, 0, 2, 7},
	};
	uint8_t buf[SOCKS5_METHOD_LEN + SOCKS5_REPLY_V6_LEN];
	size_t len = socks5_write_method(buf, SOCKS5_METHOD_OK);

	len += socks5_write_reply(buf + len, reply, &bound);
	host_send(peer, buf, len);
}

int host_serve(const struct stage *s, enum socks5_reply reply)
{
	struct socks5_request request;
	int peer = host_accept(s);

	host_take_hello(peer, &request);
	host_answer(peer, reply);
	return peer;
}

void host_expect_eof(int peer)
{
	char byte;
	ssize_t n;

	await(peer, POLLIN);
	n = recv(peer, &byte, 1, 0);
	/* A reset is an end as well: bytes of ours were still unread. */
	ck_assert_msg(
		n == 0 || (n == -1 && errno == ECONNRESET), "expected an end");
}

/* ---- a front-end's side ---- */

int front_connect(const struct stage *s)
{
	struct sockaddr_un addr;
	int fd = unix_socket(s->config.path, SOCK_SEQPACKET, &addr);
	int zero = 0;

	ck_assert_int_eq(
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &zero, sizeof(zero)), 0);
	ck_assert_int_eq(
		connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void front_request(struct vendor_request *req)
{
	vendor_request_init(req, VENDOR_CONNECT);
	req->dst.family = AF_INET;
	req->dst.port = 80;
	ck_assert_int_eq(inet_pton(AF_INET, "198.51.100.1", req->dst.ip), 1);
}

int front_ask(const struct stage *s)
{
	struct vendor_request req;
	int fd = front_connect(s);

	front_request(&req);
	ck_assert_int_eq(
		fd_send(fd, &req, sizeof(req), -1, 0), (ssize_t)sizeof(req));
	return fd;
}

short front_poll(int gate, int timeout_ms)
{
	struct pollfd pfd = {.fd = gate, .events = POLLIN | POLLOUT};

	return poll(&pfd, 1, timeout_ms) == 1 ? pfd.revents : 0;
}

void front_result(int gate, struct vendor_result *res, int *carrier, int flags)
{
	int nr_fds;
	ssize_t n;

	await(gate, POLLIN);
	n = fd_recv(gate, res, sizeof(*res), carrier, &nr_fds, flags);
	if (n == -1 && errno == ECONNRESET)
		n = fd_recv(gate, res, sizeof(*res), carrier, &nr_fds, flags);
	ck_assert_int_ge(n, 0);
	ck_assert_ptr_null(vendor_result_check(res, (size_t)n, nr_fds));
}
