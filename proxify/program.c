/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/program.h"
#include "common/fd.h"
#include "proxify/elf_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The checks follow what the kernel and the dynamic loader will do:
 *
 * 1. "#!" in the first bytes: the interpreter is what runs, and it may be a
 *    script again. The kernel gives up after SCRIPT_DEPTH of them, so do we.
 *    env(1) is seen through, since in "#!/usr/bin/env python3" it is python3
 *    that matters, and a static env hands the environment on as well.
 * 2. Neither a script nor ELF: the kernel knows the format (binfmt_misc), or
 *    it is run by /bin/sh as execvp() would have it.
 * 3. ELF: it must be one that our library can be loaded into, with a dynamic
 *    loader of the same libc.
 * 4. The kernel would change privileges (set-uid, set-gid, capabilities of
 *    the file): the loader then ignores LD_PRELOAD.
 *
 * The last is judged as for exec by the present user: a set-uid file of one's
 * own, a file system mounted nosuid, and no_new_privs change nothing.
 */

#define SCRIPT_DEPTH 5               /* as in the kernel's exec_binprm() */
#define SCRIPT_LINE  256             /* BINPRM_BUF_SIZE, 128 before Linux 5.1 */
#define DEFAULT_PATH "/bin:/usr/bin" /* execvp()'s when PATH is unset */
#define SHELL        "/bin/sh"

#ifdef __GLIBC__
# define OUR_LIBC "glibc"
#else
# define OUR_LIBC "musl"
#endif

/**
 * struct judge - a judgement in progress
 * @path:  what is looked at; an interpreter takes the place of its script
 * @depth: scripts followed so far
 * @why, @size: where a reason goes
 */
struct judge {
	char path[PATH_MAX];
	int depth;
	char *why;
	size_t size;
};

enum verdict {
	FINE,
	REFUSED, /* and the reason is given */
	FOLLOW,  /* look at what @path is now */
};

/* ---- finding it ---- */

/* Return: 0, or -1 and errno. */
static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode)) {
		errno = EACCES;
		return -1;
	}
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

static int use_path(const char *name, char path[PATH_MAX])
{
	if (strlen(name) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(path, name, strlen(name) + 1);
	return check_executable(path);
}

int program_find(const char *name, char path[PATH_MAX])
{
	const char *at = getenv("PATH");
	int err = ENOENT;

	if (!name[0]) {
		errno = ENOENT;
		return -1;
	}
	if (strchr(name, '/'))
		return use_path(name, path);
	for (at = at ? at : DEFAULT_PATH;; at++) {
		int len = (int)strcspn(at, ":");
		/* An empty element is the current directory. */
		int n = snprintf(path, PATH_MAX, "%.*s%s%s", len, at,
			len ? "/" : "./", name);

		if (n < PATH_MAX && check_executable(path) == 0)
			return 0;
		if (n < PATH_MAX && errno == EACCES)
			err = EACCES;
		at += len;
		if (!*at)
			break;
	}
	errno = err;
	return -1;
}

/* ---- judging it ---- */

__attribute__((format(printf, 2, 3))) static enum verdict refuse(
	struct judge *j, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->why, j->size, fmt, ap);
	va_end(ap);
	return REFUSED;
}

/* Do capabilities of the file take effect for a user other than root? */
static bool has_capabilities(int fd)
{
	struct vfs_cap_data caps = {0};
	ssize_t n = fgetxattr(fd, "security.capability", &caps, sizeof(caps));
	uint32_t magic = le32toh(caps.magic_etc);
	uint32_t revision = magic & VFS_CAP_REVISION_MASK;

	/* Revision 3 as such is for another user namespace; for our own the
	 * kernel shows it as 2. It is longer, so that n is -1 then. */
	if (n < (ssize_t)XATTR_CAPS_SZ_1 || getuid() == 0 ||
		(revision != VFS_CAP_REVISION_1 &&
			revision != VFS_CAP_REVISION_2))
		return false;
	return magic & VFS_CAP_FLAGS_EFFECTIVE || caps.data[0].permitted ||
	       caps.data[1].permitted;
}

static enum verdict judge_privileges(struct judge *j, int fd)
{
	const char *path = j->path;
	struct statvfs fs;
	struct stat st;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
		fstat(fd, &st) == -1 ||
		(fstatvfs(fd, &fs) == 0 && fs.f_flag & ST_NOSUID))
		return FINE;
	if (st.st_mode & S_ISUID && st.st_uid != getuid())
		return refuse(j,
			"%s is set-uid (owner %u): the system loads no "
			"library into it",
			path, st.st_uid);
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		st.st_gid != getgid())
		return refuse(j,
			"%s is set-gid (group %u): the system loads no "
			"library into it",
			path, st.st_gid);
	if (has_capabilities(fd))
		return refuse(j,
			"%s has file capabilities: the system loads no "
			"library into it",
			path);
	return FINE;
}

static const char *libc_of(const char *interp)
{
	const char *slash = strrchr(interp, '/');

	return strncmp(slash ? slash + 1 : interp, "ld-musl", 7) == 0 ? "musl"
								      : "glibc";
}

static enum verdict judge_elf(struct judge *j, const struct elf_file *elf)
{
	const char *path = j->path;

	if (elf->kind == ELF_KIND_FOREIGN)
		return refuse(j,
			"%s is for another kind of machine or word size than "
			"the library",
			path);
	if (elf->kind == ELF_KIND_BROKEN)
		return refuse(
			j, "%s is a damaged ELF file: %s", path, elf->broken);
	if (!elf->has_interp)
		return refuse(j,
			"%s is statically linked (no PT_INTERP): no library "
			"can be loaded into it",
			path);
	if (elf->is_go)
		return refuse(j,
			"%s is a Go program: it makes its system calls itself, "
			"not through the C library",
			path);
	if (strcmp(libc_of(elf->interp), OUR_LIBC) != 0)
		return refuse(j,
			"%s is linked with %s (loader %s), the library with "
			"%s",
			path, libc_of(elf->interp), elf->interp, OUR_LIBC);
	return FINE;
}

