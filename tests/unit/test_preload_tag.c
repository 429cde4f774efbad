/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/descriptors.h"
#include "preload/lookup.h"
#include "preload/tag.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Tags on sockets of every family that one can be on, and what a program sees
 * that got such a socket through exec() or in a message.
 */

static struct ip_port address(const char *ip, uint16_t port)
{
	struct ip_port addr;

	ck_assert_int_eq(
		ip_port_from_sockaddr(&addr, addr_of(ip, port), ADDR_LEN(ip)),
		0);
	return addr;
}

static struct record sample(enum record_kind kind)
{
	struct record rec = {
		.kind = (uint8_t)kind,
		.family = AF_INET6,
		.bind_flags = VENDOR_V6ONLY | VENDOR_REUSEPORT,
		.backlog = -5,
		.remote = address(FAR6, 65535),
		.local = address(FAR4, 1),
		.options = {{.level = 6, .name = 1, .len = 4, .value = {1}}},
	};

	for (int i = 0; i < VENDOR_KEY_LEN; i++)
		rec.key[i] = (uint8_t)(0xf0 + i);
	return rec;
}

static void expect_sample(const struct record *got, enum record_kind kind)
{
	struct record wanted = sample(kind);

	ck_assert_int_eq(got->kind, kind);
	ck_assert_int_eq(got->tagged, 1);
	ck_assert_int_eq(got->family, wanted.family);
	ck_assert_int_eq(got->bind_flags, wanted.bind_flags);
	ck_assert_int_eq(got->backlog, wanted.backlog);
	ck_assert_mem_eq(got->key, wanted.key, VENDOR_KEY_LEN);
	ck_assert(ip_port_equal(&got->remote, &wanted.remote));
	ck_assert(ip_port_equal(&got->local, &wanted.local));
	ck_assert_mem_eq(got->options, wanted.options, sizeof(got->options));
}

/* ---- every family ---- */

enum carrier { ON_UNIX, ON_SEQPACKET, ON_TCP, NR_CARRIERS };

static void tcp_pair(int pair[2])
{
	union sockaddr_any at;
	socklen_t len = sizeof(at);
	int listener = tcp(AF_INET, SOCK_CLOEXEC);

	expect_ok(tcp_bind(listener, "127.0.0.1", 0));
	expect_ok(listen(listener, 1));
	expect_ok(getsockname(listener, &at.sa, &len));
	pair[0] = tcp(AF_INET, SOCK_CLOEXEC);
	expect_ok(connect(pair[0], &at.sa, len));
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(pair[1], 0);
	closefd(&listener);
}

