/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_PROXY_NET_H
#define TEST_PROXY_NET_H

/*
 * Sockets and bounded waiting for the proxy's unit tests. Everything is on
 * loopback, with ports that the kernel chooses.
 */

#include "common/sockaddr.h"

#include <check.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Longer than anything takes, also under a sanitizer. */
#define WAIT_SECONDS 20.0

static inline double net_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline void net_nonblock(int fd)
{
	ck_assert_int_eq(
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

/*
 * Move this process to a network namespace with nothing but a loopback
 * interface: any port is free there, and nothing can get out.
 * For main(), before any test. Return: false if this user may not.
 */
static inline bool net_isolate(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd, rc = -1;

	if (unshare(CLONE_NEWNET) == 0 ||
		unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		rc = ioctl(fd, SIOCSIFFLAGS, &ifr);
		close(fd);
	}
	if (rc == -1)
		perror("skipping what needs a network namespace");
	return rc == 0;
}

/* A listening TCP socket on 127.0.0.1 or ::1. */
static inline int net_listen(
	sa_family_t family, int backlog, struct ip_port *out)
{
	struct ip_port addr = {.family = family, .ip = {127, 0, 0, 1}};
	union sockaddr_any any;
	socklen_t len;
	int fd;

	if (family == AF_INET6) {
		memset(addr.ip, 0, sizeof(addr.ip));
		addr.ip[15] = 1;
	}
	len = ip_port_to_sockaddr(&addr, &any);
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, &any.sa, len), 0);
	ck_assert_int_eq(listen(fd, backlog), 0);
	len = sizeof(any);
	ck_assert_int_eq(getsockname(fd, &any.sa, &len), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(out, &any.sa, len), 0);
	return fd;
}

static inline int net_connect(const struct ip_port *addr)
{
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(addr, &any);
	int fd = socket(any.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, &any.sa, len), 0);
	return fd;
}

/* Is there vsock within this machine (the kernel's vsock_loopback)? */
static inline bool net_has_vsock(void)
{
	struct sockaddr_vm vm = {.svm_family = AF_VSOCK,
		.svm_cid = 1 /* VMADDR_CID_LOCAL */,
		.svm_port = VMADDR_PORT_ANY};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd != -1 && bind(fd, (struct sockaddr *)&vm, sizeof(vm)) == 0;

	if (fd != -1)
		close(fd);
	return ok;
}

static inline void net_pair_vsock(int pair[2])
{
	struct sockaddr_vm vm = {.svm_family = AF_VSOCK,
		.svm_cid = 1,
		.svm_port = VMADDR_PORT_ANY};
	struct sockaddr *sa = (struct sockaddr *)&vm;
	socklen_t len = sizeof(vm);
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, sa, len), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(getsockname(fd, sa, &len), 0);
	pair[0] = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(pair[0], sa, len), 0);
	pair[1] = accept(fd, NULL, NULL);
	ck_assert_int_ge(pair[1], 0);
	close(fd);
}

/* A connected pair, both ends non-blocking. */
static inline void net_pair(sa_family_t family, int pair[2])
{
	if (family == AF_UNIX) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	} else if (family == AF_VSOCK) {
		net_pair_vsock(pair);
	} else {
		struct ip_port addr;
		int fd = net_listen(family, 1, &addr);

		pair[0] = net_connect(&addr);
		pair[1] = accept(fd, NULL, NULL);
		ck_assert_int_ge(pair[1], 0);
		close(fd);
	}
	net_nonblock(pair[0]);
	net_nonblock(pair[1]);
}

/* Close with RST (TCP). */
static inline void net_reset(int fd)
{
	struct linger now = {1, 0};

	ck_assert_int_eq(
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(fd);
}

static inline void net_on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
}

/* Turn the loop until @done(@arg), at most WAIT_SECONDS: a ticking timer keeps
 * it from sleeping over what @done looks at. Return: whether it came true. */
static inline bool net_turn_until(
	struct ev_loop *loop, bool (*done)(void *arg), void *arg)
{
	double end = net_now() + WAIT_SECONDS;
	ev_timer tick;
	bool ok;

	ev_timer_init(&tick, net_on_tick, 0.002, 0.002);
	ev_timer_start(loop, &tick);
	while (!(ok = done(arg)) && net_now() < end)
		ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &tick);
	return ok;
}

/* Let everything that is ready happen. */
static inline void net_turn(struct ev_loop *loop, int turns)
{
	while (turns-- > 0)
		ev_run(loop, EVRUN_NOWAIT);
}

/* A cheap stream of bytes that does not repeat at any buffer size. */
static inline void net_pattern(uint8_t *buf, size_t len, uint32_t seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		buf[i] = (uint8_t)(x >> 24);
	}
}

#endif
