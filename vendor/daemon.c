/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/daemon.h"
#include "common/fd.h"
#include "common/log.h"
#include "vendor/logfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Without /proc and close_range() fds up to here are tried one by one. */
#define FD_GUESS 65536

void daemon_shed_preload(char **argv)
{
	const char *list = getenv("LD_PRELOAD");

	if (!list || !strstr(list, "libproxy_preload"))
		return;
	unsetenv("LD_PRELOAD");
	execv("/proc/self/exe", argv);
	log_warn("cannot start anew without LD_PRELOAD: %s",
		log_strerror(errno));
}

/* Linux 5.9. Return: 0, or -1 and errno (ENOSYS before). */
static int try_close_range(unsigned first)
{
#ifdef SYS_close_range
	return (int)syscall(SYS_close_range, first, ~0u, 0u);
#else
	(void)first;
	errno = ENOSYS;
	return -1;
#endif
}

/* Return: 0, or -1 if there is no /proc. */
static int close_listed(int first)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;

	if (!dir)
		return -1;
	/* An fd closed under way may make readdir() skip another, never one
	 * that it has shown; so again until there is none. */
	for (bool found = true; found;) {
		found = false;
		rewinddir(dir);
		while ((entry = readdir(dir))) {
			int fd = (int)strtol(entry->d_name, NULL, 10);

			if (fd >= first && fd != dirfd(dir)) {
				close(fd);
				found = true;
			}
		}
	}
	closedir(dir);
	return 0;
}

static void close_guessed(int first)
{
	struct rlimit limit;
	int end = FD_GUESS;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FD_GUESS)
		end = (int)limit.rlim_cur;
	for (int fd = first; fd < end; fd++)
		close(fd);
}

static void close_from(int first)
{
	if (try_close_range((unsigned)first) == -1 && close_listed(first) == -1)
		close_guessed(first);
}

/* A process starts with each signal ignored or at its default. */
static void reset_signals(void)
{
	struct sigaction action;
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++) {
		if (sigaction(sig, NULL, &action) == 0 &&
			action.sa_handler == SIG_IGN)
			signal(sig, SIG_DFL);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* An fd that gives and takes nothing, also in an enclave without /dev. */
static int open_null(void)
{
	int fd = open("/dev/null", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd == -1)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd;
}

void daemon_shed(void)
{
	int fd;

	close_from(STDERR_FILENO + 1);
	/* No file of ours may become somebody's stderr. */
	do
		fd = open_null();
	while (fd >= 0 && fd <= STDERR_FILENO);
	closefd_if(&fd);
	reset_signals();
	umask(022);
}

static void drop_stdio(void)
{
	int fd = open_null();

	if (fd == -1)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	closefd(&fd);
}

int daemon_detach(const char *log_file)
{
	int log = logfile_open(log_file);
	pid_t pid;

	if (log == -1) {
		log_error("log file %s: %s", log_file, log_strerror(errno));
		return -1;
	}
	pid = fork();
	if (pid == -1) {
		log_error("fork: %s", log_strerror(errno));
		closefd(&log);
		return -1;
	}
	if (pid > 0)
		_exit(EXIT_SUCCESS);
	setsid();
	if (chdir("/") == -1)
		log_warn("chdir to /: %s", log_strerror(errno));
	/* Last: who waits for the end of our output finds all else done. */
	drop_stdio();
	logfile_use(&log);
	return 0;
}

void daemon_raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		log_warn("RLIMIT_NOFILE: %s", log_strerror(errno));
}