static void make_pair(enum carrier family, int pair[2])
{
	int type = family == ON_UNIX ? SOCK_STREAM : SOCK_SEQPACKET;

	if (family == ON_TCP)
		tcp_pair(pair);
	else
		expect_ok(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
}

START_TEST(test_families)
{
	enum record_kind kind;
	struct record rec, got;
	int pair[2];

	make_pair((enum carrier)_i, pair);
	ck_assert(!tag_read(pair[0], &got));
	for (kind = RECORD_GATE; kind <= RECORD_LISTENER; kind++) {
		rec = sample(kind);
		errno = E2BIG;
		expect_ok(tag_attach(pair[0], &rec));
		ck_assert(tag_read(pair[0], &got));
		ck_assert_int_eq(errno, E2BIG);
		expect_sample(&got, kind);
	}
	/* it stays with this end, and lets everything through */
	ck_assert(!tag_read(pair[1], &got));
	say(pair[1], "inwards");
	hear(pair[0], "inwards");
	say(pair[0], "outwards");
	hear(pair[1], "outwards");
	closefd(&pair[0]);
	closefd(&pair[1]);
}
END_TEST

START_TEST(test_no_socket)
{
	struct record rec = sample(RECORD_CARRIER);
	int pipefd[2];

	expect_ok(pipe2(pipefd, O_CLOEXEC));
	errno = E2BIG;
	ck_assert_int_eq(tag_attach(pipefd[0], &rec), -1);
	ck_assert(!tag_read(pipefd[0], &rec));
	ck_assert(!tag_read(-1, &rec));
	ck_assert_int_eq(errno, E2BIG);
	closefd(&pipefd[0]);
	closefd(&pipefd[1]);
}
END_TEST

/* ---- tags that nobody of ours has written ---- */

START_TEST(test_hostile)
{
	static const struct {
		uint8_t kind, family;
		uint16_t remote, local;
	} bad[] = {
		{RECORD_NONE, AF_INET, AF_INET, AF_INET},
		{RECORD_LISTENER + 1, AF_INET, AF_INET, AF_INET},
		{255, AF_INET, AF_INET, AF_INET},
		{RECORD_CARRIER, AF_UNSPEC, AF_INET, AF_INET},
		{RECORD_CARRIER, AF_UNIX, AF_INET, AF_INET},
		{RECORD_CARRIER, AF_INET, AF_UNIX, AF_INET},
		{RECORD_CARRIER, AF_INET, AF_INET, 0xffff},
	};
	struct record rec = sample(RECORD_CARRIER), got;
	struct found found;
	int value, pair[2];

	rec.kind = bad[_i].kind;
	rec.family = bad[_i].family;
	rec.remote.family = bad[_i].remote;
	rec.local.family = bad[_i].local;
	make_pair(ON_UNIX, pair);
	expect_ok(tag_attach(pair[0], &rec));
	ck_assert(!tag_read(pair[0], &got));
	ck_assert(!lookup(pair[0], &found));
	value = int_option(pair[0], SOL_SOCKET, SO_DOMAIN);
	ck_assert_int_eq(value, AF_UNIX);
	ck_assert_int_lt(int_option(pair[0], IPPROTO_TCP, TCP_INFO), 0);
	closefd(&pair[0]);
	closefd(&pair[1]);
}
END_TEST

/* Filters of the application's own, of any length, are not ours. */
START_TEST(test_other_filters)
{
	struct sock_filter code[64];
	struct sock_fprog program = {1, code};
	struct record got;
	int pair[2];

	make_pair(ON_UNIX, pair);
	for (unsigned short len = 1; len <= 64; len++) {
		for (unsigned short i = 0; i < len; i++)
			code[i] = (struct sock_filter)BPF_STMT(
				BPF_LD | BPF_IMM, 0x70786602u);
		code[len - 1] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, UINT32_MAX);
		program.len = len;
		expect_ok(setsockopt(pair[0], SOL_SOCKET, SO_ATTACH_FILTER,
			&program, sizeof(program)));
		ck_assert(!tag_read(pair[0], &got));
	}
	closefd(&pair[0]);
	closefd(&pair[1]);
}
END_TEST

/* ---- another program ---- */

/* A carrier of our own making behind an fd, with the other end. */
static int carrier(enum carrier family, int *remote)
{
	struct record rec = {
		.kind = RECORD_CARRIER,
		.family = AF_INET,
		.remote = address(FAR4, FAR_PORT),
		.local = address("203.0.113.9", 4000),
	};
	int pair[2];

	make_pair(family, pair);
	ck_assert(slot_store(pair[0], socket_cookie(pair[0]), &rec));
	*remote = pair[1];
	return pair[0];
}

