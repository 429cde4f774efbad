/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/real.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * What a stream is asked besides data, and what vsock and unix streams do
 * unlike TCP. A seccomp filter lets system calls fail as they do on a vsock.
 */

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

/* A carrier that is connected, as the application has it. */
static int connected(int *remote)
{
	int peer, fd = pending(0, &peer);

	*remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	vendor_gone(&peer);
	return fd;
}

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
		expect_errno(recv(fd, buf, 8, MSG_OOB), EINVAL);
		expect_errno(recvmsg(fd, &vec.msg_hdr, MSG_OOB), EINVAL);
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
		refuse(SYS_recvmsg, 2, MSG_PEEK, EOPNOTSUPP);
	errno = E2BIG;
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(errno, E2BIG);
	ck_assert_int_eq(queued, 0);
	say(remote, "seven..");
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, _i == 2 ? 1 : 7);
	ck_assert_int_eq(send(remote, big, sizeof(big), 0), sizeof(big));
	expect_ok(ioctl(fd, FIONREAD, &queued));
	ck_assert_int_eq(queued, _i == 2 ? 1 : 7 + (int)sizeof(big));
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

static Suite *suite(void)
{
	Suite *s = suite_create("preload_stream");
	TCase *tc = stage_case(s, "stream");

	tcase_add_test(tc, test_fionread);
	tcase_add_loop_test(tc, test_fast_open, 0, 3);
	tcase_add_loop_test(tc, test_wait_all, 0, 5);
	tcase_add_test(tc, test_wait_all_once);
	tcase_add_test(tc, test_throw_away);
	tcase_add_loop_test(tc, test_error_queue, 0, 2);
	tcase_add_loop_test(tc, test_old_fionread, 0, 3);
	tcase_add_test(tc, test_bad_pointers);
	tcase_add_test(tc, test_long_control);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
