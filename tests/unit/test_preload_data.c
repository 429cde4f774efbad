/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/real.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * Every call that moves data, on gates in each state. It must neither read
 * what the vendor says nor write to the vendor.
 */

/* ---- the calls ---- */

enum how { NOW = 1, RECV = 2 }; /* has flags for MSG_DONTWAIT; receives */

struct call {
	const char *name;
	int how;
	ssize_t (*run)(int fd, char *byte, int flags);
};

static ssize_t by_read(int fd, char *byte, int flags)
{
	return read(fd, byte, 1);
}

static ssize_t by_read_chk(int fd, char *byte, int flags)
{
	return __read_chk(fd, byte, 1, 1);
}

static ssize_t by_readv(int fd, char *byte, int flags)
{
	return readv(fd, &(struct iovec){byte, 1}, 1);
}

static ssize_t by_recv(int fd, char *byte, int flags)
{
	return recv(fd, byte, 1, flags);
}

static ssize_t by_recv_chk(int fd, char *byte, int flags)
{
	return __recv_chk(fd, byte, 1, 1, flags);
}

/* TCP names no sender, and leaves the place for one alone. */
static void expect_untouched(const struct sockaddr_storage *from)
{
	for (size_t i = 0; i < sizeof(*from); i++)
		ck_assert_int_eq(((const uint8_t *)from)[i], 0x55);
}

static ssize_t by_recvfrom(int fd, char *byte, int flags)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	ssize_t n;

	memset(&from, 0x55, sizeof(from));
	n = recvfrom(fd, byte, 1, flags, (struct sockaddr *)&from, &len);
	ck_assert_uint_eq(len, n == -1 ? sizeof(from) : 0);
	expect_untouched(&from);
	return n;
}

static ssize_t by_recvfrom_chk(int fd, char *byte, int flags)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	ssize_t n;

	memset(&from, 0x55, sizeof(from));
	n = __recvfrom_chk(
		fd, byte, 1, 1, flags, (struct sockaddr *)&from, &len);
	ck_assert_uint_eq(len, n == -1 ? sizeof(from) : 0);
	expect_untouched(&from);
	return n;
}

static ssize_t by_recvmsg(int fd, char *byte, int flags)
{
	struct sockaddr_storage from;
	struct iovec iov = {byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_name = &from,
		.msg_namelen = sizeof(from)};
	ssize_t n;

	memset(&from, 0x55, sizeof(from));
	n = recvmsg(fd, &msg, flags);
	ck_assert_uint_eq(msg.msg_namelen, n == -1 ? sizeof(from) : 0);
	expect_untouched(&from);
	return n;
}

static ssize_t by_recvmmsg(int fd, char *byte, int flags)
{
	struct sockaddr_storage from;
	struct iovec iov = {byte, 1};
	struct mmsghdr vec = {.msg_hdr = {.msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_name = &from,
				      .msg_namelen = sizeof(from)}};
	int n = recvmmsg(fd, &vec, 1, flags, NULL);

	ck_assert(n == -1 || vec.msg_hdr.msg_namelen == 0);
	return n == 1 ? (ssize_t)vec.msg_len : n;
}

static ssize_t by_splice_in(int fd, char *byte, int flags)
{
	int pipefd[2];
	ssize_t n;
	int err;

	ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
	n = splice(fd, NULL, pipefd[1], NULL, 1,
		flags & MSG_DONTWAIT ? SPLICE_F_NONBLOCK : 0);
	err = errno;
	if (n == 1)
		ck_assert_int_eq(read(pipefd[0], byte, 1), 1);
	closefd(&pipefd[0]);
	closefd(&pipefd[1]);
	errno = err;
	return n;
}

static ssize_t by_write(int fd, char *byte, int flags)
{
	return write(fd, byte, 1);
}

static ssize_t by_writev(int fd, char *byte, int flags)
{
	return writev(fd, &(struct iovec){byte, 1}, 1);
}

static ssize_t by_send(int fd, char *byte, int flags)
{
	return send(fd, byte, 1, flags);
}

/* With an address, which TCP does not look at. */
static ssize_t by_sendto(int fd, char *byte, int flags)
{
	return sendto(fd, byte, 1, flags, addr_of(FAR4_OTHER, 9),
		ADDR_LEN(FAR4_OTHER));
}

static ssize_t by_sendmsg(int fd, char *byte, int flags)
{
	struct iovec iov = {byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_name = (void *)(uintptr_t)addr_of(FAR4_OTHER, 9),
		.msg_namelen = ADDR_LEN(FAR4_OTHER)};

	return sendmsg(fd, &msg, flags);
}

static ssize_t by_sendmmsg(int fd, char *byte, int flags)
{
	struct iovec iov = {byte, 1};
	struct mmsghdr vec = {
		.msg_hdr = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_name = (void *)(uintptr_t)addr_of(FAR4_OTHER, 9),
			.msg_namelen = ADDR_LEN(FAR4_OTHER)}};
	int n = sendmmsg(fd, &vec, 1, flags);

	return n == 1 ? (ssize_t)vec.msg_len : n;
}

