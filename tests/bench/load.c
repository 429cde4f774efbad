/* SPDX-License-Identifier: Apache-2.0 */
#include "common/endpoint.h"
#include "common/fd.h"
#include "common/socks5.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 *	bench_load server ENDPOINT
 *	bench_load client ENDPOINT TEST SECONDS PARALLEL [IP PORT]
 *
 * The first byte that a client sends on a connection is the test:
 *
 *	c	connections: the server answers with one byte and closes, the
 *		client waits for the end of the stream and connects again
 *	p	ping-pong: 64 bytes there and back, over and over
 *	b	bulk: the server sends as much as it can
 *	i	idle: nothing more happens; the client says "ready" when it has
 *		all of them
 *
 * The client keeps PARALLEL of them going for SECONDS and prints what it
 * counted, per second: connections, round trips or bytes. One thread, one epoll
 * set, level-triggered. With IP and PORT it asks the SOCKS5 server at ENDPOINT
 * for a connection there first; of a range of ports it takes one after the
 * other. It waits for nothing but events, except for a place in the backlog of
 * a unix socket. As little as possible is done for each event, because this
 * runs beside what is measured. Anything that goes wrong ends it.
 *
 * BENCH_WINDOW in the environment: bytes that may be under way to a vsock
 * socket of this program.
 */

#define PING_LEN    64
#define BULK_LEN    (256 * 1024)
#define MAX_EVENTS  256
#define MAX_PENDING 64 /* connections that are being made */

enum conn_state { CONN_CONNECTING, CONN_ASKING, CONN_TESTING };

struct conn {
	int fd;
	char test;             /* server: 0 until known */
	enum conn_state state; /* client */
	size_t got;            /* of a ping, or of a SOCKS5 answer */
	uint8_t reply[SOCKS5_METHOD_LEN + SOCKS5_REPLY_MAX];
};

static char buf[BULK_LEN];
static int epoll_fd;
static struct endpoint ep;
static struct socks5_addr dst; /* with a family: through SOCKS5 */
static char test;
static unsigned long long count;
static uint64_t window; /* of vsock, in bytes; 0: the kernel's */
static int nr_begun;    /* tests, on one connection each */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void set_window(int fd)
{
	if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &window,
		    sizeof(window)) == -1 ||
		setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &window,
			sizeof(window)) == -1)
		die("window");
}

static int make_socket(union endpoint_sockaddr *addr, socklen_t *len)
{
	static uint32_t number;
	struct endpoint one = ep;
	int on = 1;
	int fd;

	endpoint_pick(&one, number++);
	*len = endpoint_sockaddr(&one, addr);
	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		die("socket");
	if (ep.kind == ENDPOINT_VSOCK && window)
		set_window(fd);
	if (ep.kind == ENDPOINT_TCP) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	}
	return fd;
}

static void watch(struct conn *c, int op, uint32_t events)
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
	if (fd_set_nonblock(fd, true) == -1)
		die("fcntl");
	return c;
}

static void conn_end(struct conn *c)
{
	closefd(&c->fd);
	free(c);
}

static bool try_again(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* ---- the server ---- */

/* Return: false if it has ended. */
static bool serve_bulk(struct conn *c)
{
	ssize_t n = send(c->fd, buf, sizeof(buf), MSG_NOSIGNAL);

	return n >= 0 || try_again();
}

static bool serve_input(struct conn *c)
{
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

	if (n <= 0)
		return n == -1 && try_again();
	if (c->test == 'p')
		return send(c->fd, buf, (size_t)n, MSG_NOSIGNAL) == n;
	c->test = buf[0];
	if (c->test == 'b')
		watch(c, EPOLL_CTL_MOD, EPOLLOUT);
	/* The first ping may come along. */
	if (c->test == 'p')
		return n == 1 || send(c->fd, buf + 1, (size_t)n - 1,
					 MSG_NOSIGNAL) == n - 1;
	if (c->test != 'c')
		return true;
	/* The client may have come to its end meanwhile. */
	(void)send(c->fd, "!", 1, MSG_NOSIGNAL);
	return false;
}

static void serve(int listen_fd)
{
	struct conn *listener = conn_new(listen_fd);
	struct epoll_event events[MAX_EVENTS];

	watch(listener, EPOLL_CTL_ADD, EPOLLIN);
	for (;;) {
		int nr = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);

		for (int i = 0; i < nr; i++) {
			struct conn *c = events[i].data.ptr;
			int fd;

			if (c == listener) {
				fd = accept4(
					listen_fd, NULL, NULL, SOCK_CLOEXEC);
				if (fd != -1)
					watch(conn_new(fd), EPOLL_CTL_ADD,
						EPOLLIN);
			} else if (c->test == 'b' ? !serve_bulk(c)
						  : !serve_input(c)) {
				conn_end(c);
			}
		}
	}
}

static void run_server(void)
{
	union endpoint_sockaddr addr;
	socklen_t len;
	int fd = make_socket(&addr, &len);

	if (bind(fd, &addr.sa, len) == -1)
		die("bind");
	if (listen(fd, SOMAXCONN) == -1)
		die("listen");
	puts("ready");
	fflush(stdout);
	serve(fd);
}

/* ---- the client ---- */

/* Connected to the server: say what is wanted. */
static void begin_test(struct conn *c)
{
	c->state = CONN_TESTING;
	if (send(c->fd, &test, 1, MSG_NOSIGNAL) != 1)
		die("send");
	if (test == 'p' && send(c->fd, buf, PING_LEN, MSG_NOSIGNAL) != PING_LEN)
		die("send");
	nr_begun++;
}

