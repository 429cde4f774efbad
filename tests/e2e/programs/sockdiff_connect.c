/* SPDX-License-Identifier: Apache-2.0 */
/* sockdiff: the states of a connecting socket, and every way to interrupt it */
#include "sockdiff.h"

void diff_states(void)
{
	char buf[4];
	int fd = tcp(0);

	signal(SIGPIPE, SIG_IGN);
	show_name("getpeername", getpeername, fd, true);
	show_name("getsockname", getsockname, fd, true);
	T(send(fd, "x", 1, 0));
	T(sendto(fd, "x", 1, 0, SA(echo_addr)));
	T(recv(fd, buf, 1, 0));
	{
		/* Of its own: Linux remembers a failed shutdown() and breaks
		 * the next connection, which nobody relies on. */
		int other = tcp(0);

		T(shutdown(other, SHUT_WR));
		close(other);
	}
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	T(connect(fd, SA(echo_addr)));
	T(connect(fd, SA(echo_addr)));
	T(connect(fd, SA(refused_addr)));
	show_name("getpeername", getpeername, fd, true);
	show_name("getsockname", getsockname, fd, true);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(fd, "hello"));
	T(listen(fd, 5));
	T(accept(fd, NULL, NULL));
	T(close(fd));
	T(connect(fd, SA(echo_addr)));
	T(getpeername(fd, NULL, NULL));
}

void diff_nonblock(void)
{
	char buf[4];
	int fd = tcp(SOCK_NONBLOCK);

	signal(SIGPIPE, SIG_IGN);
	T(connect(fd, SA(slow_addr)));
	T(connect(fd, SA(slow_addr)));
	T(connect(fd, SA(slow_addr)));
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	T(send(fd, "x", 1, 0));
	T(write(fd, "x", 1));
	T(recv(fd, buf, 1, 0));
	T(read(fd, buf, 1));
	show_name("getpeername", getpeername, fd, true);
	/* Not getsockname(): the local address is the host's to choose, and it
	 * is not known here before the host has answered. */
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	get_int(fd, SOL_SOCKET, SO_TYPE, "SO_TYPE");
	get_int(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	get_int(fd, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL");
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
	note("not before 300 ms");
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	show_poll(fd, POLLOUT, 10000);
	note("the first connect() after that succeeds, the next is EISCONN");
	T(connect(fd, SA(slow_addr)));
	T(connect(fd, SA(slow_addr)));
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	get_int(fd, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
	T(recv(fd, buf, 1, 0));
	T(echoes(fd, "hello"));
	close(fd);

	note("finished by writing, without SO_ERROR");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(echo_addr)));
	show_poll(fd, POLLOUT, 10000);
	T(echoes(fd, "hello"));
	close(fd);

	note("a blocking call while it connects waits for it");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(slow_addr)));
	T(fcntl(fd, F_SETFL, 0));
	T(send(fd, "four", 4, 0));
	T(recv(fd, buf, 4, MSG_WAITALL));
	close(fd);

	note("a blocking connect() while it connects waits for it");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(slow_addr)));
	T(fcntl(fd, F_SETFL, 0));
	T(connect(fd, SA(slow_addr)));
	T(connect(fd, SA(slow_addr)));
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_refused(void)
{
	char buf[4];
	int fd = tcp(0);

	signal(SIGPIPE, SIG_IGN);
	T(connect(fd, SA(refused_addr)));
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	note("the same socket may try again");
	T(connect(fd, SA(refused_addr)));
	T(connect(fd, SA(echo_addr)));
	T(echoes(fd, "hello"));
	close(fd);

	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(refused_addr)));
	/* POLLIN may come a moment before the rest: the vendor's answer. */
	show_poll(fd, POLLOUT, 10000);
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	/* From here on it is a fresh TCP socket: it has no EOF to report, which
	 * one that was refused has, and which nobody asks for. */
	show_name("getpeername", getpeername, fd, true);
	close(fd);

	note("learnt by a second connect()");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(refused_addr)));
	show_poll(fd, POLLOUT, 10000);
	T(connect(fd, SA(refused_addr)));
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	note("and tried again, with success");
	T(connect(fd, SA(echo_addr)));
	show_poll(fd, POLLOUT, 10000);
	T(echoes(fd, "hello"));
	close(fd);

	note("learnt by a write");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(refused_addr)));
	show_poll(fd, POLLOUT, 10000);
	T(send(fd, "x", 1, 0));
	T(send(fd, "x", 1, 0));
	close(fd);

	note("learnt by a read");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(refused_addr)));
	show_poll(fd, POLLOUT, 10000);
	T(recv(fd, buf, 1, 0));
	close(fd);
}

