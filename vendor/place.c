/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/place.h"
#include "common/fd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How long to wait for another start that has the lock to listen. */
#define TAKE_PAUSE_MS 10
#define TAKE_TRIES    1000 /* 10 s */

/* ---- the directory ---- */

/* Make the directory and those above it. Return: 0, or -1 and errno. */
static int make_directories(const char *dir)
{
	char part[ENDPOINT_PATH_MAX + 1];

	for (const char *at = dir + 1;; at++) {
		if (*at != '/' && *at != '\0')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)(at - dir), dir);
		if (mkdir(part, 0755) == -1 && errno != EEXIST)
			return -1;
		if (*at == '\0')
			return 0;
	}
}

/* Return: NULL, or what is wrong with it. */
static const char *check_directory(const struct stat *st)
{
	if (!S_ISDIR(st->st_mode))
		return "expected a directory, not a link or a file";
	if (st->st_uid != geteuid())
		return "expected a directory of the vendor's own user";
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return "expected a directory that only its owner can write "
		       "(mode 0755)";
	return NULL;
}

static int prepare_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[ENDPOINT_PATH_MAX + 1] = "/";
	struct stat st;
	const char *why;

	if (slash != path)
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (lstat(dir, &st) == -1 &&
		(errno != ENOENT || make_directories(dir) == -1 ||
			lstat(dir, &st) == -1)) {
		log_error("directory %s: %s", dir, log_strerror(errno));
		return -1;
	}
	why = check_directory(&st);
	if (why)
		log_error("directory %s (owner %u, mode %04o): %s", dir,
			st.st_uid, st.st_mode & 07777u, why);
	return why ? -1 : 0;
}

/* ---- the lock ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Return: 1 locked, 0 somebody else has it, -1 and errno. */
static int try_lock(struct place *place)
{
	struct stat opened, named;

	place->lock = open(place->lock_path,
		O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (place->lock == -1)
		return -1;
	if (flock(place->lock, LOCK_EX | LOCK_NB) == -1) {
		closefd(&place->lock);
		return errno == EWOULDBLOCK ? 0 : -1;
	}
	if (fstat(place->lock, &opened) == 0 &&
		stat(place->lock_path, &named) == 0 &&
		same_file(&opened, &named))
		return 1;
	/* Its last holder removed it in between: as if it still had it. */
	closefd(&place->lock);
	return 0;
}

/* ---- the socket ---- */

static void unix_address(struct sockaddr_un *addr, const char *path)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	assert(strlen(path) < sizeof(addr->sun_path));
	memcpy(addr->sun_path, path, strlen(path) + 1);
}

static int new_socket(void)
{
	return socket(
		AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Does somebody listen? A backlog that is full says yes, too. */
static bool is_listening(const char *path)
{
	struct sockaddr_un addr;
	int fd = new_socket();
	int ret;

	if (fd == -1)
		return false;
	unix_address(&addr, path);
	ret = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (ret == -1 && errno == EAGAIN)
		ret = 0;
	closefd(&fd);
	return ret == 0;
}

static int listen_there(struct place *place)
{
	struct sockaddr_un addr;

	if (unlink(place->path) == -1 && errno != ENOENT)
		return -1;
	place->listener = new_socket();
	if (place->listener == -1)
		return -1;
	unix_address(&addr, place->path);
	/* Who may connect is decided by SO_PEERCRED at accept. */
	if (bind(place->listener, (struct sockaddr *)&addr, sizeof(addr)) ==
			-1 ||
		chmod(place->path, 0666) == -1 ||
		lstat(place->path, &place->id) == -1 ||
		listen(place->listener, SOMAXCONN) == -1)
		return -1;
	return 0;
}

/* ---- all of it ---- */

bool place_is_ours(const struct place *place)
{
	struct stat now;

	return lstat(place->path, &now) == 0 && same_file(&now, &place->id);
}

void place_leave(struct place *place)
{
	/* The socket first: who gets the lock next must find no leftover that
	 * looks alive. */
	closefd_if(&place->listener);
	if (place_is_ours(place))
		unlink(place->path);
	if (place->lock != -1)
		unlink(place->lock_path);
	closefd_if(&place->lock);
}

static enum place_verdict listen_locked(struct place *place)
{
	if (listen_there(place) == 0)
		return PLACE_OURS;
	log_error("socket %s: %s", place->path, log_strerror(errno));
	place_leave(place);
	return PLACE_WRONG;
}

enum place_verdict place_take(struct place *place, const char *path)
{
	const struct timespec pause = {.tv_nsec = TAKE_PAUSE_MS * 1000000L};
	int locked;

	memset(place, 0, sizeof(*place));
	place->listener = place->lock = -1;
	place->path = path;
	snprintf(place->lock_path, sizeof(place->lock_path), "%s.lock", path);
	if (prepare_directory(path) == -1)
		return PLACE_WRONG;
	for (int i = 0; i < TAKE_TRIES; i++) {
		locked = try_lock(place);
		if (locked == 1)
			return listen_locked(place);
		if (locked == -1) {
			log_error("lock file %s: %s", place->lock_path,
				log_strerror(errno));
			return PLACE_WRONG;
		}
		if (is_listening(path))
			return PLACE_TAKEN;
		nanosleep(&pause, NULL);
	}
	log_error("lock file %s: held by another vendor that does not listen; "
		  "end that one first",
		place->lock_path);
	return PLACE_WRONG;
}
