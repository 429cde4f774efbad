/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_PRELOAD_STAGE_H
#define TESTS_UNIT_PRELOAD_STAGE_H

/*
 * A stage for the preload library's tests.
 *
 * The library's objects are linked into each test program, so that connect()
 * and all the rest here are its hooks, and its inner functions can be called.
 * The vendor is the test itself: a listening socket, and steps that the test
 * takes one by one, so that what the application sees at each moment is known.
 * Calls that block run as a job, in a thread.
 *
 * The programs run in a network namespace with nothing but `lo` in it: a
 * connection that slipped past the hooks would get nowhere.
 *
 * Everything here fails the test that uses it, and waits at most
 * STAGE_PATIENCE_MS.
 */

#include "common/vendor_msg.h"
#include "preload/config.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#define STAGE_PATIENCE_MS 10000
#define STAGE_TIMEOUT     30 /* seconds for one test */

/* Some of the sanitizers' own functions look at bad pointers, and
 * ThreadSanitizer's let no signal handler run while recvmsg() sleeps. */
#if defined(__has_feature)
# define STAGE_HAS(feature) __has_feature(feature)
#else
# define STAGE_HAS(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || STAGE_HAS(thread_sanitizer)
# define STAGE_TSAN 1
#else
# define STAGE_TSAN 0
#endif
#if STAGE_TSAN || defined(__SANITIZE_ADDRESS__) || STAGE_HAS(address_sanitizer)
# define STAGE_SANITIZED 1
#else
# define STAGE_SANITIZED 0
#endif

/* Where the application wants to go: addresses that only a hook can reach. */
#define FAR4        "192.0.2.1"
#define FAR4_OTHER  "198.51.100.7"
#define FAR4_MAPPED "::ffff:192.0.2.1"
#define FAR6        "2001:db8::1"
#define FAR_PORT    80

/**
 * stage_main() - run a suite in its own network namespace
 * @play: NULL, or a test that runs instead in a program that was started with
 *        stage_program() and "--play"; it has the rest of argv in stage_argv
 *
 * Return: the exit status.
 */
int stage_main(int argc, char **argv, Suite *(*suite)(void), const TTest *play);

/** stage_argv - what follows "--play", ended by NULL */
extern char **stage_argv;

/** stage_int() - stage_argv[@index], which is a number, or the test fails */
int stage_int(int index);

/** stage_program() - what to exec(); argv[1] is "--play" */
const char *stage_program(void);

/** stage_open(), stage_close() - a checked fixture: the vendor listens; at the
 * end no fd may be open that was not before */
void stage_open(void);
void stage_close(void);

/** stage_case() - a test case with that fixture and a time limit */
TCase *stage_case(Suite *s, const char *name);

/** stage_count_fds() - open fds of this process */
int stage_count_fds(void);

/** stage_wait_exit() - reap a child. Return: its exit status, 128 + signal */
int stage_wait_exit(pid_t pid);

/** stage_config() - the settings, to be changed for one test */
struct config *stage_config(void);

/** now_ms() - CLOCK_MONOTONIC */
int64_t now_ms(void);

/* ---- the application's side ---- */

/** addr_of() - an address for the socket calls; valid until 8 further calls */
const struct sockaddr *addr_of(const char *ip, uint16_t port);
#define ADDR_LEN(ip)                                          \
 ((socklen_t)(strchr((ip), ':') ? sizeof(struct sockaddr_in6) \
				: sizeof(struct sockaddr_in)))

/** tcp() - a TCP socket; @flags of socket(2) */
int tcp(int family, int flags);

/** tcp_connect() - connect(2) to an address in text form */
int tcp_connect(int fd, const char *ip, uint16_t port);

/** tcp_bind() - bind(2) to an address in text form */
int tcp_bind(int fd, const char *ip, uint16_t port);

/** expect_name() - what getpeername() or getsockname() must tell */
void expect_name(int (*call)(int, struct sockaddr *, socklen_t *), int fd,
	const char *ip, int port);

/** events() - poll an fd for in, out, rdhup. Return: revents, 0: none came */
short events(int fd, int timeout_ms);

/** await_events() - wait until all of @wanted are there */
void await_events(int fd, short wanted);

/** int_option() - an int-valued option, or -errno */
int int_option(int fd, int level, int name);