/* AF_UNSPEC makes a fresh socket of a connected or connecting one. */
void diff_reconnect(void)
{
	struct sockaddr_in nobody = {.sin_family = AF_UNSPEC};
	int fd = connected();

	T(connect(fd, SA(nobody)));
	show_name("getpeername", getpeername, fd, true);
	/* Not SO_ERROR: Linux puts ECONNRESET there, which nobody asks for. */
	T(connect(fd, SA(refused_addr)));
	T(connect(fd, SA(echo_addr)));
	show_name("getpeername", getpeername, fd, true);
	T(echoes(fd, "hello"));
	note("after data, and twice");
	T(connect(fd, SA(nobody)));
	T(connect(fd, SA(nobody)));
	T(connect(fd, SA(slow_addr)));
	T(echoes(fd, "hello"));
	close(fd);

	note("while it connects");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(silent_addr)));
	T(connect(fd, SA(nobody)));
	show_name("getpeername", getpeername, fd, true);
	T(connect(fd, SA(echo_addr)));
	show_poll(fd, POLLOUT, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_bad_arguments(void)
{
	struct sockaddr_in to = echo_addr;
	struct sockaddr_in6 six = echo_addr6;
	int fd = tcp(0);

	T(connect(-1, SA(to)));
	T(connect(1000, SA(to)));
	T(connect(open("/dev/null", O_RDONLY), SA(to)));
	T(connect(fd, (struct sockaddr *)&to, 4));
	T(connect(fd, (struct sockaddr *)&to, 0));
	T(connect(fd, (struct sockaddr *)&to, (socklen_t)-1));
	T(connect(fd, (struct sockaddr *)&to, 4096));
	/* Not a bad pointer (EFAULT): the library reads the address itself. */
	note("another family");
	T(connect(fd, SA(six)));
	to.sin_family = AF_UNIX;
	T(connect(fd, SA(to)));
	note("AF_UNSPEC dissolves nothing");
	to.sin_family = AF_UNSPEC;
	T(connect(fd, SA(to)));
	note("a longer length than needed is no error");
	{
		struct sockaddr_storage room = {0};

		memcpy(&room, &echo_addr, sizeof(echo_addr));
		T(connect(fd, SA(room)));
		T(echoes(fd, "hello"));
	}
	close(fd);
	note("broadcast and multicast");
	fd = tcp(0);
	to = echo_addr;
	to.sin_addr.s_addr = htonl(INADDR_BROADCAST);
	T(connect(fd, SA(to)));
	to.sin_addr.s_addr = htonl(0xe0000001);
	T(connect(fd, SA(to)));
	close(fd);
	note("link-local, on no link");
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	six.sin6_addr.s6_addr[0] = 0xfe;
	six.sin6_addr.s6_addr[1] = 0x80;
	T(connect(fd, SA(six)));
	close(fd);
	note("port 0");
	fd = tcp(0);
	to = echo_addr;
	to.sin_port = 0;
	T(connect(fd, SA(to)));
	close(fd);
}

void diff_eintr(void)
{
	int fd = tcp(0);
	char buf[4];

	alarm_ms(100, 0);
	T(connect(fd, SA(slow_addr)));
	note("it goes on in the background");
	T(connect(fd, SA(slow_addr)));
	close(fd);

	fd = tcp(0);
	alarm_ms(100, 0);
	T(connect(fd, SA(slow_addr)));
	show_poll(fd, POLLOUT, 0);
	show_poll(fd, POLLOUT, 10000);
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	T(echoes(fd, "hello"));
	alarm_ms(100, 0);
	T(recv(fd, buf, 1, 0));
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_eintr_restart(void)
{
	int fd = tcp(0);

	alarm_ms(100, SA_RESTART);
	T(connect(fd, SA(slow_addr)));
	T(connect(fd, SA(slow_addr)));
	T(echoes(fd, "hello"));
	close(fd);
}

/* Of 200 an emulated machine, whose ticks catch up, may see 197. */
static long waited_ms(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 +
	       (now.tv_nsec - since->tv_nsec) / 1000000;
}

void diff_timeouts(void)
{
	struct timeval limit = {0, 200000}, back = {77, 77};
	socklen_t len = sizeof(back);
	struct timespec start;
	char buf[4];
	int fd = tcp(0);

	T(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	clock_gettime(CLOCK_MONOTONIC, &start);
	note("SO_SNDTIMEO bounds connect()");
	T(connect(fd, SA(silent_addr)));
	T(waited_ms(&start) >= 150 && waited_ms(&start) < 1000);
	T(connect(fd, SA(silent_addr)));
	close(fd);

	note("long enough, it does not matter");
	fd = tcp(0);
	limit.tv_sec = 10;
	T(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	T(connect(fd, SA(slow_addr)));
	T(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &back, &len));
	T(back.tv_sec);
	T(back.tv_usec);
	T(len);
	close(fd);

	note("SO_RCVTIMEO set before and after connect()");
	fd = tcp(0);
	limit = (struct timeval){0, 200000};
	T(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	T(connect(fd, SA(slow_addr)));
	clock_gettime(CLOCK_MONOTONIC, &start);
	T(recv(fd, buf, 1, 0));
	T(waited_ms(&start) >= 150 && waited_ms(&start) < 1000);
	limit = (struct timeval){0, 0};
	T(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_close_connecting(void)
{
	struct linger none = {1, 0};
	int fd = tcp(SOCK_NONBLOCK);

	T(connect(fd, SA(slow_addr)));
	T(close(fd));
	T(close(fd));
	note("shutdown of a connecting socket");
	fd = tcp(SOCK_NONBLOCK);
	T(connect(fd, SA(slow_addr)));
	T(shutdown(fd, SHUT_RDWR));
	close(fd);
	note("with a linger of zero");
	fd = tcp(SOCK_NONBLOCK);
	T(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)));
	T(connect(fd, SA(slow_addr)));
	T(close(fd));
	note("a new socket on the same number is a new socket");
	fd = tcp(0);
	show_name("getpeername", getpeername, fd, true);
	T(connect(fd, SA(echo_addr)));
	T(echoes(fd, "hello"));
	close(fd);
}

void diff_v6(void)
{
	struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};
	int one = 1, fd = socket(AF_INET6, SOCK_STREAM, 0);

	show_name("getsockname", getsockname, fd, true);
	T(connect(fd, SA(echo_addr6)));
	show_name("getpeername", getpeername, fd, true);
	show_name("getsockname", getsockname, fd, true);
	get_int(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY");
	T(echoes(fd, "hello"));
	close(fd);

	note("IPv4 through an IPv6 socket");
	mapped.sin6_port = echo_addr.sin_port;
	mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
	memcpy(mapped.sin6_addr.s6_addr + 12, &echo_addr.sin_addr, 4);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	T(connect(fd, SA(mapped)));
	show_name("getpeername", getpeername, fd, true);
	show_name("getsockname", getsockname, fd, true);
	get_int(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	T(echoes(fd, "hello"));
	close(fd);

	note("but not when it is for IPv6 only");
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	T(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)));
	T(connect(fd, SA(mapped)));
	close(fd);

	note("an IPv4 address on an IPv6 socket");
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	T(connect(fd, SA(echo_addr)));
	close(fd);
}
