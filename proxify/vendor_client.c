/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/vendor_client.h"
#include "common/endpoint.h"
#include "common/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS   5000 /* for an answer, beyond the question's own time */
#define START_SECONDS 15   /* for socket_vendor to detach */

/* Return: 0, or -1 and errno EPERM if it is somebody else's. */
static int check_owner(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return -1;
	if (peer.uid == 0 || peer.uid == geteuid())
		return 0;
	errno = EPERM;
	return -1;
}

static int connect_to(const struct vendor_address *vendor)
{
	/* A vendor whose backlog is full is waited for, but not for ever. */
	const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", vendor->path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1) {
		if (errno == EAGAIN)
			errno = ETIMEDOUT;
		closefd(&fd);
	} else if (!vendor->anyone && check_owner(fd) == -1) {
		closefd(&fd);
	}
	return fd;
}

/* Wait for a message. Return: 0, or -1 and errno. */
static int await(int fd, int timeout_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int ret;

	do
		ret = poll(&pfd, 1, timeout_ms);
	while (ret == -1 && errno == EINTR);
	if (ret == 0)
		errno = ETIMEDOUT;
	return ret > 0 ? 0 : -1;
}

static int receive(int fd, enum vendor_op op, uint8_t *key)
{
	struct vendor_result result;
	int pass, nr_fds;
	ssize_t n;

	n = fd_recv(fd, &result, sizeof(result), &pass, &nr_fds, 0);
	/* Closed with our message unread, which is told first and once. */
	if (n == -1 && errno == ECONNRESET)
		n = fd_recv(fd, &result, sizeof(result), &pass, &nr_fds, 0);
	if (n == -1)
		return -1;
	closefd_if(&pass);
	if (vendor_result_check(&result, (size_t)n, nr_fds)) {
		errno = EPROTO;
		return -1;
	}
	/* Who is not served is told so before the question was read. */
	if (result.op != op) {
		errno = result.status ? result.status : EPROTO;
		return -1;
	}
	if (key)
		memcpy(key, result.key, sizeof(result.key));
	return result.status;
}

int vendor_ask(const struct vendor_address *vendor, enum vendor_op op,
	const char *endpoint, uint32_t timeout_ms, uint8_t *key)
{
	struct vendor_request request;
	int fd = connect_to(vendor);
	int ret;

	if (fd == -1)
		return -1;
	vendor_request_init(&request, op);
	request.timeout_ms = timeout_ms;
	snprintf(request.endpoint, sizeof(request.endpoint), "%s", endpoint);
	ret = (int)fd_send(fd, &request, sizeof(request), -1, 0);
	/* EPIPE: refused unseen, and the answer says why. */
	if (ret != -1 || errno == EPIPE)
		ret = await(fd, (int)timeout_ms + PATIENCE_MS);
	if (ret != -1)
		ret = receive(fd, op, key);
	closefd(&fd);
	return ret;
}

static void become_vendor(char *const argv[])
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t alarms;

	if (null != -1) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	} else {
		close(STDIN_FILENO);
		close(STDOUT_FILENO);
	}
	/* It makes the connections that the library sends to it. */
	unsetenv("LD_PRELOAD");
	/* The time limit outlives exec, and ends only this process: the
	 * daemon is a child of it, and alarms are not inherited. */
	sigaction(SIGALRM, &action, NULL);
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &alarms, NULL);
	alarm(START_SECONDS);
	execv(argv[0], argv);
	fprintf(stderr, "proxify: %s: %s\n", argv[0], strerror(errno));
	_exit(126);
}

int vendor_start(char *const argv[])
{
	pid_t pid = fork();
	int status = 0;
	pid_t ret;

	if (pid == -1)
		return -1;
	if (pid == 0)
		become_vendor(argv);
	do
		ret = waitpid(pid, &status, 0);
	while (ret == -1 && errno == EINTR);
	/* With SIGCHLD ignored, as our caller may have it, there is no status;
	 * whether it listens is asked anyway. */
	if (ret == -1 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
		return 0;
	errno = ECHILD;
	return -1;
}