/* A file with that byte in it. */
static int file_with(const char *byte)
{
	int file = memfd_create("byte", MFD_CLOEXEC);

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(write(file, byte, 1), 1);
	ck_assert_int_eq(lseek(file, 0, SEEK_SET), 0);
	return file;
}

static ssize_t by_sendfile(int fd, char *byte, int flags)
{
	int file = file_with(byte);
	ssize_t n = sendfile(fd, file, NULL, 1);

	closefd(&file);
	return n;
}

static ssize_t by_sendfile64(int fd, char *byte, int flags)
{
	int file = file_with(byte);
	ssize_t n = sendfile64(fd, file, NULL, 1);

	closefd(&file);
	return n;
}

static ssize_t by_splice_out(int fd, char *byte, int flags)
{
	int pipefd[2];
	ssize_t n;
	int err;

	ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
	ck_assert_int_eq(write(pipefd[1], byte, 1), 1);
	n = splice(pipefd[0], NULL, fd, NULL, 1,
		flags & MSG_DONTWAIT ? SPLICE_F_NONBLOCK : 0);
	err = errno;
	closefd(&pipefd[0]);
	closefd(&pipefd[1]);
	errno = err;
	return n;
}

static const struct call calls[] = {
	{"read", RECV, by_read},
	{"__read_chk", RECV, by_read_chk},
	{"readv", RECV, by_readv},
	{"recv", RECV | NOW, by_recv},
	{"__recv_chk", RECV | NOW, by_recv_chk},
	{"recvfrom", RECV | NOW, by_recvfrom},
	{"__recvfrom_chk", RECV | NOW, by_recvfrom_chk},
	{"recvmsg", RECV | NOW, by_recvmsg},
	{"recvmmsg", RECV | NOW, by_recvmmsg},
	{"splice in", RECV | NOW, by_splice_in},
	{"write", 0, by_write},
	{"writev", 0, by_writev},
	{"send", NOW, by_send},
	{"sendto", NOW, by_sendto},
	{"sendmsg", NOW, by_sendmsg},
	{"sendmmsg", NOW, by_sendmmsg},
	{"sendfile", 0, by_sendfile},
	{"sendfile64", 0, by_sendfile64},
	{"splice out", NOW, by_splice_out},
};

#define NR_CALLS (int)(sizeof(calls) / sizeof(*calls))

/* ---- sockets ---- */

/* A pending attempt; blocking sockets are made so afterwards. */
static int pending(int flags, int *peer)
{
	struct vendor_request req;
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	*peer = vendor_next(&req, VENDOR_CONNECT);
	if (!(flags & SOCK_NONBLOCK))
		expect_ok(fcntl(fd, F_SETFL, 0));
	return fd;
}

/* vendor_connects(), with a carrier whose peer has a name, as a host proxy's
 * unix socket has. */
static int named_carrier(int peer)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int host = stage_unix(stage_config()->endpoint.text);
	int remote, carrier = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct vendor_result res;

	memcpy(addr.sun_path, stage_config()->endpoint.text,
		sizeof(addr.sun_path));
	expect_ok(connect(carrier, (struct sockaddr *)&addr, sizeof(addr)));
	remote = accept4(host, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(remote, 0);
	closefd(&host);
	unlink(addr.sun_path);
	vendor_result_init(&res, VENDOR_CONNECT, 0);
	vendor_finish(peer, &res, &carrier);
	return remote;
}

/* Do what the call is to do, once the connection is there. */
static void expect_moved(
	const struct call *call, int fd, int remote, ssize_t rc, char byte)
{
	ck_assert_msg(rc == 1, "%s: %zd %s", call->name, rc, strerror(errno));
	if (call->how & RECV)
		ck_assert_int_eq(byte, 'i');
	else
		hear(remote, "o");
}

/* ---- the tests ---- */

START_TEST(test_pending)
{
	const struct call *call = &calls[_i];
	int peer, fd = pending(SOCK_NONBLOCK, &peer);
	char byte = 'o';

	expect_errno(call->run(fd, &byte, 0), EAGAIN);
	expect_errno(call->run(fd, &byte, 0), EAGAIN);
	ck_assert_int_eq(byte, 'o');
	if (call->how & NOW) {
		expect_ok(fcntl(fd, F_SETFL, 0));
		expect_errno(call->run(fd, &byte, MSG_DONTWAIT), EAGAIN);
	}
	expect_ok(fcntl(fd, F_SETFL, O_NONBLOCK));
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	closefd(&fd);
	vendor_gone(&peer); /* with nothing but the request in it */
}
END_TEST

