/* SPDX-License-Identifier: Apache-2.0 */
/* sockdiff: epoll, duplicates, processes and threads around one socket */
#include "sockdiff.h"

#define FDTEXT 16

static void epoll(int ep, int op, int fd, unsigned int events, const char *text)
{
	struct epoll_event ev = {.events = events, .data = {.u64 = 7}};

	show(text, epoll_ctl(ep, op, fd, &ev));
}

static void show_events(int ep, int ms)
{
	struct epoll_event ev = {0};
	int n = epoll_wait(ep, &ev, 1, ms);

	printf("epoll_wait: %d, %#x, data %llu\n", n, n > 0 ? ev.events : 0,
		n > 0 ? (unsigned long long)ev.data.u64 : 0);
}

void diff_epoll_level(void)
{
	int fd = tcp(SOCK_NONBLOCK), ep = epoll_create1(0);
	char buf[16];

	T(connect(fd, SA(slow_addr)));
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLRDHUP, "ADD");
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT, "ADD again");
	show_events(ep, 0);
	show_events(ep, 10000);
	show_events(ep, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	show_events(ep, 10000);
	epoll(ep, EPOLL_CTL_MOD, fd, EPOLLIN, "MOD");
	show_events(ep, 0);
	T(send(fd, "ping", 4, 0));
	show_events(ep, 10000);
	read_all(fd, 4);
	T(recv(fd, buf, 4, 0));
	show_events(ep, 0);
	epoll(ep, EPOLL_CTL_DEL, fd, 0, "DEL");
	epoll(ep, EPOLL_CTL_DEL, fd, 0, "DEL again");
	epoll(ep, EPOLL_CTL_MOD, fd, EPOLLIN, "MOD of none");
	close(fd);
	close(ep);
}

void diff_epoll_edge(void)
{
	int fd = tcp(SOCK_NONBLOCK), ep = epoll_create1(0);
	char buf[16];

	T(connect(fd, SA(slow_addr)));
	/* Without EPOLLIN until it is connected: the vendor's answer can be
	 * read, in the library, and shows as such beside EPOLLOUT. */
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLET, "ADD");
	show_events(ep, 0);
	show_events(ep, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	epoll(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLET, "MOD");
	T(echoes(fd, "ping"));
	T(send(fd, "ping", 4, 0));
	read_all(fd, 4);
	show_events(ep, 10000);
	T(recv(fd, buf, 4, 0));
	close(fd);
	close(ep);
}

void diff_epoll_oneshot(void)
{
	int fd = tcp(SOCK_NONBLOCK), ep = epoll_create1(0);

	T(connect(fd, SA(slow_addr)));
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLONESHOT, "ADD");
	show_events(ep, 10000);
	show_events(ep, 0);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	/* Not whether it stays quiet now: the library cannot know if the shot
	 * was fired, and one event too many is better than one too few. */
	epoll(ep, EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLONESHOT, "MOD");
	show_events(ep, 10000);
	show_events(ep, 0);
	close(fd);
	close(ep);
}

void diff_epoll_before(void)
{
	int fd = tcp(SOCK_NONBLOCK), ep = epoll_create1(0), ep2;

	note("registered before connect(), level");
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT, "ADD");
	T(connect(fd, SA(slow_addr)));
	show_events(ep, 0);
	show_events(ep, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	show_events(ep, 10000);
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT, "ADD again");
	T(echoes(fd, "ping"));
	close(fd);

	note("changed between, and in two sets");
	fd = tcp(SOCK_NONBLOCK);
	ep2 = epoll_create1(0);
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLIN, "ADD");
	epoll(ep2, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLET, "ADD");
	epoll(ep, EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLONESHOT, "MOD");
	T(connect(fd, SA(slow_addr)));
	show_events(ep, 10000);
	show_events(ep2, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(fd, "ping"));
	close(fd);

	note("taken out again before connect()");
	fd = tcp(SOCK_NONBLOCK);
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLOUT, "ADD");
	epoll(ep, EPOLL_CTL_DEL, fd, 0, "DEL");
	T(connect(fd, SA(echo_addr)));
	show_poll(fd, POLLOUT, 10000);
	show_events(ep, 0);
	close(fd);

	note("a blocking connect()");
	fd = tcp(0);
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLIN, "ADD");
	T(connect(fd, SA(echo_addr)));
	show_events(ep, 0);
	T(send(fd, "ping", 4, 0));
	show_events(ep, 10000);
	close(fd);

	note("and one that is refused");
	fd = tcp(SOCK_NONBLOCK);
	epoll(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT, "ADD");
	T(connect(fd, SA(refused_addr)));
	show_poll(fd, POLLOUT, 10000);
	show_events(ep, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	close(fd);
	show_events(ep, 0);
	close(ep);
	close(ep2);
}

