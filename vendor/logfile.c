/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/logfile.h"
#include "common/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int logfile_open(const char *path)
{
	return open(path,
		O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY |
			O_CLOEXEC,
		0640);
}

void logfile_use(int *fd)
{
	dup2(*fd, STDERR_FILENO);
	closefd(fd);
}

int logfile_reopen(const char *path)
{
	int fd = logfile_open(path);

	if (fd == -1)
		return -1;
	logfile_use(&fd);
	return 0;
}

bool logfile_rotate(const char *path)
{
	char aside[PATH_MAX];
	struct stat st;

	if (fstat(STDERR_FILENO, &st) == -1 || !S_ISREG(st.st_mode) ||
		st.st_size <= LOGFILE_MAX)
		return false;
	snprintf(aside, sizeof(aside), "%s.1", path);
	if (rename(path, aside) == -1)
		return false;
	return logfile_reopen(path) == 0;
}
