/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

/*
 * Log lines of the daemons and the launcher (never of the preload library,
 * which is a guest and has its own one-line voice).
 *
 * Theory of operation
 *
 * One line per event, written with a single write(2) to one fd (stderr unless
 * log_init() says otherwise), so that lines of several threads and processes
 * do not mix:
 *
 *	2026-01-31T12:00:00.123Z proxy warn: accept on vsock:any:8888: ...
 *
 * Logging never waits. Whoever reads the log may stall (a pager, a logging
 * service that is stuck), and a full pipe must not stop the daemon, nor keep it
 * from ending: a line for which there is no room is dropped, and when there is
 * room again a line says how many were. Room is asked for with poll(2), which
 * for a pipe promises more than a line takes, so that O_NONBLOCK, which would
 * change the file for everybody who shares it, is not needed. (Another process
 * that fills the same pipe in between could still make one write wait.)
 *
 * Control characters in a message are written as '?', and a line is cut at
 * 1024 bytes.
 *
 * Callers put the object they speak of first ("conn 12 (vsock:16:1034): ...")
 * and the errno text last, from log_strerror(). errno is kept.
 *
 * Events that a hostile or broken peer can cause at will use the _ratelimit
 * forms: each call site lets LOG_BURST lines through per LOG_WINDOW seconds
 * and then keeps lines back. How many is said in the next line of that site.
 * Where none follows, the next line of any other site, once the window is
 * over, or log_flush() brings the first line that was kept back, with the
 * number of the others: so a burst may be told late, but never not at all.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

#define LOG_BURST  10
#define LOG_WINDOW 5 /* seconds */
#define LOG_SAMPLE 200

/**
 * struct log_site - one place in the code, with static storage, zeroed
 * @window: start, in seconds since the epoch
 * @count:  lines in this window
 * @suppressed: since the last line that came through
 * The rest is guarded by the log's lock:
 * @next, @listed: of all sites that ever kept a line back
 * @sampled: @level and @sample are of the first of those @suppressed
 */
struct log_site {
	_Atomic int64_t window;
	_Atomic uint32_t count;
	_Atomic uint32_t suppressed;
	struct log_site *next;
	bool listed;
	bool sampled;
	enum log_level level;
	char sample[LOG_SAMPLE];
};

/**
 * log_init() - name and threshold of this process
 * @program: static string that starts each line
 * @level:   lines above it are dropped
 * @fd:      where to write; stays the caller's
 */
void log_init(const char *program, enum log_level level, int fd);

/**
 * log_level_parse() - "error", "warn", "info" or "debug"
 *
 * Return: 0 and *out set, or -1.
 */
int log_level_parse(const char *text, enum log_level *out);

/** log_enabled() - would a line of this level be written? */
bool log_enabled(enum log_level level);

__attribute__((format(printf, 3, 4))) void log_write(
	enum log_level level, struct log_site *site, const char *fmt, ...);

/** log_flush() - bring out all that was kept back; before the process ends */
void log_flush(void);

/** log_strerror() - thread-safe text of an errno value, a static string */
const char *log_strerror(int err);

#define log_at_(level, site, ...)       \
 do {                                   \
  if (log_enabled(level))               \
   log_write(level, site, __VA_ARGS__); \
 } while (0)

#define log_limited_(level, ...)           \
 do {                                      \
  static struct log_site log_site_;        \
  log_at_(level, &log_site_, __VA_ARGS__); \
 } while (0)

#define log_error(...) log_at_(LOG_ERROR, NULL, __VA_ARGS__)
#define log_warn(...)  log_at_(LOG_WARN, NULL, __VA_ARGS__)
#define log_info(...)  log_at_(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_at_(LOG_DEBUG, NULL, __VA_ARGS__)

#define log_error_ratelimit(...) log_limited_(LOG_ERROR, __VA_ARGS__)
#define log_warn_ratelimit(...)  log_limited_(LOG_WARN, __VA_ARGS__)
#define log_info_ratelimit(...)  log_limited_(LOG_INFO, __VA_ARGS__)

#endif
