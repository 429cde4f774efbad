/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sockdiff: the frame; see sockdiff.h for the idea.
 *
 * Usage: sockdiff GROUP HOST HOST6 ECHO-PORT CLOSED-PORT SLOW SILENT
 *        sockdiff --list
 */
#include "sockdiff.h"

struct sockaddr_in echo_addr, refused_addr, slow_addr, silent_addr;
struct sockaddr_in6 echo_addr6;

static const struct {
	const char *name;
	void (*run)(void);
} groups[] = {
	{"states", diff_states},
	{"nonblock", diff_nonblock},
	{"refused", diff_refused},
	{"reconnect", diff_reconnect},
	{"bad_arguments", diff_bad_arguments},
	{"options", diff_options},
	{"options_survive", diff_options_survive},
	{"flags", diff_flags},
	{"data", diff_data},
	{"addresses", diff_addresses},
	{"fastopen", diff_fastopen},
	{"shutdown", diff_shutdown},
	{"eintr", diff_eintr},
	{"eintr_restart", diff_eintr_restart},
	{"timeouts", diff_timeouts},
	{"epoll_level", diff_epoll_level},
	{"epoll_edge", diff_epoll_edge},
	{"epoll_oneshot", diff_epoll_oneshot},
	{"epoll_before", diff_epoll_before},
	{"dup_after", diff_dup_after},
	{"dup_before", diff_dup_before},
	{"fork", diff_fork},
	{"vfork_exec", diff_vfork_exec},
	{"exec_inherited", diff_exec_inherited},
	{"close_connecting", diff_close_connecting},
	{"fd_reuse", diff_fd_reuse},
	{"rlimit", diff_rlimit},
	{"threads", diff_threads},
	{"break_off", diff_break_off},
	{"v6", diff_v6},
};

long show(const char *text, long value)
{
	int err = errno;

	if (value == -1)
		printf("%s = -1 %s\n", text, strerror(err));
	else
		printf("%s = %ld\n", text, value);
	fflush(stdout);
	return value;
}

void note(const char *text)
{
	printf("-- %s\n", text);
	fflush(stdout);
}

int tcp(int flags)
{
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (fd == -1) {
		perror("socket");
		exit(2);
	}
	return fd;
}

int connected(void)
{
	int fd = tcp(0);

	if (connect(fd, SA(echo_addr)) == -1) {
		perror("connect");
		exit(2);
	}
	return fd;
}

void get_int(int fd, int level, int name, const char *text)
{
	int value =
		-77; /* not what any option has: shows an untouched buffer */
	socklen_t len = sizeof(value);
	int rc = getsockopt(fd, level, name, &value, &len);

	if (rc == -1)
		show(text, rc);
	else
		printf("%s: %d, %u bytes\n", text, value, len);
}

void set_int(int fd, int level, int name, int value, const char *text)
{
	show(text, setsockopt(fd, level, name, &value, sizeof(value)));
	get_int(fd, level, name, text);
}

void show_name(const char *text,
	int (*call)(int, struct sockaddr *, socklen_t *), int fd,
	bool with_port)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		char room[128];
	} name;
	socklen_t len = sizeof(name);
	char ip[INET6_ADDRSTRLEN] = "-";

	memset(&name, 0x55, sizeof(name));
	errno = 0;
	if (call(fd, &name.sa, &len) == -1) {
		show(text, -1);
		return;
	}
	if (name.sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &name.in.sin_addr, ip, sizeof(ip));
	else if (name.sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &name.in6.sin6_addr, ip, sizeof(ip));
	printf("%s: family %d, %u bytes, %s", text, name.sa.sa_family, len, ip);
	if (with_port)
		printf(" port %s", name.in.sin_port ? "set" : "0");
	printf("\n");
}

void show_poll(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	int left = ms;
	int rc;

	/* The vendor hangs up a moment before what it left unread is gone,
	 * which is when there is room to write again. */
	while ((rc = poll(&p, 1, left)) == 1 && !(p.revents & events) &&
		left-- > 0)
		usleep(1000);
	printf("poll %#x: %d, %#x\n", (unsigned int)events, rc,
		(unsigned int)p.revents);
}

void read_all(int fd, size_t len)
{
	char buf[32768];

	/* bounded by the SO_RCVTIMEO of the caller's patience: 20 s in all */
	for (int i = 0; i < 20000; i++) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT);

		if (n == 0 || n >= (ssize_t)len)
			return;
		poll(NULL, 0, 1);
	}
}

bool echoes(int fd, const char *text)
{
	char back[256];
	size_t len = strlen(text), have = 0;

	if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len) {
		show("send", -1);
		return false;
	}
	while (have < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 10000) != 1)
			return false;
		n = recv(fd, back + have, len - have, 0);
		if (n <= 0) {
			show("recv", n);
			return false;
		}
		have += (size_t)n;
	}
	return memcmp(text, back, len) == 0;
}

static void on_alarm(int number)
{
	(void)number;
}

void alarm_ms(int ms, int flags)
{
	struct sigaction act = {.sa_handler = on_alarm, .sa_flags = flags};
	struct itimerval when = {.it_value = {ms / 1000, (ms % 1000) * 1000L}};

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &when, NULL);
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};

	addr.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
	inet_pton(AF_INET, host, &addr.sin_addr);
	return addr;
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (i = 0; i < sizeof(groups) / sizeof(*groups); i++)
			puts(groups[i].name);
		return 0;
	}
	if (argc != 8)
		return 2;
	echo_addr = address(argv[2], argv[4]);
	echo_addr6.sin6_family = AF_INET6;
	echo_addr6.sin6_port = echo_addr.sin_port;
	inet_pton(AF_INET6, argv[3], &echo_addr6.sin6_addr);
	refused_addr = address(argv[2], argv[5]);
	slow_addr = address(argv[6], argv[4]);
	silent_addr = address(argv[7], argv[4]);
	for (i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		if (strcmp(groups[i].name, argv[1]) == 0) {
			groups[i].run();
			return 0;
		}
	}
	return 2;
}
