/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many non-blocking connects from one thread, as an event loop makes them.
 *
 * Usage: nbconnect FAST SLOW PORT COUNT
 *
 * Opens COUNT connections in turn to FAST and SLOW, TEN in each turn of the
 * loop, waits with epoll, and prints in milliseconds
 *
 *	done N fast-last MS slow-first MS slow-last MS longest-turn MS
 *
 * where a turn is the time between two waits, for which this thread could not
 * have served anybody else, less what it spent runnable but without a
 * processor: that is the machine's load and not ours.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TEN      10
#define MAX      1000
#define LIMIT_MS 20000

static double start;

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6 - start;
}

/* How long this thread has waited for a processor; 0 if the kernel has no
 * schedstat. */
static double starved_ms(void)
{
	double wait = 0;
	FILE *file = fopen("/proc/thread-self/schedstat", "re");
	char line[128];
	char *end;

	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file)) {
		strtod(line, &end); /* time spent running */
		wait = strtod(end, NULL) / 1e6;
	}
	fclose(file);
	return wait;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void begin(int ep, const char *host, uint16_t port, unsigned int index)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct epoll_event ev = {.events = EPOLLOUT};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd == -1)
		fail("socket");
	to.sin_port = htons(port);
	inet_pton(AF_INET, host, &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != -1 ||
		errno != EINPROGRESS)
		fail("connect is not in progress");
	ev.data.u64 = (uint64_t)index << 32 | (uint32_t)fd;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1)
		fail("epoll_ctl");
}

static void finish(int fd)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int err = -1;
	socklen_t err_len = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len) == -1 || err) {
		fprintf(stderr, "SO_ERROR: %s\n", strerror(err));
		exit(1);
	}
	if (getpeername(fd, (struct sockaddr *)&peer, &len) == -1)
		fail("getpeername");
	close(fd);
}

int main(int argc, char **argv)
{
	struct epoll_event events[64];
	double fast_last = 0, slow_first = 0, slow_last = 0, longest = 0;
	unsigned int count, begun = 0, done = 0;
	uint16_t port;
	struct rlimit many = {4096, 4096};
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (argc != 5 || ep == -1)
		return 2;
	count = (unsigned int)strtoul(argv[4], NULL, 10);
	port = (uint16_t)strtoul(argv[3], NULL, 10);
	setrlimit(RLIMIT_NOFILE, &many);
	start = now_ms();
	while (done < count && now_ms() < LIMIT_MS) {
		double turn = now_ms(), starved = starved_ms();
		unsigned int stop = begun + TEN;
		int n;

		for (; begun < count && begun < stop; begun++)
			begin(ep, argv[1 + begun % 2], port, begun);
		n = epoll_wait(ep, events, 64, 0);
		for (int i = 0; i < n; i++, done++) {
			double at = now_ms();

			finish((int)(events[i].data.u64 & 0x7fffffff));
			if (events[i].data.u64 >> 32 & 1) {
				slow_first = slow_first ? slow_first : at;
				slow_last = at;
			} else {
				fast_last = at;
			}
		}
		turn = now_ms() - turn - (starved_ms() - starved);
		if (turn > longest)
			longest = turn;
		/* the wait of an idle loop is nobody's delay */
		if (begun == count && n == 0)
			epoll_wait(ep, events, 1, 1000);
	}
	printf("done %u fast-last %.1f slow-first %.1f slow-last %.1f "
	       "longest-turn %.1f\n",
		done, fast_last, slow_first, slow_last, longest);
	return done == count ? 0 : 1;
}
