/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024
#define HEAD_MAX_BYTES 128
#define TAIL_MAX_BYTES 48

/* Set once by log_init() before any thread starts, then only read. */
static struct {
	const char *program;
	enum log_level level;
	int fd;
} conf = {"proxify", LOG_WARN, STDERR_FILENO};

/*
 * Makes "is there room" and "write" one step for the threads of this process.
 * Nothing else is done under it.
 */
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;

/* Lines that nobody took since the last that somebody did. */
static unsigned int lost; /* under write_lock */

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};
_Static_assert(sizeof(level_names) / sizeof(level_names[0]) == LOG_DEBUG + 1,
	"a name for each level");

void log_init(const char *program, enum log_level level, int fd)
{
	conf.program = program;
	conf.level = level;
	conf.fd = fd;
}

int log_level_parse(const char *text, enum log_level *out)
{
	for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -1;
}

bool log_enabled(enum log_level level)
{
	return level <= conf.level;
}

const char *log_strerror(int err)
{
	/* strerrordesc_np() would do, but is only in glibc from 2.32 on. The
	 * texts of strerror_r() come from a table unless the number is
	 * unknown; the buffer serves that case alone. */
	static _Thread_local char unknown[64];

#if defined(__GLIBC__)
	return strerror_r(err, unknown, sizeof(unknown));
#else
	strerror_r(err, unknown, sizeof(unknown));
	return unknown;
#endif
}

/* May this line of @site go out? *suppressed: lines kept back before it. */
static bool site_allows(
	struct log_site *site, int64_t now, uint32_t *suppressed)
{
	int64_t start = atomic_load(&site->window);

	if (now - start >= LOG_WINDOW || now < start) {
		if (atomic_compare_exchange_strong(&site->window, &start, now))
			atomic_store(&site->count, 0);
	}
	if (atomic_fetch_add(&site->count, 1) >= LOG_BURST) {
		atomic_fetch_add(&site->suppressed, 1);
		return false;
	}
	*suppressed = atomic_exchange(&site->suppressed, 0);
	return true;
}

static int format_head(char *line, const struct timespec *now, int level)
{
	struct tm tm;
	char stamp[32];

	gmtime_r(&now->tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(line, HEAD_MAX_BYTES, "%s.%03ldZ %s %s: ", stamp,
		now->tv_nsec / 1000000, conf.program, level_names[level]);
}

/* snprintf() returns what it wanted to write; this is what it wrote. */
static size_t clamp(int n, size_t room)
{
	if (n < 0)
		return 0;
	return (size_t)n < room ? (size_t)n : room - 1;
}

/* Names and paths in a message come from peers: one of them with a newline in
 * it would write a line of its own. UTF-8 is left alone. */
static void hide_controls(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < ' ' || c == 0x7f)
			text[i] = '?';
	}
}

static size_t format_tail(char *tail, uint32_t suppressed)
{
	if (suppressed == 0)
		return 0;
	return clamp(snprintf(tail, TAIL_MAX_BYTES,
			     " (%u more like this kept back)", suppressed),
		TAIL_MAX_BYTES);
}

/* Would a write() of a line wait for a reader? */
static bool reader_stalls(void)
{
	struct pollfd p = {.fd = conf.fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 0;
}

/* Return: false if the line is lost because nobody takes it. */
static bool write_line(const char *line, size_t len)
{
	if (reader_stalls())
		return false;
	/* A log that cannot be written is not worth failing for. */
	return write(conf.fd, line, len) != -1 ||
	       (errno != EAGAIN && errno != EWOULDBLOCK);
}

static bool tell_lost(const struct timespec *now)
{
	char line[HEAD_MAX_BYTES + 64];
	size_t len;

	len = clamp(format_head(line, now, LOG_WARN), HEAD_MAX_BYTES);
	len += clamp(
		snprintf(line + len, sizeof(line) - len,
			"%u lines are lost here: nobody read them\n", lost),
		sizeof(line) - len);
	return write_line(line, len);
}

/* Never waits: see the theory. */
static void put_line(const char *line, size_t len, const struct timespec *now)
{
	pthread_mutex_lock(&write_lock);
	if (lost && tell_lost(now))
		lost = 0;
	if (lost || !write_line(line, len))
		lost++;
	pthread_mutex_unlock(&write_lock);
}

/* The message is what gives way when a line is too long: what was kept back
 * is told in this line or never. */
void log_write(
	enum log_level level, struct log_site *site, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES], tail[TAIL_MAX_BYTES];
	int saved = errno;
	uint32_t suppressed = 0;
	struct timespec now;
	size_t len, n, tail_len, room;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &now);
	if (site && !site_allows(site, now.tv_sec, &suppressed))
		goto out;
	tail_len = format_tail(tail, suppressed);
	len = clamp(format_head(line, &now, (int)level), HEAD_MAX_BYTES);
	room = LINE_MAX_BYTES - len - tail_len;
	va_start(ap, fmt);
	n = clamp(vsnprintf(line + len, room, fmt, ap), room);
	va_end(ap);
	hide_controls(line + len, n);
	len += n;
	memcpy(line + len, tail, tail_len);
	len += tail_len;
	line[len++] = '\n';
	put_line(line, len, &now);
out:
	errno = saved;
}
