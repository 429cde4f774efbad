/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/real.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
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

	strcpy(addr.sun_path, stage_config()->endpoint.text);
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
	ck_assert_msg(
		rc == 1, "%s: %zd %s", call->name, rc, strerrorname_np(errno));
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

/* ---- FIONREAD ---- */

START_TEST(test_fionread)
{
	int peer, remote, fd = pending(SOCK_NONBLOCK, &peer);
	struct vendor_result res;
	struct vendor_request req;
	int queued = -1, pair[2];

	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, 0);
	expect_errno(ioctl(fd, FIONREAD, (int *)1), EFAULT);
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	vendor_result_init(&res, VENDOR_CONNECT, 0);
	vendor_send(peer, &res, pair[0]);
	closefd(&pair[0]);
	remote = pair[1];
	vendor_take(peer, &req, VENDOR_CONNECT);
	queued = -1;
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, 0); /* not the result's 80 */
	say(remote, "seven..");
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, 7);
	vendor_gone(&peer);
	closefd(&fd);
	closefd(&remote);
	fd = pending(SOCK_NONBLOCK, &peer);
	vendor_fails(&peer, ECONNREFUSED);
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, 0);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	closefd(&fd);
}
END_TEST

/* ---- MSG_FASTOPEN ---- */

static ssize_t fast_open(int fd, int how, const char *ip)
{
	struct iovec iov = {(char *)(uintptr_t) "hello", 5};
	struct mmsghdr vec = {
		.msg_hdr = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_name = (void *)(uintptr_t)addr_of(ip, FAR_PORT),
			.msg_namelen = ADDR_LEN(FAR4)}};
	int flags = MSG_FASTOPEN | MSG_NOSIGNAL;
	ssize_t n;

	switch (how) {
	case 0:
		return sendto(fd, "hello", 5, flags, addr_of(ip, FAR_PORT),
			ADDR_LEN(FAR4));
	case 1: return sendmsg(fd, &vec.msg_hdr, flags);
	default:
		n = sendmmsg(fd, &vec, 1, flags);
		return n == 1 ? (ssize_t)vec.msg_len : n;
	}
}

static long run_fast_open(struct job *job)
{
	return fast_open(job->fd, *(const int *)job->arg, FAR4);
}

START_TEST(test_fast_open)
{
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	job_start(&job, run_fast_open, fd, &_i);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 5);
	hear(remote, "hello");
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_errno(fast_open(fd, _i, FAR4), EISCONN);
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);

	fd = tcp(AF_INET, SOCK_CLOEXEC);
	job_start(&job, run_fast_open, fd, &_i);
	peer = vendor_next(&req, VENDOR_CONNECT);
	vendor_fails(&peer, ECONNREFUSED);
	expect_errno(job_join(&job), ECONNREFUSED);
	closefd(&fd);

	/* without waiting: nothing is sent */
	fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	expect_errno(fast_open(fd, _i, FAR4), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	expect_errno(fast_open(fd, _i, FAR4), EALREADY);
	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	ck_assert_int_eq(send(fd, "later", 5, 0), 5);
	hear(remote, "later");
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);

	/* inside the enclave it is the kernel's */
	fd = tcp(AF_INET, SOCK_CLOEXEC);
	expect_errno(fast_open(fd, _i, "127.0.0.1"), ECONNREFUSED);
	closefd(&fd);
	ck_assert(vendor_nobody());
}
END_TEST

/* ---- what vsock does unlike TCP ---- */

/* A carrier that is connected, as the application has it. */
static int connected(int *remote)
{
	int peer, fd = pending(0, &peer);

	*remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	vendor_gone(&peer);
	return fd;
}

/* Let a system call fail as it does on a vsock: @nr, if its argument @arg
 * has all bits of @mask. */
