/* SPDX-License-Identifier: Apache-2.0 */
/* sockdiff: what can be said, asked and set on a connected socket */
#include "sockdiff.h"

static void show_options(int fd)
{
	get_int(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	get_int(fd, SOL_SOCKET, SO_TYPE, "SO_TYPE");
	get_int(fd, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL");
	get_int(fd, SOL_SOCKET, SO_ACCEPTCONN, "SO_ACCEPTCONN");
	get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	get_int(fd, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE");
	get_int(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
	get_int(fd, SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT");
	get_int(fd, SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST");
	get_int(fd, SOL_SOCKET, SO_OOBINLINE, "SO_OOBINLINE");
	get_int(fd, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
	get_int(fd, IPPROTO_TCP, TCP_CORK, "TCP_CORK");
	get_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE");
	get_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL");
	get_int(fd, IPPROTO_TCP, TCP_KEEPCNT, "TCP_KEEPCNT");
	get_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT");
	get_int(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT");
	get_int(fd, IPPROTO_TCP, TCP_LINGER2, "TCP_LINGER2");
	get_int(fd, IPPROTO_IP, IP_TOS, "IP_TOS");
	get_int(fd, IPPROTO_IP, IP_TTL, "IP_TTL");
	get_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, "IP_MTU_DISCOVER");
}

static void set_options(int fd)
{
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
	set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1, "SO_OOBINLINE");
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 5, "TCP_NODELAY");
	set_int(fd, IPPROTO_TCP, TCP_CORK, 1, "TCP_CORK");
	set_int(fd, IPPROTO_TCP, TCP_CORK, 0, "TCP_CORK");
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 33, "TCP_KEEPIDLE");
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 44, "TCP_KEEPINTVL");
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 5, "TCP_KEEPCNT");
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 6000, "TCP_USER_TIMEOUT");
	set_int(fd, IPPROTO_IP, IP_TOS, 16, "IP_TOS");
	set_int(fd, IPPROTO_IP, IP_TTL, 60, "IP_TTL");
}

void diff_options(void)
{
	struct linger linger = {1, 7}, linger_back = {0, 0};
	socklen_t len = sizeof(linger_back);
	struct tcp_info info;
	char name[32] = "";
	int value = 1, fd;

	note("as they are, before and after connect()");
	fd = tcp(0);
	show_options(fd);
	T(connect(fd, SA(echo_addr)));
	show_options(fd);
	note("set on a connected socket");
	set_options(fd);
	T(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	T(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger_back, &len));
	T(linger_back.l_onoff);
	T(linger_back.l_linger);
	note("struct tcp_info");
	memset(&info, 0x55, sizeof(info));
	len = sizeof(info);
	T(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	T(info.tcpi_state);
	len = sizeof(name);
	T(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	T(strlen(name) > 0);
	note("short buffers and bad arguments");
	value = 0x55555555;
	len = 1;
	T(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
	T(len);
	T(value);
	len = 0;
	T(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	T(len);
	len = (socklen_t)-1;
	T(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	T(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 1));
	T(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (void *)1, sizeof(value)));
	T(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof(value)));
	value = 0;
	T(setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &value, sizeof(value)));
	T(setsockopt(fd, IPPROTO_TCP, 9999, &value, sizeof(value)));
	T(setsockopt(fd, 9999, 1, &value, sizeof(value)));
	len = sizeof(value);
	T(getsockopt(fd, IPPROTO_TCP, 9999, &value, &len));
	T(getsockopt(fd, 9999, 1, &value, &len));
	T(setsockopt(fd, SOL_SOCKET, SO_TYPE, &value, sizeof(value)));
	T(echoes(fd, "still alive"));
	close(fd);
}

void diff_options_survive(void)
{
	int fd = tcp(0);

	note("set before connect(), read after it");
	set_options(fd);
	T(connect(fd, SA(echo_addr)));
	show_options(fd);
	close(fd);
	note("and the same when it does not block");
	fd = tcp(SOCK_NONBLOCK);
	set_options(fd);
	T(connect(fd, SA(slow_addr)));
	show_options(fd);
	show_poll(fd, POLLOUT, 10000);
	show_options(fd);
	close(fd);
}

static void show_flags(int fd)
{
	struct stat st;

	/* O_LARGEFILE and the like differ by libc, not by socket */
	T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND));
	T(fcntl(fd, F_GETFD));
	T(fstat(fd, &st));
	T(S_ISSOCK(st.st_mode));
}