void diff_dup_after(void)
{
	int fd = connected(), copy = dup(fd), high = fcntl(fd, F_DUPFD, 100);

	T(high >= 100);
	T(echoes(copy, "one"));
	T(echoes(high, "two"));
	show_name("getpeername", getpeername, copy, true);
	get_int(high, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	T(connect(copy, SA(echo_addr)));
	close(fd);
	show_name("getpeername", getpeername, copy, true);
	T(echoes(copy, "three"));
	close(copy);
	T(echoes(high, "four"));
	T(dup2(high, 0));
	T(echoes(0, "five"));
	show_name("getpeername", getpeername, 0, true);
	close(high);
	close(0);
}

void diff_dup_before(void)
{
	int fd = tcp(SOCK_NONBLOCK), copy = dup(fd);

	note("connected through one number, used through the other");
	T(connect(fd, SA(slow_addr)));
	T(connect(copy, SA(slow_addr)));
	show_poll(copy, POLLOUT, 10000);
	get_int(copy, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	show_name("getpeername", getpeername, copy, true);
	T(echoes(copy, "hello"));
	T(echoes(fd, "hello"));
	close(fd);
	T(echoes(copy, "hello"));
	close(copy);

	note("copied while it connects");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(slow_addr)));
	copy = dup(fd);
	close(fd);
	show_poll(copy, POLLOUT, 10000);
	get_int(copy, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(copy, "hello"));
	close(copy);

	note("moved to another number before connect()");
	fd = tcp(0);
	T(dup2(fd, 50));
	close(fd);
	T(connect(50, SA(echo_addr)));
	T(echoes(50, "hello"));
	close(50);
}

static void child_talks(int fd, const char *text)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		show_name("child getpeername", getpeername, fd, true);
		get_int(fd, SOL_SOCKET, SO_DOMAIN, "child SO_DOMAIN");
		T(echoes(fd, text));
		fflush(stdout);
		_exit(3);
	}
	T(waitpid(pid, &status, 0) == pid);
	T(WEXITSTATUS(status));
}

void diff_fork(void)
{
	int fd = connected();

	child_talks(fd, "child");
	T(echoes(fd, "parent"));
	close(fd);

	note("while it connects: the child finishes, then the parent");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(slow_addr)));
	show_poll(fd, POLLOUT, 0);
	fflush(stdout);
	if (fork() == 0) {
		show_poll(fd, POLLOUT, 10000);
		get_int(fd, SOL_SOCKET, SO_ERROR, "child SO_ERROR");
		T(echoes(fd, "child"));
		_exit(0);
	}
	T(wait(NULL) > 0);
	show_poll(fd, POLLOUT, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(fd, "parent"));
	close(fd);

	note("the parent finishes, then the child");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(echo_addr)));
	show_poll(fd, POLLOUT, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	child_talks(fd, "child");
	close(fd);
}

void diff_vfork_exec(void)
{
	int status = -1, fd = connected(), other = connected();
	char number[FDTEXT];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	note("the child closes its copies; the parent keeps its own");
	/* vfork is what is under test: Python, Java and glibc's posix_spawn do
	 * it */
	pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
	if (pid == 0) {
		close(other); /* NOLINT(clang-analyzer-unix.Vfork) */
		dup2(fd, 1);  /* NOLINT(clang-analyzer-unix.Vfork) */
		close(fd);    /* NOLINT(clang-analyzer-unix.Vfork) */
		execlp("printf", "printf", "from the child", (char *)NULL);
		_exit(99);
	}
	T(waitpid(pid, &status, 0) == pid);
	T(WEXITSTATUS(status));
	{
		char buf[14];

		T(recv(fd, buf, sizeof(buf), MSG_WAITALL));
		T(memcmp(buf, "from the child", sizeof(buf)));
	}
	T(echoes(other, "other"));
	T(echoes(fd, "first"));
	show_name("getpeername", getpeername, other, true);
	close(fd);
	close(other);
}

void diff_exec_inherited(void)
{
	/* A program that learns of the socket only by inheriting it. */
	static const char script[] =
		"import os, socket, sys\n"
		"s = socket.socket(fileno=3)\n"
		"print(s.family.name, s.type.name, s.getpeername()[0],"
		" s.getsockname()[0])\n"
		"print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))\n"
		"s.sendall(b'exec')\n"
		"print(s.recv(4))\n";
	int status = -1, one = 1, fd = connected();
	pid_t pid;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (fd == 3)
			fcntl(fd, F_SETFD, 0);
		else
			dup2(fd, 3);
		execl("/usr/bin/python3", "python3", "-c", script,
			(char *)NULL);
		_exit(99);
	}
	T(waitpid(pid, &status, 0) == pid);
	T(WEXITSTATUS(status));
	T(echoes(fd, "parent"));
	close(fd);
}