/* Connected to the endpoint. */
static void on_connected(struct conn *c)
{
	uint8_t hello[3 + SOCKS5_REQUEST_MAX];
	size_t len;

	if (!dst.addr.family) {
		begin_test(c);
		return;
	}
	c->state = CONN_ASKING;
	len = socks5_write_hello(hello, SOCKS5_CONNECT, &dst);
	if (send(c->fd, hello, len, MSG_NOSIGNAL) != (ssize_t)len)
		die("send");
}

/* Of the SOCKS5 server's answer not a byte too many is read. */
static void on_answer(struct conn *c)
{
	size_t need = c->got < SOCKS5_METHOD_LEN
			      ? SOCKS5_METHOD_LEN - c->got
			      : socks5_reply_need(c->reply + SOCKS5_METHOD_LEN,
					c->got - SOCKS5_METHOD_LEN);
	ssize_t n = recv(c->fd, c->reply + c->got, need, 0);

	if (n == 0 || (n == -1 && !try_again()))
		die("the SOCKS5 server's answer");
	if (n == -1)
		return;
	c->got += (size_t)n;
	if (c->got < SOCKS5_METHOD_LEN + 2 ||
		socks5_reply_need(c->reply + SOCKS5_METHOD_LEN,
			c->got - SOCKS5_METHOD_LEN) > 0)
		return;
	if (c->reply[SOCKS5_METHOD_LEN + 1] != SOCKS5_SUCCEEDED)
		die("the SOCKS5 server refuses");
	c->got = 0;
	begin_test(c);
}

static void start_one(void)
{
	union endpoint_sockaddr addr;
	socklen_t len;
	int fd = make_socket(&addr, &len);
	struct conn *c;

	/* A unix socket knows no other way to wait for a backlog than to
	 * block; all others wait for an answer. */
	if (ep.kind == ENDPOINT_UNIX && connect(fd, &addr.sa, len) == -1)
		die("connect");
	c = conn_new(fd);
	if (ep.kind == ENDPOINT_UNIX || connect(fd, &addr.sa, len) == 0)
		on_connected(c);
	else if (errno != EINPROGRESS)
		die("connect");
	watch(c, EPOLL_CTL_ADD,
		c->state == CONN_CONNECTING ? EPOLLOUT : EPOLLIN);
	/* The epoll set holds it, which the analyser cannot know. */
} /* NOLINT(clang-analyzer-unix.Malloc) */

static void on_writable(struct conn *c)
{
	socklen_t len = sizeof(errno);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &errno, &len) == -1 ||
		errno)
		die("connect");
	on_connected(c);
	watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void on_bytes(struct conn *c, size_t n)
{
	if (test == 'b') {
		count += n;
		return;
	}
	if (test == 'c')
		return;
	c->got += n;
	if (c->got < PING_LEN)
		return;
	c->got = 0;
	count++;
	if (send(c->fd, buf, PING_LEN, MSG_NOSIGNAL) != PING_LEN)
		die("send");
}

static void on_test(struct conn *c)
{
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

	if (n > 0) {
		on_bytes(c, (size_t)n);
	} else if (n == 0 && test == 'c') {
		count++;
		conn_end(c);
		start_one();
	} else if (n == 0 || !try_again()) {
		die(n == 0 ? "unexpected end" : "recv");
	}
}

static void on_event(struct conn *c)
{
	switch (c->state) {
	case CONN_CONNECTING: on_writable(c); break;
	case CONN_ASKING: on_answer(c); break;
	case CONN_TESTING: on_test(c); break;
	}
}

/* So many at a time that no backlog is full. */
static void start_more(int *started, int parallel)
{
	while (*started < parallel && *started - nr_begun < MAX_PENDING) {
		start_one();
		(*started)++;
	}
}

static void run_client(double seconds, int parallel)
{
	struct epoll_event events[MAX_EVENTS];
	int started = 0;
	bool ready = false;
	double start, end;

	start = now();
	do {
		int nr;

		start_more(&started, parallel);
		if (test == 'i' && nr_begun == parallel && !ready) {
			ready = true;
			puts("ready");
			fflush(stdout);
		}
		nr = epoll_wait(epoll_fd, events, MAX_EVENTS, 100);
		for (int i = 0; i < nr; i++)
			on_event(events[i].data.ptr);
		end = now();
	} while (end - start < seconds);
	printf("%.0f\n", (double)count / (end - start));
}

static void raise_fds(void)
{
	struct rlimit fds;

	getrlimit(RLIMIT_NOFILE, &fds);
	fds.rlim_cur = fds.rlim_max;
	setrlimit(RLIMIT_NOFILE, &fds);
}

int main(int argc, char **argv)
{
	const char *wanted = getenv("BENCH_WINDOW");
	const char *why;

	if (argc != 3 && argc != 6 && argc != 8) {
		fprintf(stderr,
			"usage: %s server ENDPOINT\n"
			"       %s client ENDPOINT c|p|b|i SECONDS "
			"PARALLEL [IP PORT]\n",
			argv[0], argv[0]);
		return 2;
	}
	why = endpoint_parse(&ep, argv[2]);
	if (why) {
		fprintf(stderr, "bad endpoint '%s': %s\n", argv[2], why);
		return 2;
	}
	if (argc == 8) {
		dst.addr.family = AF_INET;
		dst.addr.port = (uint16_t)strtol(argv[7], NULL, 10);
		if (inet_pton(AF_INET, argv[6], dst.addr.ip) != 1)
			die(argv[6]);
	}
	if (wanted)
		window = strtoull(wanted, NULL, 10);
	raise_fds();
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd == -1)
		die("epoll_create1");
	if (argc == 3)
		run_server();
	test = argv[3][0];
	run_client(strtod(argv[4], NULL), (int)strtol(argv[5], NULL, 10));
	return 0;
}