/* ---- scripts ---- */

static char *skip_blanks(char *at)
{
	return at + strspn(at, " \t");
}

/* Cut the word off that begins here. Return: what follows it. */
static char *cut_word(char *at)
{
	at += strcspn(at, " \t");
	if (*at)
		*at++ = '\0';
	return skip_blanks(at);
}

/*
 * What env(1) is told to start: its first operand that sets no variable, with
 * or without -S before it.
 * Return: the name, or NULL if other options leave that open.
 */
static char *env_operand(char *arg)
{
	char *rest;

	if (strncmp(arg, "-S", 2) == 0)
		arg = skip_blanks(arg + 2);
	else if (strncmp(arg, "--split-string=", 15) == 0)
		arg = skip_blanks(arg + 15);
	for (; *arg; arg = rest) {
		rest = cut_word(arg);
		if (*arg == '-')
			return NULL;
		if (!strchr(arg, '='))
			return arg;
	}
	return NULL;
}

static bool is_env(const char *interp)
{
	const char *slash = strrchr(interp, '/');

	return strcmp(slash ? slash + 1 : interp, "env") == 0;
}

/* Nothing is said of a path that is too long: exec will do that. */
static enum verdict follow(struct judge *j, const char *path)
{
	if (strlen(path) >= sizeof(j->path))
		return FINE;
	memmove(j->path, path, strlen(path) + 1);
	return FOLLOW;
}

/* @line: what follows "#!", up to the end of the line. */
static enum verdict judge_script(struct judge *j, char *line)
{
	char found[PATH_MAX];
	char *interp = skip_blanks(line);
	char *arg = cut_word(interp);
	const char *operand;

	if (!*interp)
		return FINE; /* exec will say so */
	if (++j->depth > SCRIPT_DEPTH)
		return refuse(j,
			"%s: more than %d scripts that are each other's "
			"interpreters",
			j->path, SCRIPT_DEPTH);
	if (!is_env(interp))
		return follow(j, interp);
	operand = env_operand(arg);
	if (!operand || program_find(operand, found) == -1)
		return FINE;
	return follow(j, found);
}

/* Return: the line behind "#!", or NULL if this is no script. */
static char *script_line(int fd, char buf[SCRIPT_LINE + 1])
{
	ssize_t n = pread(fd, buf, SCRIPT_LINE, 0);

	if (n < 2 || buf[0] != '#' || buf[1] != '!')
		return NULL;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf + 2;
}

static enum verdict judge_fd(struct judge *j, int fd)
{
	char buf[SCRIPT_LINE + 1];
	char *line = script_line(fd, buf);
	enum verdict verdict;
	struct elf_file elf;

	if (line)
		return judge_script(j, line);
	if (elf_file_read(fd, &elf) == -1)
		return FINE;
	if (elf.kind == ELF_KIND_NONE)
		return strcmp(j->path, SHELL) == 0 ? FINE : follow(j, SHELL);
	verdict = judge_elf(j, &elf);
	return verdict == FINE ? judge_privileges(j, fd) : verdict;
}

static enum verdict judge_path(struct judge *j)
{
	int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	enum verdict verdict;

	if (fd == -1)
		return FINE;
	verdict = judge_fd(j, fd);
	closefd(&fd);
	return verdict;
}

int program_refusal(const char *path, char *why, size_t size)
{
	struct judge j = {.why = why, .size = size};
	enum verdict verdict = follow(&j, path);

	while (verdict == FOLLOW)
		verdict = judge_path(&j);
	return verdict == REFUSED ? -1 : 0;
}

/* The dynamic loader of an ELF file that is there. */
static void follow_loader(char path[PATH_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct elf_file elf;

	if (fd == -1)
		return;
	if (elf_file_read(fd, &elf) == 0 && elf.has_interp)
		snprintf(path, PATH_MAX, "%s", elf.interp);
	closefd(&fd);
}

int program_missing(const char *path, char missing[PATH_MAX])
{
	char why[2 * PATH_MAX];
	struct judge j = {.why = why, .size = sizeof(why)};
	enum verdict verdict = follow(&j, path);

	while (verdict == FOLLOW)
		verdict = judge_path(&j);
	follow_loader(j.path);
	if (access(j.path, F_OK) == 0 || errno != ENOENT)
		return -1;
	memcpy(missing, j.path, sizeof(j.path));
	return 0;
}

/* ---- becoming it ---- */

/* As execvp(): a file of no known format is a script for the shell. */
static void exec_by_shell(const char *path, char **argv)
{
	size_t argc = 0;
	char **shell_argv;

	while (argv[argc])
		argc++;
	shell_argv = calloc(argc + 2, sizeof(*shell_argv));
	if (!shell_argv)
		return;
	shell_argv[0] = (char *)(uintptr_t)SHELL;
	shell_argv[1] = (char *)(uintptr_t)path;
	for (size_t i = 1; i < argc; i++)
		shell_argv[i + 1] = argv[i];
	execv(SHELL, shell_argv);
	free(shell_argv);
}

int program_exec(const char *path, char **argv)
{
	int err;

	execv(path, argv);
	err = errno;
	if (err == ENOEXEC) {
		exec_by_shell(path, argv);
		err = errno;
	}
	return err;
}