void diff_fd_reuse(void)
{
	int fd, pair[2];

	/* Each turn puts another kind of file on the number just closed. */
	for (int i = 0; i < 20; i++) {
		fd = connected();
		if (!echoes(fd, "hello"))
			note("no echo");
		close(fd);
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1)
			exit(2);
		if (pair[0] != fd)
			note("not the same number");
		if (i == 0) {
			show_name("getpeername", getpeername, pair[0], false);
			get_int(pair[0], SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
			get_int(pair[0], IPPROTO_TCP, TCP_NODELAY, "NODELAY");
			T(connect(pair[0], SA(echo_addr)));
		}
		close(pair[0]);
		close(pair[1]);
		fd = open("/dev/null", O_RDONLY);
		if (i == 0) {
			show_name("getpeername", getpeername, fd, false);
			T(send(fd, "x", 1, 0));
		}
		close(fd);
	}
	note("closed by dup2, close_range and fclose");
	for (int i = 0; i < 3; i++) {
		int null = open("/dev/null", O_RDONLY);

		fd = connected();
		if (i == 0)
			dup2(null, fd);
		else if (i == 1)
			syscall(SYS_close_range, fd, ~0u, 0u);
		else
			fclose(fdopen(fd, "r+"));
		show_name("getpeername", getpeername, fd, false);
		close(fd);
		close(null);
	}
	fd = connected();
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_rlimit(void)
{
	struct rlimit limit;
	int fd, high;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	T(setrlimit(RLIMIT_NOFILE, &limit));
	high = (int)limit.rlim_cur - 2;
	fd = tcp(0);
	T(dup2(fd, high) == high);
	close(fd);
	T(connect(high, SA(echo_addr)));
	show_name("getpeername", getpeername, high, true);
	set_int(high, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
	T(echoes(high, "hello"));
	close(high);
	note("and none left");
	limit.rlim_cur = 20;
	T(setrlimit(RLIMIT_NOFILE, &limit));
	fd = tcp(0);
	while (dup(fd) != -1)
		;
	T(socket(AF_INET, SOCK_STREAM, 0));
}

#define THREADS 8
#define ROUNDS  25

struct talker {
	pthread_t thread;
	char name[FDTEXT];
	int good;
};

static void *talk(void *arg)
{
	struct talker *me = arg;

	for (int i = 0; i < ROUNDS; i++) {
		int fd = tcp(i % 2 ? SOCK_NONBLOCK : 0);
		struct pollfd p = {.fd = fd, .events = POLLOUT};

		if (connect(fd, SA(echo_addr)) == 0 ||
			(errno == EINPROGRESS && poll(&p, 1, 10000) == 1))
			me->good += echoes(fd, me->name);
		close(fd);
	}
	return NULL;
}

void diff_threads(void)
{
	struct talker talkers[THREADS] = {{.good = 0}};
	int total = 0;

	for (int i = 0; i < THREADS; i++) {
		struct talker *t = &talkers[i];

		snprintf(t->name, sizeof(t->name), "thread %d", i);
		pthread_create(&t->thread, NULL, talk, t);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(talkers[i].thread, NULL);
		total += talkers[i].good;
	}
	T(total);
}

/* ---- an attempt that another thread gives up ---- */

struct attempt {
	pthread_t thread;
	int fd;
	_Atomic int tid;
	long rc;
	int err;
};

static void *attempt(void *arg)
{
	struct attempt *me = arg;

	me->tid = gettid();
	me->rc = connect(me->fd, SA(silent_addr));
	me->err = errno;
	return NULL;
}

static char state_of(int tid)
{
	char path[64], text[128] = "";
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	at = n > 0 ? strrchr(text, ')') : NULL;
	return at ? at[2] : '?';
}

/* Asleep at three looks in a row: in connect(), not on its way there. */
static void await_sleep(struct attempt *a)
{
	int asleep = 0;

	for (int i = 0; i < 10000 && asleep < 3; i++) {
		asleep = a->tid && state_of(a->tid) == 'S' ? asleep + 1 : 0;
		poll(NULL, 0, 1);
	}
}

void diff_break_off(void)
{
	for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
		struct attempt a = {.fd = tcp(0)};

		pthread_create(&a.thread, NULL, attempt, &a);
		await_sleep(&a);
		T(shutdown(a.fd, how));
		pthread_join(a.thread, NULL);
		errno = a.err;
		show("the other thread's connect()", a.rc);
		get_int(a.fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
		T(connect(a.fd, SA(echo_addr)));
		T(echoes(a.fd, "hello"));
		close(a.fd);
	}
}