/* expect_errno(call, E) - the call returns -1 and that errno */
#define expect_errno(call, wanted)                                         \
 do {                                                                      \
  errno = 0;                                                               \
  long rc_ = (long)(call);                                                 \
  int err_ = errno;                                                        \
  ck_assert_msg(rc_ == -1 && err_ == (wanted), "%s: %ld %s, wanted -1 %s", \
	  #call, rc_, strerror(err_), strerror(wanted));                   \
 } while (0)

#define expect_ok(call)                                                   \
 do {                                                                     \
  long rc_ = (long)(call);                                                \
  ck_assert_msg(                                                          \
	  rc_ == 0, "%s: %ld %s, wanted 0", #call, rc_, strerror(errno)); \
 } while (0)

/* ---- calls that block ---- */

/**
 * struct job - a call in a thread of its own
 * @run: the call
 * @fd, @arg: for it
 * @rc, @err: its value and errno, once it is done
 * @tid: of the thread
 */
struct job {
	pthread_t thread;
	long (*run)(struct job *job);
	const void *arg;
	long rc;
	int fd;
	int err;
	_Atomic pid_t tid;
	_Atomic bool done;
};

void job_start(
	struct job *job, long (*run)(struct job *job), int fd, const void *arg);

/** job_join() - wait for it. Return: rc; errno is set to err */
long job_join(struct job *job);

/** job_await_sleep() - until the thread sleeps in a system call */
void job_await_sleep(struct job *job);

/** job_interrupt() - a signal, until the call returns: the first may come while
 * it does not sleep */
void job_interrupt(struct job *job, int number);

/* ---- the vendor's side ---- */

/** vendor_accept() - the next front-end, with a time limit on all it does */
int vendor_accept(void);

/** vendor_nobody() - has no front-end come? */
bool vendor_nobody(void);

/** vendor_peek() - look at a front-end's request, which must be valid and @op
 */
void vendor_peek(int peer, struct vendor_request *req, enum vendor_op op);

/** vendor_take() - the same and take it off */
void vendor_take(int peer, struct vendor_request *req, enum vendor_op op);

/** vendor_next() - accept and peek in one */
int vendor_next(struct vendor_request *req, enum vendor_op op);

/** vendor_send() - a result as it is, with an fd or -1 */
void vendor_send(int peer, const struct vendor_result *res, int pass);

/** vendor_finish() - send a gate its result, and take its request off; closes
 * *carrier */
void vendor_finish(int peer, const struct vendor_result *res, int *carrier);

/**
 * vendor_connects() - let a gate's attempt succeed
 * @peer: the gate; its request is taken off at last
 *
 * The local address is 203.0.113.9:4000, or [2001:db8::9]:4000.
 *
 * Return: the remote's end of the carrier.
 */
int vendor_connects(int peer);

/** vendor_fails() - let it fail; closes *peer */
void vendor_fails(int *peer, int err);

/* The key that vendor_binds() gives. */
#define VENDOR_TEST_KEY "0123456789abcde"

/**
 * vendor_binds() - answer a BIND
 * @req:    set to it
 * @status: of the answer
 * @port:   if that is 0, the port in place of 0
 *
 * Return: the control.
 */
int vendor_binds(struct vendor_request *req, int status, uint16_t port);

/** vendor_listens() - answer the LISTEN on a control */
void vendor_listens(int control, int status);

/**
 * vendor_client() - let a client come
 * @remote, @local: addresses in text form; ports 5555 and 80
 *
 * Return: the client's end of the connection.
 */
int vendor_client(int control, const char *remote, const char *local);

/** listener_at() - a TCP socket that is bound and listens; *control is its
 * vendor's end. Port 0 becomes 8080 */
int listener_at(const char *ip, uint16_t port, int flags, int *control);

/** vendor_gone() - the front-end has closed its end, and said no more than its
 * request */
void vendor_gone(int *peer);

/** vendor_close(), vendor_reopen() - the vendor dies and comes back */
void vendor_close(void);
void vendor_reopen(void);

/** vendor_backlog() - how many may wait before the vendor accepts them */
void vendor_backlog(int nr);

/** stage_unix() - a listening stream socket, such as the host proxy's */
int stage_unix(const char *path);

/** say(), hear() - bytes through a socket, all of them */
void say(int fd, const char *text);
void hear(int fd, const char *text);

#endif
