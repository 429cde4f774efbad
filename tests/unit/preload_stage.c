/* SPDX-License-Identifier: Apache-2.0 */
#include "preload_stage.h"
#include "common/fd.h"
#include "preload/config.h"
#include "suite.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STAGE_ENV                                            \
 "PRELOAD_STAGE" /* the stage's folder; set in the inner run \
		  */

static int listener = -1;
static int fds_before;

char **stage_argv;

#if STAGE_TSAN
/* An fd is replaced while another thread may use it, in one step of the
 * kernel's: this is how a connection is settled, and no race. */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:dup_onto\n";
}
#endif

int stage_int(int index)
{
	char *end;
	long value = strtol(stage_argv[index], &end, 10);

	ck_assert(end != stage_argv[index] && *end == '\0');
	return (int)value;
}

/* ---- the frame ---- */

static void clean_environment(const char *dir)
{
	char text[128];

	unsetenv("PROXY_BYPASS");
	unsetenv("PROXY_LOOPBACK");
	unsetenv("PROXY_LOG");
	unsetenv("PROXY_WAIT");
	snprintf(text, sizeof(text), "unix:%s/host.sock", dir);
	setenv("PROXY_ENDPOINT", text, 1);
	snprintf(text, sizeof(text), "%s/vendor.sock", dir);
	setenv("SOCKET_VENDOR_PATH", text, 1);
	setenv(STAGE_ENV, dir, 1);
}