/* What a program finds on a socket that it knows nothing of. */
static void expect_carrier(int fd)
{
	struct found found;

	ck_assert(lookup(fd, &found));
	ck_assert_int_eq(found.rec.kind, RECORD_CARRIER);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	ck_assert_int_eq(int_option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
	say(fd, "from afar");
}

START_TEST(play)
{
	stage_config()->endpoint.kind =
		stage_int(1) == ON_TCP ? ENDPOINT_TCP : ENDPOINT_UNIX;
	expect_carrier(stage_int(0));
}
END_TEST

static pid_t exec_with(int fd, int family)
{
	char number[16], kind[16];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	snprintf(kind, sizeof(kind), "%d", family);
	pid = fork();
	if (pid == 0) {
		execl(stage_program(), "play", "--play", number, kind,
			(char *)NULL);
		_exit(127);
	}
	ck_assert_int_ne(pid, -1);
	return pid;
}

/* Each way to make an fd that exec() leaves open. Return: such an fd. */
static int leave_open(int fd, int way)
{
	struct found found;
	int copy = -1;

	switch (way) {
	case 0: copy = dup(fd); break;
	case 1: copy = fcntl(fd, F_DUPFD, 100); break;
	case 2: copy = dup2(fd, 101); break;
	case 3: copy = dup3(fd, 102, 0); break;
	case 4: expect_ok(fcntl(fd, F_SETFD, 0)); return fd;
	case 5: expect_ok(ioctl(fd, FIONCLEX)); return fd;
	default: break;
	}
	ck_assert_int_ge(copy, 0);
	ck_assert(lookup(copy, &found));
	ck_assert(found.rec.tagged);
	return copy;
}

START_TEST(test_exec)
{
	int family = _i / 6, way = _i % 6;
	int remote, copy, fd;

	fd = carrier((enum carrier)family, &remote);
	stage_config()->endpoint.kind =
		family == ON_TCP ? ENDPOINT_TCP : ENDPOINT_UNIX;
	copy = leave_open(fd, way);
	ck_assert_int_eq(stage_wait_exit(exec_with(copy, family)), 0);
	hear(remote, "from afar");
	if (copy != fd)
		closefd(&copy);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* A duplicate that is closed by exec() needs no tag. */
START_TEST(test_cloexec)
{
	struct found found;
	int remote, copy, fd = carrier(ON_UNIX, &remote);

	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	ck_assert(lookup(copy, &found));
	ck_assert(!found.rec.tagged);
	expect_carrier(copy);
	closefd(&copy);
	copy = dup3(fd, 103, O_CLOEXEC);
	ck_assert(lookup(copy, &found));
	ck_assert(!found.rec.tagged);
	closefd(&copy);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* Received in a message, by a process whose slots say nothing. */
START_TEST(test_passed)
{
	int nr_fds, got, fd, remote, pair[2];
	char byte = 'b';

	fd = carrier((enum carrier)_i, &remote);
	stage_config()->endpoint.kind =
		_i == ON_TCP ? ENDPOINT_TCP : ENDPOINT_UNIX;
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	{
		union {
			struct cmsghdr head;
			char bytes[CMSG_SPACE(2 * sizeof(int))];
		} control = {.head = {.cmsg_len = CMSG_LEN(2 * sizeof(int)),
				     .cmsg_level = SOL_SOCKET,
				     .cmsg_type = SCM_RIGHTS}};
		struct iovec iov = {&byte, 1};
		struct msghdr msg = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.bytes,
			.msg_controllen = sizeof(control)};
		/* the first is no socket of ours */
		int fds[] = {pair[0], fd};

		memcpy(CMSG_DATA(&control.head), fds, sizeof(fds));
		tag_passed_fds(&msg);
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		msg.msg_controllen = CMSG_SPACE(sizeof(int));
		ck_assert_int_eq(sendmsg(pair[0], &msg, 0), 1);
	}
	slot_forget(fd);
	closefd(&fd);
	ck_assert_int_eq(fd_recv(pair[1], &byte, 1, &got, &nr_fds, 0), 1);
	ck_assert_int_eq(nr_fds, 1);
	slot_forget(got);
	expect_carrier(got);
	hear(remote, "from afar");
	closefd(&got);
	closefd(&pair[0]);
	closefd(&pair[1]);
	closefd(&remote);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_tag");
	TCase *tc = stage_case(s, "tag");

	tcase_add_loop_test(tc, test_families, 0, NR_CARRIERS);
	tcase_add_test(tc, test_no_socket);
	tcase_add_loop_test(tc, test_hostile, 0, 7);
	tcase_add_test(tc, test_other_filters);
	tcase_add_loop_test(tc, test_exec, 0, NR_CARRIERS * 6);
	tcase_add_test(tc, test_cloexec);
	tcase_add_loop_test(tc, test_passed, 0, NR_CARRIERS);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, play);
}
