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
 * Makes "is there room" and "write" one step for the threads of this process,
 * and guards what sites have kept back. Nothing that waits is done under it.
 */
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;

/* Lines that nobody took since the last that somebody did. */
static unsigned int lost; /* under write_lock */

/* All that ever kept a line back. They are static, and stay. */
static struct log_site *sites; /* under write_lock */

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

/*
 * May this line of @site go out?
 * @suppressed: lines that were kept back before it
 */
static bool site_allows(
	struct log_site *site, int64_t now, uint32_t *suppressed)
{
	int64_t start = atomic_load(&site->window);

	if (now - start >= LOG_WINDOW || now < start) {
		if (atomic_compare_exchange_strong(&site->window, &start, now))
			atomic_store(&site->count, 0);
	}
	if (atomic_fetch_add(&site->count, 1) >= LOG_BURST) {
		*suppressed = atomic_fetch_add(&site->suppressed, 1);
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

/* Under the lock. Never waits: see the theory. */
static void put_line(const char *line, size_t len, const struct timespec *now)
{
	if (lost && tell_lost(now))
		lost = 0;
	if (lost || !write_line(line, len))
		lost++;
}

/* Under the lock: say what @site has kept back. */
static void put_sample(struct log_site *site, const struct timespec *now)
{
	char line[HEAD_MAX_BYTES + LOG_SAMPLE + TAIL_MAX_BYTES + 1];
	uint32_t nr = atomic_exchange(&site->suppressed, 0);
	size_t len;

	site->sampled = false;
	if (nr == 0)
		return;
	len = clamp(format_head(line, now, (int)site->level), HEAD_MAX_BYTES);
	memcpy(line + len, site->sample, strlen(site->sample));
	len += strlen(site->sample);
	len += format_tail(line + len, nr - 1);
	line[len++] = '\n';
	put_line(line, len, now);
}

/* Under the lock: the same for all whose window is over, or for all. */
static void put_samples(const struct timespec *now, bool all)
{
	for (struct log_site *site = sites; site; site = site->next) {
		int64_t age = now->tv_sec - atomic_load(&site->window);

		if (site->sampled && (all || age >= LOG_WINDOW || age < 0))
			put_sample(site, now);
	}
}

/* The first line that @site keeps back in this window. */
__attribute__((format(printf, 3, 0))) static void keep_sample(
	struct log_site *site, enum log_level level, const char *fmt,
	va_list ap)
{
	pthread_mutex_lock(&write_lock);
	site->level = level;
	hide_controls(site->sample,
		clamp(vsnprintf(site->sample, LOG_SAMPLE, fmt, ap),
			LOG_SAMPLE));
	site->sampled = true;
	if (!site->listed) {
		site->listed = true;
		site->next = sites;
		sites = site;
	}
	pthread_mutex_unlock(&write_lock);
}

void log_flush(void)
{
	int saved = errno;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&write_lock);
	put_samples(&now, true);
	pthread_mutex_unlock(&write_lock);
	errno = saved;
}

/*
 * Write one line. The message is what gives way when it is too long: the
 * number of lines that were kept back is told whole.
 */
__attribute__((format(printf, 4, 0))) static void write_message(
	enum log_level level, const struct timespec *now, uint32_t suppressed,
	const char *fmt, va_list ap)
{
	char line[LINE_MAX_BYTES], tail[TAIL_MAX_BYTES];
	size_t tail_len = format_tail(tail, suppressed);
	size_t len = clamp(format_head(line, now, (int)level), HEAD_MAX_BYTES);
	size_t room = LINE_MAX_BYTES - len - tail_len;
	size_t n = clamp(vsnprintf(line + len, room, fmt, ap), room);

	hide_controls(line + len, n);
	len += n;
	memcpy(line + len, tail, tail_len);
	len += tail_len;
	line[len++] = '\n';
	pthread_mutex_lock(&write_lock);
	put_samples(now, false);
	put_line(line, len, now);
	pthread_mutex_unlock(&write_lock);
}

void log_write(
	enum log_level level, struct log_site *site, const char *fmt, ...)
{
	int saved = errno;
	uint32_t suppressed = 0;
	struct timespec now;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &now);
	va_start(ap, fmt);
	if (!site || site_allows(site, now.tv_sec, &suppressed))
		write_message(level, &now, suppressed, fmt, ap);
	else if (suppressed == 0)
		keep_sample(site, level, fmt, ap);
	va_end(ap);
	errno = saved;
}
