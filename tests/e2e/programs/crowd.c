/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Many connections from one process, as cheap as can be:
 * tests/e2e/test_crowd.py runs this under emulation too.
 *
 *	crowd serve HOST
 *		an echo server; prints its port
 *	crowd storm HOST PORT PARALLEL TOTAL
 *		TOTAL connections, PARALLEL at a time: each sends its number,
 *		reads it back, sends its end of stream and waits for the
 *		other's
 *	crowd idle HOST PORT TOTAL
 *		TOTAL connections that stay; for each line on stdin one in
 *		fifty of them sends its number and reads it back, and a new one
 *		is made
 *
 * What it counted is printed, "good N bad M"; the first failures are told on
 * stderr.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_EVENTS    256
#define PATIENCE_MS   120000
#define MAX_COMPLAINT 5
#define STRIDE        50
#define IDLE_PARALLEL 100

enum state {
	CONNECTING,
	TALKING, /* the number is on its way */
	ENDING,  /* the end of the stream is */
	IDLE,
};

struct conn {
	int fd;
	enum state state;
	uint32_t number;
};

static int epoll_fd;
static struct sockaddr_in peer;
static bool stay;
static int good, bad;
static uint32_t started;
static struct conn **all; /* idle: those that stay */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int op, struct conn *c, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = c};

	if (epoll_ctl(epoll_fd, op, c->fd, &e) == -1)
		die("epoll_ctl");
}

static struct conn *conn_new(int fd)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		die("calloc");
	c->fd = fd;
	return c;
}

static void conn_end(struct conn *c)
{
	close(c->fd);
	free(c);
}

/* ---- serve ---- */

static void echo(struct conn *c)
{
	char buf[4096];
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

	if (n <= 0 || send(c->fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
		conn_end(c);
}

static void serve(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct conn *listener = conn_new(fd);
	struct epoll_event events[MAX_EVENTS];
	socklen_t len = sizeof(peer);

	peer.sin_port = 0;
	if (bind(fd, (struct sockaddr *)&peer, sizeof(peer)) == -1 ||
		listen(fd, 4096) == -1 ||
		getsockname(fd, (struct sockaddr *)&peer, &len) == -1)
		die("listen");
	printf("%d\n", ntohs(peer.sin_port));
	fflush(stdout);
	watch(EPOLL_CTL_ADD, listener, EPOLLIN);
	for (;;) {
		int nr = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);

		for (int i = 0; i < nr; i++) {
			struct conn *c = events[i].data.ptr;
			int one;

			if (c != listener) {
				echo(c);
				continue;
			}
			while ((one = accept(fd, NULL, NULL)) != -1)
				watch(EPOLL_CTL_ADD, conn_new(one), EPOLLIN);
		}
	}
}

/* ---- the clients ---- */

static void start_one(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct conn *c;

	if (fd == -1)
		die("socket");
	c = conn_new(fd);
	c->number = started++;
	if (stay)
		all[c->number] = c;
	if (connect(fd, (struct sockaddr *)&peer, sizeof(peer)) == -1 &&
		errno != EINPROGRESS)
		die("connect");
	watch(EPOLL_CTL_ADD, c, EPOLLOUT);
	/* The epoll set holds it, which the analyser cannot know. */
} /* NOLINT(clang-analyzer-unix.Malloc) */

/* Return: whether the connection has reached what it was made for. */
static bool failed(struct conn *c, const char *what)
{
	if (bad++ < MAX_COMPLAINT)
		fprintf(stderr, "connection %u: %s: %s\n", c->number, what,
			strerror(errno));
	if (stay)
		all[c->number] = NULL;
	conn_end(c);
	return true;
}

static bool say_number(struct conn *c)
{
	if (send(c->fd, &c->number, sizeof(c->number), MSG_NOSIGNAL) !=
		sizeof(c->number))
		return failed(c, "send");
	c->state = TALKING;
	watch(EPOLL_CTL_MOD, c, EPOLLIN);
	return false;
}

static bool hear_number(struct conn *c)
{
	uint32_t got = ~c->number;
	ssize_t n = recv(c->fd, &got, sizeof(got), 0);

	if (n == -1 && errno == EAGAIN)
		return false;
	/* Four bytes do not come in parts: they were sent at once. */
	if (n != sizeof(got) || got != c->number)
		return failed(c, n == -1 ? "recv" : "wrong answer");
	if (stay) {
		c->state = IDLE;
		good++;
		return true;
	}
	if (shutdown(c->fd, SHUT_WR) == -1)
		return failed(c, "shutdown");
	c->state = ENDING;
	return false;
}

static bool hear_end(struct conn *c)
{
	char byte;
	ssize_t n = recv(c->fd, &byte, 1, 0);

	if (n == -1 && errno == EAGAIN)
		return false;
	if (n != 0)
		return failed(c, n == 1 ? "more than was sent" : "the end");
	good++;
	conn_end(c);
	return true;
}

static bool on_event(struct conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	switch (c->state) {
	case CONNECTING:
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		errno = err;
		return err ? failed(c, "connect") : say_number(c);
	case TALKING: return hear_number(c);
	case ENDING: return hear_end(c);
	case IDLE: errno = 0; return failed(c, "woken");
	}
	return true;
}

/* Handle events until @count connections are done; @next starts another for
 * each, as long as there are to be more. */
static void play(int count, uint32_t total)
{
	struct epoll_event events[MAX_EVENTS];

	while (count > 0) {
		int nr = epoll_wait(epoll_fd, events, MAX_EVENTS, PATIENCE_MS);

		if (nr == 0) {
			errno = ETIMEDOUT;
			die("epoll_wait");
		}
		for (int i = 0; i < nr; i++) {
			if (!on_event(events[i].data.ptr))
				continue;
			count--;
			if (started < total)
				start_one();
		}
	}
}

static void report(void)
{
	printf("good %d bad %d\n", good, bad);
	fflush(stdout);
	good = bad = 0;
}

static void storm(uint32_t parallel, uint32_t total)
{
	while (started < parallel && started < total)
		start_one();
	play((int)total, total);
	report();
}

static void wake_some(uint32_t total)
{
	int count = 1;

	for (uint32_t i = 0; i < total; i += STRIDE)
		if (all[i] && !say_number(all[i]))
			count++;
	start_one();
	play(count, 0);
	report();
}

static void idle(uint32_t total)
{
	char line[16];

	all = calloc(total + 1000, sizeof(struct conn *));
	if (!all)
		die("calloc");
	stay = true;
	storm(IDLE_PARALLEL, total);
	while (fgets(line, sizeof(line), stdin))
		wake_some(total);
}

static uint32_t number(const char *text)
{
	return (uint32_t)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	struct rlimit fds;

	if (argc < 3) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &fds);
	fds.rlim_cur = fds.rlim_max;
	setrlimit(RLIMIT_NOFILE, &fds);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	peer.sin_family = AF_INET;
	if (inet_pton(AF_INET, argv[2], &peer.sin_addr) != 1)
		die("inet_pton");
	if (argc > 3)
		peer.sin_port = htons((uint16_t)number(argv[3]));
	if (strcmp(argv[1], "serve") == 0)
		serve();
	else if (strcmp(argv[1], "storm") == 0 && argc == 6)
		storm(number(argv[4]), number(argv[5]));
	else if (strcmp(argv[1], "idle") == 0 && argc == 5)
		idle(number(argv[4]));
	else
		return 2;
	return 0;
}