static void refuse(int nr, int arg, uint32_t mask, int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			(uint32_t)(offsetof(struct seccomp_data, args) +
				   8 * (size_t)arg)),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mask, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(*code), code};

	expect_ok(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	expect_ok(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

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

static char big[9000];

static long run_wait_all(struct job *job)
{
	struct iovec iov[] = {{big, 3000}, {big + 3000, 6000}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);

	switch (*(const int *)job->arg) {
	case 0: return recv(job->fd, big, sizeof(big), MSG_WAITALL);
	case 1:
		return __recv_chk(
			job->fd, big, sizeof(big), sizeof(big), MSG_WAITALL);
	case 2:
		return recvfrom(job->fd, big, sizeof(big), MSG_WAITALL,
			       (struct sockaddr *)&from, &len) +
		       (ssize_t)len;
	case 3:
		return __recvfrom_chk(job->fd, big, sizeof(big), sizeof(big),
			MSG_WAITALL, NULL, NULL);
	default: return recvmsg(job->fd, &msg, MSG_WAITALL);
	}
}

START_TEST(test_wait_all)
{
	char out[sizeof(big)];
	int remote, fd = connected(&remote);
	struct job job;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)('a' + i % 26);
	refuse(SYS_recvfrom, 3, MSG_WAITALL, ENOMEM);
	refuse(SYS_recvmsg, 2, MSG_WAITALL, ENOMEM);
	job_start(&job, run_wait_all, fd, &_i);
	for (size_t i = 0; i < sizeof(out); i += 1500) {
		job_await_sleep(&job);
		ck_assert_int_eq(send(remote, out + i, 1500, 0), 1500);
	}
	ck_assert_int_eq(job_join(&job), sizeof(big));
	ck_assert_mem_eq(big, out, sizeof(big));
	/* the stream ends before that */
	job_start(&job, run_wait_all, fd, &_i);
	job_await_sleep(&job);
	say(remote, "short");
	closefd(&remote);
	ck_assert_int_eq(job_join(&job), 5);
	job_start(&job, run_wait_all, fd, &_i);
	ck_assert_int_eq(job_join(&job), 0);
	/* what does not wait takes what there is */
	expect_errno(recv(-1, big, sizeof(big), MSG_WAITALL), ENOMEM);
	closefd(&fd);
}
END_TEST

/* Thrown away, as far as it goes. */
START_TEST(test_throw_away)
{
	char buf[8];
	int remote, fd = connected(&remote);
	struct iovec iov = {NULL, 3};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	say(remote, "0123456789abcdef");
	ck_assert_int_eq(recv(fd, NULL, 3, MSG_TRUNC), 3);
	ck_assert_int_eq(recv(fd, buf, 1, MSG_TRUNC), 1);
	ck_assert_int_eq(recvfrom(fd, NULL, 2, MSG_TRUNC, NULL, NULL), 2);
	ck_assert_int_eq(recvmsg(fd, &msg, MSG_TRUNC), 3);
	ck_assert_int_eq(recv(fd, NULL, 2, MSG_TRUNC | MSG_PEEK), 2);
	hear(fd, "9");
	ck_assert_int_eq(recv(fd, NULL, 1 << 20, MSG_TRUNC), 6);
	expect_errno(recv(fd, NULL, 1, MSG_TRUNC | MSG_DONTWAIT), EAGAIN);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* No errors are queued, and data is none. */
START_TEST(test_error_queue)
{
	char buf[8];
	struct iovec iov = {buf, sizeof(buf)};
	struct mmsghdr vec = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	int peer, remote, fd;

	if (_i) {
		fd = connected(&remote);
		say(remote, "data");
	} else {
		fd = pending(0, &peer);
	}
	expect_errno(recv(fd, buf, 8, MSG_ERRQUEUE), EAGAIN);
	expect_errno(__recv_chk(fd, buf, 8, 8, MSG_ERRQUEUE), EAGAIN);
	expect_errno(recvfrom(fd, buf, 8, MSG_ERRQUEUE, NULL, NULL), EAGAIN);
	expect_errno(recvmsg(fd, &vec.msg_hdr, MSG_ERRQUEUE), EAGAIN);
	expect_errno(recvmmsg(fd, &vec, 1, MSG_ERRQUEUE, NULL), EAGAIN);
	if (_i) {
		hear(fd, "data");
		closefd(&remote);
	} else {
		closefd(&peer);
	}
	closefd(&fd);
}
END_TEST

START_TEST(test_wait_all_once)
{
	int remote, fd = connected(&remote);

	refuse(SYS_recvfrom, 3, MSG_WAITALL, ENOMEM);
	say(remote, "short");
	ck_assert_int_eq(recv(fd, big, sizeof(big), MSG_WAITALL | MSG_PEEK), 5);
	ck_assert_int_eq(
		recv(fd, big, sizeof(big), MSG_WAITALL | MSG_DONTWAIT), 5);
	expect_errno(
		recv(fd, big, sizeof(big), MSG_WAITALL | MSG_DONTWAIT), EAGAIN);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

START_TEST(test_old_fionread)
{
	int remote, fd = connected(&remote);
	int queued = -1, pipefd[2];

	expect_ok(pipe2(pipefd, O_CLOEXEC));
	refuse(SYS_ioctl, 1, FIONREAD, _i ? ENOTTY : EOPNOTSUPP);
	if (_i == 2) /* before 5.5 */
		refuse(SYS_recvfrom, 3, MSG_PEEK, EOPNOTSUPP);
	errno = E2BIG;
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(errno, E2BIG);
	ck_assert_int_eq(queued, 0);
	say(remote, "seven..");
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, _i == 2 ? 1 : 7);
	expect_errno(ioctl(fd, FIONREAD, (int *)8), EFAULT);
	expect_errno(
		ioctl(pipefd[0], FIONREAD, &queued), _i ? ENOTTY : EOPNOTSUPP);
	closefd(&fd);
	closefd(&remote);
	closefd(&pipefd[0]);
	closefd(&pipefd[1]);
}
END_TEST

/* ---- bad arguments ---- */

START_TEST(test_bad_pointers)
{
	int peer, remote = -1, fd = pending(SOCK_NONBLOCK, &peer);
	char *volatile nowhere = (char *)8; /* volatile: nobody looks */
	struct mmsghdr *wild = (struct mmsghdr *)(void *)nowhere;
	struct iovec iov = {nowhere, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	char byte;

	/* on a gate; what TCP says first differs, that nothing crashes not */
	ck_assert_int_eq(sendmsg(fd, NULL, 0), -1);
	ck_assert_int_eq(sendmsg(fd, &wild->msg_hdr, 0), -1);
	ck_assert_int_eq(sendmmsg(fd, wild, 1, 0), -1);
	ck_assert_int_eq(recvmsg(fd, NULL, 0), -1);
	ck_assert_int_eq(recvmsg(fd, &wild->msg_hdr, 0), -1);
	ck_assert_int_eq(recvmmsg(fd, wild, 1, 0, NULL), -1);
	remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	vendor_gone(&peer);
	for (int i = 0; i < 2; i++) {
		expect_errno(sendmsg(fd, NULL, 0), EFAULT);
		expect_errno(sendmsg(fd, &wild->msg_hdr, 0), EFAULT);
		expect_errno(sendmsg(fd, &msg, 0), EFAULT);
		expect_errno(sendmmsg(fd, wild, 1, 0), EFAULT);
		expect_errno(sendmmsg(fd, NULL, 1, 0), EFAULT);
		if (!STAGE_SANITIZED)
			expect_errno(recvmmsg(fd, wild, 1, 0, NULL), EFAULT);
		expect_errno(recvmsg(fd, NULL, 0), EFAULT);
		if (!STAGE_SANITIZED)
			expect_errno(recvmsg(fd, &wild->msg_hdr, 0), EFAULT);
		expect_errno(
			sendto(fd, "x", 1, 0, (void *)nowhere, 16), EFAULT);
		expect_errno(write(fd, nowhere, 1), EFAULT);
		say(remote, "x");
		expect_errno(recv(fd, nowhere, 1, 0), EFAULT);
		ck_assert_int_eq(recv(fd, &byte, 1, 0), 1);
	}
	closefd(&fd);
	closefd(&remote);
	fd = tcp(AF_INET, SOCK_CLOEXEC);
	expect_errno(
		sendto(fd, "x", 1, MSG_FASTOPEN, (void *)nowhere, 16), EFAULT);
	closefd(&fd);
}
END_TEST

/* A control message that claims to be longer than it is, at the very end of
 * what can be read. */
START_TEST(test_long_control)
{
	static const size_t lens[] = {
		0, 1, 15, 25, 1000, SIZE_MAX, SIZE_MAX - 8};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t room = CMSG_SPACE(sizeof(int));
	struct cmsghdr *cmsg = (struct cmsghdr *)(void *)(map + page - room);
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = cmsg,
		.msg_controllen = room};
	int pair[2];

	ck_assert_ptr_ne(map, MAP_FAILED);
	expect_ok(mprotect(map + page, page, PROT_NONE));
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = lens[i];
		expect_errno(sendmsg(pair[0], &msg, 0), EINVAL);
	}
	msg.msg_control = (char *)1;
	expect_errno(sendmsg(pair[0], &msg, 0), EFAULT);
	closefd(&pair[0]);
	closefd(&pair[1]);
	munmap(map, 2 * page);
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
	tcase_add_test(tc, test_fionread);
	tcase_add_loop_test(tc, test_fast_open, 0, 3);
	tcase_add_loop_test(tc, test_end_of_stream, 0, 8);
	tcase_add_loop_test(tc, test_wait_all, 0, 5);
	tcase_add_test(tc, test_wait_all_once);
	tcase_add_test(tc, test_throw_away);
	tcase_add_loop_test(tc, test_error_queue, 0, 2);
	tcase_add_loop_test(tc, test_old_fionread, 0, 3);
	tcase_add_test(tc, test_bad_pointers);
	tcase_add_test(tc, test_long_control);
	tcase_add_test(tc, test_bad_fds);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