void diff_flags(void)
{
	static const int kinds[] = {
		0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		int fd = tcp(kinds[i]);

		show_flags(fd);
		T(connect(fd, SA(echo_addr)));
		show_flags(fd);
		show_poll(fd, POLLOUT, 10000);
		get_int(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
		show_flags(fd);
		note("changed while connected");
		T(fcntl(fd, F_SETFL, O_NONBLOCK));
		show_flags(fd);
		T(fcntl(fd, F_SETFL, 0));
		show_flags(fd);
		close(fd);
	}
	note("changed by ioctl before and while connecting");
	{
		int on = 1, off = 0, fd = tcp(0);

		T(ioctl(fd, FIONBIO, &on));
		T(connect(fd, SA(slow_addr)));
		T(ioctl(fd, FIONBIO, &off));
		T(fcntl(fd, F_SETFD, FD_CLOEXEC));
		T(connect(fd, SA(slow_addr)));
		show_flags(fd);
		T(echoes(fd, "hello"));
		close(fd);
	}
}

void diff_data(void)
{
	char buf[64] = "", second[64] = "";
	struct iovec out[2] = {{"ab", 2}, {"cd", 2}};
	struct iovec in[2] = {{buf, 3}, {second, 3}};
	struct msghdr msg = {.msg_iov = in, .msg_iovlen = 2};
	int queued = -77, fd = connected();

	signal(SIGPIPE, SIG_IGN);
	T(ioctl(fd, FIONREAD, &queued));
	T(queued);
	T(recv(fd, buf, sizeof(buf), MSG_DONTWAIT));
	T(send(fd, "", 0, 0));
	T(recv(fd, buf, 0, MSG_DONTWAIT));
	T(send(fd, "0123456789", 10, 0));
	read_all(fd, 10);
	T(ioctl(fd, FIONREAD, &queued));
	T(queued);
	T(recv(fd, buf, 4, MSG_PEEK));
	T(recv(fd, buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT));
	T(recv(fd, buf, 4, 0));
	T(memcmp(buf, "0123", 4));
	T(recv(fd, NULL, 3, MSG_TRUNC));
	T(recv(fd, buf, sizeof(buf), 0));
	T(memcmp(buf, "789", 3));
	T(ioctl(fd, FIONREAD, &queued));
	T(queued);
	{
		static char much[20000];

		T(send(fd, much, sizeof(much), 0));
		read_all(fd, sizeof(much));
		T(ioctl(fd, FIONREAD, &queued));
		T(queued);
		T(recv(fd, much, sizeof(much), 0));
	}

	note("vectors");
	T(writev(fd, out, 2));
	read_all(fd, 4);
	T(readv(fd, in, 2));
	T(writev(fd, out, 2));
	read_all(fd, 4);
	msg.msg_name = second + 32;
	msg.msg_namelen = 16;
	T(recvmsg(fd, &msg, 0));
	T(msg.msg_namelen);
	T(msg.msg_flags);
	T(msg.msg_controllen);

	note("MSG_WAITALL");
	T(send(fd, "first", 5, 0));
	read_all(fd, 5);
	T(send(fd, "second", 6, 0));
	T(recv(fd, buf, 11, MSG_WAITALL));
	T(memcmp(buf, "firstsecond", 11));
	{
		static char big[1024 * 1024];
		pid_t pid = fork();

		/* beyond the buffer of any carrier */
		if (pid == 0) {
			for (size_t sent = 0; sent < sizeof(big);) {
				ssize_t n = send(
					fd, big + sent, sizeof(big) - sent, 0);

				if (n <= 0)
					_exit(1);
				sent += (size_t)n;
			}
			_exit(0);
		}
		T(recv(fd, big, sizeof(big), MSG_WAITALL));
		T(waitpid(pid, &queued, 0) == pid);
		T(queued);
	}
	note("flags that a stream does not have");
	T(recv(fd, buf, 1, MSG_ERRQUEUE));
	T(recv(fd, buf, 1, MSG_OOB));
	close(fd);
}

void diff_addresses(void)
{
	char buf[16];
	struct sockaddr_in from;
	struct iovec iov = {"ping", 4};
	struct msghdr msg = {.msg_name = &refused_addr,
		.msg_namelen = sizeof(refused_addr),
		.msg_iov = &iov,
		.msg_iovlen = 1};
	struct mmsghdr many = {.msg_hdr = msg};
	socklen_t len = sizeof(from);
	int fd = connected();

	note("an address in sendto() on a connected stream is not looked at");
	T(sendto(fd, "ping", 4, 0, SA(refused_addr)));
	T(sendmsg(fd, &msg, 0));
	T(sendmmsg(fd, &many, 1, 0));
	T(many.msg_len);
	read_all(fd, 12);
	note("and none is returned");
	memset(&from, 0x55, sizeof(from));
	T(recvfrom(fd, buf, 4, 0, (struct sockaddr *)&from, &len));
	T(len);
	T(from.sin_family == 0x5555);
	iov.iov_base = buf;
	T(recvmmsg(fd, &many, 1, 0, NULL));
	T(many.msg_len);
	T(recvfrom(fd, buf, 16, 0, NULL, NULL));
	note("names into buffers that are too short");
	memset(&from, 0x55, sizeof(from));
	len = 4;
	T(getpeername(fd, (struct sockaddr *)&from, &len));
	T(len);
	T(from.sin_family);
	len = 0;
	T(getsockname(fd, (struct sockaddr *)&from, &len));
	T(len);
	len = (socklen_t)-5;
	T(getpeername(fd, (struct sockaddr *)&from, &len));
	len = sizeof(from);
	T(getpeername(fd, (struct sockaddr *)&from, &len));
	T(from.sin_port == echo_addr.sin_port);
	T(memcmp(&from.sin_addr, &echo_addr.sin_addr, 4));
	T(memcmp(from.sin_zero, "\0\0\0\0\0\0\0\0", 8));
	close(fd);
}

void diff_fastopen(void)
{
	struct iovec iov = {"hello", 5};
	struct msghdr msg = {.msg_name = &echo_addr,
		.msg_namelen = sizeof(echo_addr),
		.msg_iov = &iov,
		.msg_iovlen = 1};
	char buf[16];
	int fd = tcp(0);

	signal(SIGPIPE, SIG_IGN);
	T(sendto(fd, "hello", 5, MSG_FASTOPEN, SA(echo_addr)));
	T(recv(fd, buf, 5, MSG_WAITALL));
	show_name("getpeername", getpeername, fd, true);
	T(sendto(fd, "again", 5, MSG_FASTOPEN, SA(echo_addr)));
	close(fd);
	fd = tcp(0);
	T(sendmsg(fd, &msg, MSG_FASTOPEN));
	T(recv(fd, buf, 5, MSG_WAITALL));
	close(fd);
	note("to nobody");
	fd = tcp(0);
	T(sendto(fd, "hello", 5, MSG_FASTOPEN, SA(refused_addr)));
	close(fd);
	note("without an address");
	fd = tcp(0);
	T(sendto(fd, "hello", 5, MSG_FASTOPEN, NULL, 0));
	close(fd);
}

void diff_shutdown(void)
{
	char buf[16];
	int fd = connected();

	signal(SIGPIPE, SIG_IGN);
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	T(send(fd, "bye", 3, 0));
	T(shutdown(fd, SHUT_WR));
	T(send(fd, "x", 1, 0));
	T(send(fd, "x", 1, MSG_NOSIGNAL));
	T(recv(fd, buf, 3, MSG_WAITALL));
	show_poll(fd, POLLIN, 10000);
	T(recv(fd, buf, 1, 0));
	T(recv(fd, buf, 1, 0));
	show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	T(recv(fd, buf, 1, MSG_PEEK));
	close(fd);
	note("SHUT_RD");
	fd = connected();
	T(shutdown(fd, SHUT_RD));
	T(recv(fd, buf, 1, 0));
	show_poll(fd, POLLIN | POLLRDHUP, 0);
	T(send(fd, "x", 1, 0));
	close(fd);
	note("bad argument, and SIGPIPE");
	fd = connected();
	T(shutdown(fd, 99));
	T(shutdown(fd, SHUT_RDWR));
	T(recv(fd, buf, 1, 0));
	T(send(fd, "x", 1, 0));
	close(fd);
	fd = connected();
	T(shutdown(fd, SHUT_WR));
	if (fork() == 0) {
		signal(SIGPIPE, SIG_DFL);
		send(fd, "x", 1, 0);
		_exit(0);
	}
	{
		int status = 0;

		T(wait(&status) > 0);
		T(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	close(fd);
}