/* Again, in a namespace of our own; the settings are read before main(). */
static int run_inside(char **argv)
{
	char dir[] = "/tmp/preload-XXXXXX";
	char path[64];
	int status = -1;
	pid_t pid;

	if (!mkdtemp(dir))
		return EXIT_FAILURE;
	clean_environment(dir);
	pid = fork();
	if (pid == 0) {
		execlp("unshare", "unshare", "--map-root-user", "--net", "--",
			argv[0], argv[1], (char *)NULL);
		perror("unshare");
		_exit(EXIT_FAILURE);
	}
	if (pid == -1 || waitpid(pid, &status, 0) != pid)
		return EXIT_FAILURE;
	snprintf(path, sizeof(path), "%s/vendor.sock", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/host.sock", dir);
	unlink(path);
	rmdir(dir);
	return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Bring `lo` up. Return: whether this is a namespace with nothing else. */
static bool enter_namespace(void)
{
	struct if_nameindex *all = if_nameindex();
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool alone =
		all && all[0].if_index && strcmp(all[0].if_name, "lo") == 0;

	for (size_t i = 1; alone && all[i].if_index; i++)
		/* Kernels with tunnels built in put these everywhere, down. */
		alone = strstr("tunl0 gre0 gretap0 erspan0 sit0 ip6tnl0 ip6gre0"
			       " ip_vti0 ip6_vti0",
				all[i].if_name) != NULL;
	if_freenameindex(all);
	alone = alone && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
	closefd(&fd);
	return alone;
}

/* Assertions need a runner around them; nothing is said unless one fails. */
static int run_play(const TTest *play)
{
	Suite *s = suite_create("play");
	TCase *tc = tcase_create("play");
	SRunner *runner = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_test(tc, play);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	if (failed)
		srunner_print(runner, CK_VERBOSE);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int stage_main(int argc, char **argv, Suite *(*suite)(void), const TTest *play)
{
	if (!getenv(STAGE_ENV))
		return run_inside(argv);
	if (play && argc > 1 && strcmp(argv[1], "--play") == 0) {
		stage_argv = argv + 2;
		return run_play(play);
	}
	if (!enter_namespace()) {
		fputs("no network namespace to be had\n", stderr);
		return EXIT_FAILURE;
	}
	return suite_run(suite());
}

const char *stage_program(void)
{
	return "/proc/self/exe";
}

void stage_open(void)
{
	fds_before = stage_count_fds();
	vendor_reopen();
}

void stage_close(void)
{
	if (listener != -1)
		vendor_close();
	ck_assert_int_eq(stage_count_fds(), fds_before);
}

TCase *stage_case(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, stage_open, stage_close);
	tcase_set_timeout(tc, STAGE_TIMEOUT);
	suite_add_tcase(s, tc);
	return tc;
}

int stage_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

int stage_wait_exit(pid_t pid)
{
	int64_t deadline = now_ms() + STAGE_PATIENCE_MS;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		ck_assert_msg(now_ms() < deadline, "a child does not end");
		poll(NULL, 0, 1);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status)
				   : WEXITSTATUS(status);
}

struct config *stage_config(void)
{
	return (struct config *)(uintptr_t)config();
}

int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the application's side ---- */

const struct sockaddr *addr_of(const char *ip, uint16_t port)
{
	static _Thread_local union sockaddr_any ring[8];
	static _Thread_local unsigned int next;
	union sockaddr_any *any = &ring[next++ % 8];

	memset(any, 0, sizeof(*any));
	if (strchr(ip, ':')) {
		any->in6.sin6_family = AF_INET6;
		any->in6.sin6_port = htons(port);
		ck_assert_int_eq(
			inet_pton(AF_INET6, ip, &any->in6.sin6_addr), 1);
	} else {
		any->in.sin_family = AF_INET;
		any->in.sin_port = htons(port);
		ck_assert_int_eq(inet_pton(AF_INET, ip, &any->in.sin_addr), 1);
	}
	return &any->sa;
}

int tcp(int family, int flags)
{
	int fd = socket(family, SOCK_STREAM | flags, 0);

	ck_assert_int_ge(fd, 0);
	return fd;
}

int tcp_connect(int fd, const char *ip, uint16_t port)
{
	return connect(fd, addr_of(ip, port), ADDR_LEN(ip));
}

int tcp_bind(int fd, const char *ip, uint16_t port)
{
	return bind(fd, addr_of(ip, port), ADDR_LEN(ip));
}

void expect_name(int (*call)(int, struct sockaddr *, socklen_t *), int fd,
	const char *ip, int port)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port got;
	char text[IP_PORT_STRLEN], wanted[IP_PORT_STRLEN];

	memset(&any, 0x55, sizeof(any));
	expect_ok(call(fd, &any.sa, &len));
	ck_assert_uint_eq(len, ADDR_LEN(ip));
	ck_assert_int_eq(ip_port_from_sockaddr(&got, &any.sa, len), 0);
	if (port == -1) /* any but none */
		ck_assert_uint_ne(got.port, 0);
	else
		ck_assert_uint_eq(got.port, port);
	got.port = 0;
	ip_port_format(&got, text, sizeof(text));
	ip_port_from_sockaddr(&got, addr_of(ip, 0), ADDR_LEN(ip));
	ip_port_format(&got, wanted, sizeof(wanted));
	ck_assert_str_eq(text, wanted);
}

short events(int fd, int timeout_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	int rc;

	do
		rc = poll(&pfd, 1, timeout_ms);
	while (rc == -1 && errno == EINTR);
	ck_assert_int_ne(rc, -1);
	return pfd.revents;
}

void await_events(int fd, short wanted)
{
	int64_t deadline = now_ms() + STAGE_PATIENCE_MS;

	while ((events(fd, 0) & wanted) != wanted) {
		ck_assert_msg(now_ms() < deadline, "events %#x of %#x",
			(unsigned int)events(fd, 0), (unsigned int)wanted);
		poll(NULL, 0, 1);
	}
}

int int_option(int fd, int level, int name)
{
	int value = 0x55555555;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, name, &value, &len) == -1)
		return -errno;
	ck_assert_uint_eq(len, sizeof(value));
	return value;
}

/* ---- jobs ---- */

static void *job_main(void *arg)
{
	struct job *job = arg;

	atomic_store(&job->tid, (pid_t)syscall(SYS_gettid));
	errno = 0;
	job->rc = job->run(job);
	job->err = errno;
	atomic_store(&job->done, true);
	return NULL;
}

void job_start(
	struct job *job, long (*run)(struct job *job), int fd, const void *arg)
{
	memset(job, 0, sizeof(*job));
	job->run = run;
	job->fd = fd;
	job->arg = arg;
	ck_assert_int_eq(pthread_create(&job->thread, NULL, job_main, job), 0);
}