/* The first call after it has connected. */
START_TEST(test_connected)
{
	const struct call *call = &calls[_i];
	int peer, remote, fd = pending(SOCK_NONBLOCK, &peer);
	char byte = 'o';
	ssize_t rc;

	remote = named_carrier(peer);
	await_events(fd, POLLOUT);
	say(remote, "ii");
	errno = E2BIG;
	rc = call->run(fd, &byte, 0);
	if (strncmp(call->name, "splice", 6) != 0)
		ck_assert_int_eq(errno, E2BIG);
	expect_moved(call, fd, remote, rc, byte);
	/* and the same again, as it is ever after */
	byte = 'o';
	rc = call->run(fd, &byte, 0);
	expect_moved(call, fd, remote, rc, byte);
	ck_assert(!slot_may_be_gate(fd));
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

static long run_call(struct job *job)
{
	const struct call *call = job->arg;
	char byte = 'o';
	ssize_t rc = call->run(job->fd, &byte, 0);

	return rc == 1 && call->how & RECV && byte != 'i' ? -77 : rc;
}

START_TEST(test_waiting)
{
	const struct call *call = &calls[_i];
	int peer, remote, fd = pending(0, &peer);
	struct job job;

	job_start(&job, run_call, fd, call);
	job_await_sleep(&job);
	remote = named_carrier(peer);
	if (call->how & RECV)
		say(remote, "i");
	ck_assert_int_eq(job_join(&job), 1);
	if (!(call->how & RECV))
		hear(remote, "o");
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

START_TEST(test_failing)
{
	const struct call *call = &calls[_i];
	int peer, fd = pending(0, &peer);
	struct job job;

	signal(SIGPIPE, SIG_IGN);
	job_start(&job, run_call, fd, call);
	job_await_sleep(&job);
	vendor_fails(&peer, ECONNREFUSED);
	expect_errno(job_join(&job), ECONNREFUSED);
	closefd(&fd);
	/* the same, known before the call */
	fd = pending(SOCK_NONBLOCK, &peer);
	vendor_fails(&peer, EHOSTUNREACH);
	await_events(fd, POLLHUP);
	job_start(&job, run_call, fd, call);
	expect_errno(job_join(&job), EHOSTUNREACH);
	closefd(&fd);
}
END_TEST

/* Each call has its own limit, and it is not the other one's. */
START_TEST(test_time_limit)
{
	const struct call *call = &calls[_i];
	int receives = call->how & RECV;
	struct timeval mine = {0, 30000}, other = {20, 0};
	int peer, fd = pending(0, &peer);
	int64_t start;
	char byte = 'o';

	expect_ok(setsockopt(fd, SOL_SOCKET,
		receives ? SO_RCVTIMEO : SO_SNDTIMEO, &mine, sizeof(mine)));
	expect_ok(setsockopt(fd, SOL_SOCKET,
		receives ? SO_SNDTIMEO : SO_RCVTIMEO, &other, sizeof(other)));
	start = now_ms();
	expect_errno(call->run(fd, &byte, 0), EAGAIN);
	ck_assert_int_ge(now_ms() - start, 30);
	ck_assert_int_lt(now_ms() - start, 10000);
	closefd(&fd);
	vendor_gone(&peer);
}
END_TEST

/* Shut down on both sides, a vsock is not connected; a TCP socket that never
 * was connected still says so. */
START_TEST(test_end_of_stream)
{
	const struct call *call = &calls[_i];
	int carrier = tcp(AF_INET, SOCK_CLOEXEC);
	int peer, fd = pending(0, &peer);
	struct vendor_result res;
	char byte = 'o';

	vendor_result_init(&res, VENDOR_CONNECT, 0);
	vendor_finish(peer, &res, &carrier);
	ck_assert_int_eq(call->run(fd, &byte, 0), 0);
	ck_assert_int_eq(call->run(fd, &byte, 0), 0);
	vendor_gone(&peer);
	closefd(&fd);
	fd = tcp(AF_INET, SOCK_CLOEXEC);
	expect_errno(call->run(fd, &byte, 0), ENOTCONN);
	closefd(&fd);
}
END_TEST

/* Bad fds are the kernel's to refuse. */
START_TEST(test_bad_fds)
{
	char byte = 'o';
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < NR_CALLS; i++) {
		expect_errno(calls[i].run(-1, &byte, 0), EBADF);
		expect_errno(calls[i].run((int)SLOT_FDS, &byte, 0), EBADF);
	}
	expect_errno(send(null, "x", 1, 0), ENOTSOCK);
	ck_assert_int_eq(read(null, &byte, 1), 0);
	closefd(&null);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_data");
	TCase *tc = stage_case(s, "calls");

	tcase_add_loop_test(tc, test_pending, 0, NR_CALLS);
	tcase_add_loop_test(tc, test_connected, 0, NR_CALLS);
	tcase_add_loop_test(tc, test_waiting, 0, NR_CALLS);
	tcase_add_loop_test(tc, test_failing, 0, NR_CALLS);
	tcase_add_loop_test(tc, test_time_limit, 0, NR_CALLS);
	tc = stage_case(s, "others");
	tcase_add_loop_test(tc, test_end_of_stream, 0, 8);
	tcase_add_test(tc, test_bad_fds);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