long job_join(struct job *job)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STAGE_PATIENCE_MS / 1000;
	ck_assert_msg(pthread_timedjoin_np(job->thread, NULL, &until) == 0,
		"a call does not return");
	errno = job->err;
	return job->rc;
}

static char task_state(pid_t tid)
{
	char path[64], text[256] = "", *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return 'X';
	n = read(fd, text, sizeof(text) - 1);
	closefd(&fd);
	at = n > 0 ? strrchr(text, ')') : NULL;
	return at && at[1] == ' ' ? at[2] : 'X';
}

void job_await_sleep(struct job *job)
{
	int64_t deadline = now_ms() + STAGE_PATIENCE_MS;
	int asleep = 0;

	/* Three looks in a row: not a lock that it only passes. */
	while (asleep < 3) {
		pid_t tid = atomic_load(&job->tid);

		ck_assert_msg(!atomic_load(&job->done), "it did not block");
		ck_assert_msg(now_ms() < deadline, "a job never sleeps");
		asleep = tid && task_state(tid) == 'S' ? asleep + 1 : 0;
		poll(NULL, 0, 1);
	}
}

void job_interrupt(struct job *job, int number)
{
	int64_t deadline = now_ms() + STAGE_PATIENCE_MS;

	while (!atomic_load(&job->done)) {
		ck_assert_msg(now_ms() < deadline, "it is not interrupted");
		pthread_kill(job->thread, number);
		poll(NULL, 0, 1);
	}
}

/* ---- the vendor's side ---- */

static int listen_at(const char *path, int type)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	unlink(path);
	expect_ok(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	expect_ok(listen(fd, 64));
	return fd;
}

void vendor_reopen(void)
{
	listener = listen_at(config()->vendor_path, SOCK_SEQPACKET);
}

void vendor_backlog(int nr)
{
	expect_ok(listen(listener, nr));
}

int stage_unix(const char *path)
{
	return listen_at(path, SOCK_STREAM);
}

void vendor_close(void)
{
	closefd(&listener);
	unlink(config()->vendor_path);
}

int vendor_accept(void)
{
	struct timeval limit = {.tv_sec = STAGE_PATIENCE_MS / 1000};
	struct pollfd pfd = {.fd = listener, .events = POLLIN};
	int peer;

	ck_assert_msg(poll(&pfd, 1, STAGE_PATIENCE_MS) == 1,
		"nobody asks the vendor");
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(peer, 0);
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return peer;
}

bool vendor_nobody(void)
{
	return events(listener, 0) == 0;
}

static void receive(
	int peer, struct vendor_request *req, enum vendor_op op, int flags)
{
	const char *why;
	int nr_fds, pass;
	ssize_t n;

	memset(req, 0x55, sizeof(*req));
	n = fd_recv(peer, req, sizeof(*req), &pass, &nr_fds, flags);
	ck_assert_msg(n == sizeof(*req), "a request of %zd bytes: %s", n,
		strerror(errno));
	ck_assert_int_eq(nr_fds, 0);
	why = vendor_request_check(req, (size_t)n);
	ck_assert_msg(!why, "%s", why);
	ck_assert_int_eq(req->op, op);
}

void vendor_peek(int peer, struct vendor_request *req, enum vendor_op op)
{
	receive(peer, req, op, MSG_PEEK);
}

void vendor_take(int peer, struct vendor_request *req, enum vendor_op op)
{
	receive(peer, req, op, 0);
}

int vendor_next(struct vendor_request *req, enum vendor_op op)
{
	int peer = vendor_accept();

	vendor_peek(peer, req, op);
	return peer;
}

void vendor_send(int peer, const struct vendor_result *res, int pass)
{
	ck_assert_int_eq(
		fd_send(peer, res, sizeof(*res), pass, 0), sizeof(*res));
}

void vendor_finish(int peer, const struct vendor_result *res, int *carrier)
{
	struct vendor_request req;

	vendor_send(peer, res, *carrier);
	closefd(carrier);
	/* A call that waited has its result and may be gone already. */
	ck_assert(recv(peer, &req, sizeof(req), 0) == sizeof(req) ||
		  errno == ECONNRESET);
}

int vendor_connects(int peer)
{
	struct vendor_request req;
	struct vendor_result res;
	int pair[2];

	vendor_peek(peer, &req, VENDOR_CONNECT);
	vendor_result_init(&res, VENDOR_CONNECT, 0);
	res.remote = req.dst;
	if (req.dst.family == AF_INET6)
		ip_port_from_sockaddr(&res.local, addr_of("2001:db8::9", 4000),
			ADDR_LEN("::"));
	else
		ip_port_from_sockaddr(&res.local, addr_of("203.0.113.9", 4000),
			ADDR_LEN("0.0.0.0"));
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vendor_finish(peer, &res, &pair[0]);
	return pair[1];
}

void vendor_fails(int *peer, int err)
{
	struct vendor_result res;

	vendor_result_init(&res, VENDOR_CONNECT, err);
	vendor_send(*peer, &res, -1);
	closefd(peer);
}

static struct ip_port parse(const char *ip, uint16_t port)
{
	struct ip_port out;

	ck_assert_int_eq(
		ip_port_from_sockaddr(&out, addr_of(ip, port), ADDR_LEN(ip)),
		0);
	return out;
}

int vendor_binds(struct vendor_request *req, int status, uint16_t port)
{
	struct vendor_result res;
	int control = vendor_accept();

	vendor_take(control, req, VENDOR_BIND);
	vendor_result_init(&res, VENDOR_BIND, status);
	if (status == 0) {
		res.local = req->dst;
		if (res.local.port == 0)
			res.local.port = port;
		memcpy(res.key, VENDOR_TEST_KEY, sizeof(res.key));
	}
	vendor_send(control, &res, -1);
	return control;
}

void vendor_listens(int control, int status)
{
	struct vendor_request req;
	struct vendor_result res;

	vendor_take(control, &req, VENDOR_LISTEN);
	vendor_result_init(&res, VENDOR_LISTEN, status);
	vendor_send(control, &res, -1);
}

int vendor_client(int control, const char *remote, const char *local)
{
	struct vendor_result res;
	int pair[2];

	vendor_result_init(&res, VENDOR_ACCEPT, 0);
	res.remote = parse(remote, 5555);
	res.local = parse(local, 80);
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	vendor_send(control, &res, pair[0]);
	closefd(&pair[0]);
	return pair[1];
}

static long run_listen(struct job *job)
{
	const struct ip_port *at = job->arg;
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(at, &any);

	if (bind(job->fd, &any.sa, len) == -1)
		return -1;
	return listen(job->fd, 7);
}

int listener_at(const char *ip, uint16_t port, int flags, int *control)
{
	struct ip_port at = parse(ip, port);
	int fd = tcp(at.family, flags);
	struct vendor_request req;
	struct job job;

	job_start(&job, run_listen, fd, &at);
	*control = vendor_binds(&req, 0, 8080);
	vendor_listens(*control, 0);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	return fd;
}

void vendor_gone(int *peer)
{
	struct vendor_request req;
	ssize_t n = recv(*peer, &req, sizeof(req), 0);

	if (n == sizeof(req)) /* its request lay there unread */
		n = recv(*peer, &req, sizeof(req), 0);
	/* with the result unread it is a reset */
	ck_assert_msg(n == 0 || (n == -1 && errno == ECONNRESET),
		"the front-end is still there: %zd %s", n, strerror(errno));
	closefd(peer);
}

void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL),
		(ssize_t)strlen(text));
}

void hear(int fd, const char *text)
{
	char buf[256] = "";
	size_t have = 0;

	while (have < strlen(text)) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		ssize_t n;

		ck_assert_int_eq(poll(&pfd, 1, STAGE_PATIENCE_MS), 1);
		n = recv(fd, buf + have, strlen(text) - have, 0);
		ck_assert_int_gt(n, 0);
		have += (size_t)n;
	}
	ck_assert_str_eq(buf, text);
}
