/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The log writes into a SOCK_SEQPACKET socket: one write(2) is one record
 * there, so that a line in two writes shows as two records. Threads write into
 * a memfd, where lines that mix would show. The rate limit's window is not
 * waited for: a test ages the site's own window.
 */

#define LINES_PER_THREAD 200
#define NR_THREADS       8
#define RECORD_MAX       4096

static int sink[2] = {-1, -1};

static void setup(void)
{
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sink), 0);
	log_init("test", LOG_INFO, sink[0]);
}

static void teardown(void)
{
	/* not into the next test, where they share a process */
	log_flush();
	close(sink[0]);
	close(sink[1]);
}

/* The next record, or "" when there is none. */
static const char *record(void)
{
	static char buf[RECORD_MAX];
	ssize_t n = recv(sink[1], buf, sizeof(buf) - 1, MSG_DONTWAIT);

	if (n == -1)
		ck_assert_int_eq(errno, EAGAIN);
	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static bool like(const char *text, const char *pattern)
{
	regex_t re;
	bool matched;

	ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	matched = regexec(&re, text, 0, NULL, 0) == 0;
	regfree(&re);
	return matched;
}

#define STAMP                      \
 "^[0-9]{4}-[01][0-9]-[0-3][0-9]T" \
 "[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "

static void check_line(const char *level, const char *message)
{
	const char *line = record();
	char want[256];
	size_t head = strlen("2026-01-31T12:00:00.123Z ");

	ck_assert_msg(like(line, STAMP), "'%s'", line);
	snprintf(want, sizeof(want), "test %s: %s\n", level, message);
	ck_assert_str_eq(line + head, want);
}

START_TEST(one_line_in_one_write)
{
	log_error("accept on %s: %s", "vsock:any:8888", "EMFILE");
	check_line("error", "accept on vsock:any:8888: EMFILE");
	log_warn("two %d", 2);
	check_line("warn", "two 2");
	log_info("%s", "");
	check_line("info", "");
	ck_assert_str_eq(record(), "");
}
END_TEST

START_TEST(threshold)
{
	static const enum log_level levels[] = {
		LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG};

	for (size_t i = 0; i < 4; i++) {
		int seen = 0;

		log_init("test", levels[i], sink[0]);
		for (size_t j = 0; j < 4; j++)
			ck_assert(log_enabled(levels[j]) == (j <= i));
		log_error("x");
		log_warn("x");
		log_info("x");
		log_debug("x");
		while (record()[0])
			seen++;
		ck_assert_int_eq(seen, (int)i + 1);
	}
}
END_TEST

static int calls;

static int count_call(void)
{
	return ++calls;
}

/* Below the threshold the arguments cost nothing. */
START_TEST(threshold_skips_arguments)
{
	calls = 0;
	log_debug("%d", count_call());
	ck_assert_int_eq(calls, 0);
	log_info("%d", count_call());
	ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(levels_by_name)
{
	static const char *const bad[] = {
		"", "Error", "err", "errors", "debug ", "4", "trace"};
	enum log_level level = LOG_WARN;

	ck_assert_int_eq(log_level_parse("error", &level), 0);
	ck_assert_int_eq(level, LOG_ERROR);
	ck_assert_int_eq(log_level_parse("warn", &level), 0);
	ck_assert_int_eq(level, LOG_WARN);
	ck_assert_int_eq(log_level_parse("info", &level), 0);
	ck_assert_int_eq(level, LOG_INFO);
	ck_assert_int_eq(log_level_parse("debug", &level), 0);
	ck_assert_int_eq(level, LOG_DEBUG);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(log_level_parse(bad[i], &level), -1);
		ck_assert_int_eq(level, LOG_DEBUG);
	}
}
END_TEST

START_TEST(errno_is_kept)
{
	int bad_fd = dup(sink[0]);

	errno = ECONNRESET;
	log_error("%s", log_strerror(errno));
	ck_assert_int_eq(errno, ECONNRESET);
	check_line("error", "Connection reset by peer");
	/* neither a line that is dropped nor one that cannot be written */
	errno = ECONNRESET;
	log_debug("x");
	ck_assert_int_eq(errno, ECONNRESET);
	close(bad_fd);
	log_init("test", LOG_INFO, bad_fd);
	errno = ECONNRESET;
	log_error("x");
	ck_assert_int_eq(errno, ECONNRESET);
	log_init("test", LOG_INFO, -1);
	log_error("x");
	ck_assert_int_eq(errno, ECONNRESET);
}
END_TEST

/* A reader that does not read must not stop the daemon for good: with a
 * non-blocking sink the line is dropped. */
START_TEST(full_sink_loses_the_line)
{
	ck_assert_int_eq(fcntl(sink[0], F_SETFL, O_NONBLOCK), 0);
	errno = ENOENT;
	for (int i = 0; i < 10000; i++)
		log_error("%0500d", i);
	ck_assert_int_eq(errno, ENOENT);
	while (record()[0])
		;
	log_error("again");
	ck_assert(like(record(), "test warn: [0-9]+ lines are lost here"));
	check_line("error", "again");
}
END_TEST

/* As stderr usually is: a pipe that blocks, and a reader that stalls. Nothing
 * may wait for it, and when it reads again it is told what it missed. */
START_TEST(stalled_reader_stops_nobody)
{
	char text[1 << 17], want[64];
	int pipefd[2], filled = 0, unread;
	ssize_t n;

	ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
	log_init("test", LOG_INFO, pipefd[1]);
	for (int i = 0; i < 1000; i++)
		log_info("%0500d", i);
	ck_assert_int_eq(ioctl(pipefd[0], FIONREAD, &unread), 0);
	n = read(pipefd[0], text, sizeof(text));
	ck_assert_int_eq(n, unread);
	for (ssize_t i = 0; i < n; i++)
		filled += text[i] == '\n';
	ck_assert_int_gt(filled, 10);
	ck_assert_int_lt(filled, 1000);
	ck_assert_int_eq(text[n - 1], '\n');

	log_info("again");
	n = read(pipefd[0], text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	snprintf(want, sizeof(want), "test warn: %d lines are lost here",
		1000 - filled);
	ck_assert_msg(strstr(text, want), "'%s', not in '%s'", want, text);
	ck_assert_ptr_nonnull(strstr(text, "test info: again\n"));
	/* once */
	log_info("and again");
	n = read(pipefd[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	ck_assert(like(text, STAMP "test info: and again\n$"));
	close(pipefd[0]);
	close(pipefd[1]);
}
END_TEST

START_TEST(errno_texts)
{
	ck_assert_str_eq(log_strerror(0), "Success");
	ck_assert_str_eq(log_strerror(ECONNREFUSED), "Connection refused");
	ck_assert_ptr_nonnull(strstr(log_strerror(99999), "99999"));
	ck_assert_ptr_nonnull(strstr(log_strerror(-1), "-1"));
}
END_TEST

/* ---- long lines ---- */

/* Whatever the length: one record, one newline, at its end, at most 1024. */
START_TEST(long_lines_are_cut)
{
	char text[3000];

	memset(text, 'x', sizeof(text));
	for (int len = 900; len < 2000; len++) {
		const char *line;
		size_t got;

		log_error("%.*s", len, text);
		line = record();
		got = strlen(line);
		ck_assert_uint_gt(got, 900);
		ck_assert_uint_le(got, 1024);
		ck_assert_ptr_eq(strchr(line, '\n'), line + got - 1);
		ck_assert(like(line, STAMP "test error: x+\n$"));
		ck_assert_str_eq(record(), "");
	}
}
END_TEST

/* A name from a peer must not be able to write a line of its own, nor to the
 * terminal of whoever reads the log. */
START_TEST(no_line_is_forged)
{
	static const char forged[] =
		"a\n2026-01-31T12:00:00.123Z proxy info: all is well\r\nx";

	log_error("name '%s'", forged);
	check_line("error",
		"name 'a?2026-01-31T12:00:00.123Z proxy info: all is well??x'");
	log_error("%s", "\033[2J\a\b\t\v\x7f\001~ \xc3\xa4");
	check_line("error", "?[2J??????~ \xc3\xa4");
	ck_assert_str_eq(record(), "");
}
END_TEST

START_TEST(long_program_name)
{
	static char name[3000];
	const char *line;

	memset(name, 'n', sizeof(name) - 1);
	log_init(name, LOG_INFO, sink[0]);
	log_error("lost");
	line = record();
	ck_assert_uint_le(strlen(line), 1024);
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
}
END_TEST

/* ---- rate limit ---- */

/* Write @nr lines and count those that came out. */
static int pass(struct log_site *site, int nr)
{
	int seen = 0;

	for (int i = 0; i < nr; i++) {
		log_write(LOG_WARN, site, "line");
		if (record()[0])
			seen++;
	}
	return seen;
}

static void age(struct log_site *site, int64_t seconds)
{
	atomic_fetch_sub(&site->window, seconds);
}

START_TEST(limit_lets_a_burst_through)
{
	static struct log_site site;

	ck_assert_int_eq(pass(&site, LOG_BURST), LOG_BURST);
	ck_assert_int_eq(pass(&site, 100), 0);
	ck_assert_uint_eq(atomic_load(&site.suppressed), 100);
}
END_TEST

START_TEST(limit_reports_what_was_kept_back)
{
	static struct log_site site;

	pass(&site, LOG_BURST + 7);
	age(&site, LOG_WINDOW);
	log_write(LOG_WARN, &site, "line");
	check_line("warn", "line (7 more like this kept back)");
	/* once */
	log_write(LOG_WARN, &site, "line");
	check_line("warn", "line");
	/* and the new window has a burst of its own */
	ck_assert_int_eq(pass(&site, 100), LOG_BURST - 2);
}
END_TEST

/* Where no line of that site follows, another one brings it out. */
START_TEST(limit_reports_with_another_site)
{
	static struct log_site site, other;

	pass(&site, LOG_BURST);
	log_write(LOG_WARN, &site, "kept\nback %d", 1);
	log_write(LOG_WARN, &site, "kept back %d", 2);
	log_write(LOG_WARN, &site, "kept back %d", 3);
	/* not before the window is over */
	log_write(LOG_INFO, &other, "another");
	check_line("info", "another");
	ck_assert_str_eq(record(), "");
	age(&site, LOG_WINDOW);
	log_info("and another");
	check_line("warn", "kept?back 1 (2 more like this kept back)");
	check_line("info", "and another");
	/* once */
	log_info("last");
	check_line("info", "last");
	log_write(LOG_WARN, &site, "line");
	check_line("warn", "line");
	ck_assert_str_eq(record(), "");
}
END_TEST

START_TEST(limit_reports_at_the_end)
{
	static struct log_site site[3];

	for (int i = 0; i < 3; i++) {
		pass(&site[i], LOG_BURST);
		for (int j = 0; j < i; j++)
			log_write(LOG_ERROR, &site[i], "site %d", i);
	}
	errno = ENOENT;
	log_flush();
	ck_assert_int_eq(errno, ENOENT);
	check_line("error", "site 2 (1 more like this kept back)");
	check_line("error", "site 1");
	log_flush();
	ck_assert_str_eq(record(), "");
}
END_TEST

/* However long the line is: what was kept back is not lost twice. */
START_TEST(limit_reports_behind_a_long_line)
{
	char text[2000];

	memset(text, 'x', sizeof(text));
	for (int len = 900; len < (int)sizeof(text); len++) {
		struct log_site site = {0};
		const char *line;

		atomic_store(&site.suppressed, UINT32_MAX);
		log_write(LOG_WARN, &site, "%.*s", len, text);
		line = record();
		ck_assert_uint_le(strlen(line), 1024);
		ck_assert_msg(like(line, STAMP "test warn: x+ "
					       "\\(4294967295 more like this "
					       "kept back\\)\n$"),
			"%d: '%s'", len, line);
	}
}
END_TEST

START_TEST(limit_without_loss_reports_nothing)
{
	struct log_site site = {0};

	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(pass(&site, LOG_BURST - 1), LOG_BURST - 1);
		age(&site, LOG_WINDOW);
		log_write(LOG_WARN, &site, "line");
		check_line("warn", "line");
		age(&site, LOG_WINDOW);
	}
}
END_TEST

/* A clock set back must not silence a site until it has caught up. */
START_TEST(limit_survives_a_clock_set_back)
{
	static struct log_site site;

	pass(&site, LOG_BURST + 1);
	age(&site, -3600);
	log_write(LOG_WARN, &site, "line");
	check_line("warn", "line (1 more like this kept back)");
}
END_TEST

START_TEST(limit_is_per_site)
{
	int seen = 0;

	for (int i = 0; i < 2 * LOG_BURST; i++) {
		log_warn_ratelimit("one");
		log_error_ratelimit("two");
		log_info_ratelimit("three");
	}
	while (record()[0])
		seen++;
	ck_assert_int_eq(seen % LOG_BURST, 0);
	ck_assert_int_eq(seen / LOG_BURST, 3);
	/* the forms without a limit have none */
	for (int i = 0; i < 3 * LOG_BURST; i++) {
		log_warn("x");
		ck_assert_str_ne(record(), "");
	}
}
END_TEST

START_TEST(limit_keeps_errno)
{
	static struct log_site site;

	for (int i = 0; i < 2 * LOG_BURST; i++) {
		errno = ECONNRESET;
		log_write(LOG_WARN, &site, "x");
		ck_assert_int_eq(errno, ECONNRESET);
	}
}
END_TEST

/* Lines below the threshold are not held against the site. */
START_TEST(limit_ignores_dropped_lines)
{
	int seen = 0;

	for (int turn = 0; turn < 2; turn++) {
		log_init("test", turn ? LOG_INFO : LOG_ERROR, sink[0]);
		for (int i = 0; i < LOG_BURST; i++)
			log_info_ratelimit("x");
	}
	while (record()[0])
		seen++;
	ck_assert_int_eq(seen, LOG_BURST);
}
END_TEST

/* ---- threads ---- */

struct writer {
	pthread_t thread;
	int id;
	struct log_site *site;
};

static void *write_lines(void *arg)
{
	const struct writer *w = arg;

	for (int i = 0; i < LINES_PER_THREAD; i++) {
		if (w->site)
			log_write(LOG_WARN, w->site, "thread %d", w->id);
		else
			log_warn("thread %d line %d: %s", w->id, i,
				log_strerror(i));
	}
	return NULL;
}

/* All threads at once; the log as one string, to be freed. */
static char *run_threads(struct log_site *site)
{
	struct writer writers[NR_THREADS];
	int fd = memfd_create("log", MFD_CLOEXEC);
	off_t size;
	char *text;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, O_APPEND), 0);
	log_init("test", LOG_INFO, fd);
	for (int i = 0; i < NR_THREADS; i++) {
		writers[i].id = i;
		writers[i].site = site;
		ck_assert_int_eq(pthread_create(&writers[i].thread, NULL,
					 write_lines, &writers[i]),
			0);
	}
	for (int i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(pthread_join(writers[i].thread, NULL), 0);
	size = lseek(fd, 0, SEEK_END);
	text = malloc((size_t)size + 1);
	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(pread(fd, text, (size_t)size, 0), size);
	text[size] = '\0';
	close(fd);
	return text;
}

/* The number behind @word in @line, -1 when there is none. */
static long number_behind(const char *line, const char *word)
{
	const char *at = strstr(line, word);
	char *end;
	long nr;

	if (!at)
		return -1;
	at += strlen(word);
	nr = strtol(at, &end, 10);
	return end == at ? -1 : nr;
}

static const long total = (long)NR_THREADS * LINES_PER_THREAD;

START_TEST(threads_do_not_mix_lines)
{
	int next[NR_THREADS] = {0};
	char *text = run_threads(NULL);
	int lines = 0;
	char *save;

	for (char *line = strtok_r(text, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save)) {
		char want[256];
		long id = number_behind(line, "thread ");
		int nr;

		ck_assert_int_ge(id, 0);
		ck_assert_int_lt(id, NR_THREADS);
		nr = next[id]++;
		snprintf(want, sizeof(want),
			"test warn: thread %ld line %d: %s", id, nr,
			log_strerror(nr));
		ck_assert_str_eq(strchr(line, ' ') + 1, want);
		lines++;
	}
	ck_assert_int_eq(lines, total);
	free(text);
}
END_TEST

/* Every line either came out or is counted. Lines that pass while one thread
 * opens the window are not counted against it: at most a burst more. */
START_TEST(threads_share_the_limit)
{
	static struct log_site site;
	char *text = run_threads(&site);
	long lines = 0, reported = 0;
	char *save;

	for (char *line = strtok_r(text, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save)) {
		long kept = number_behind(line, " (");

		lines++;
		if (kept > 0)
			reported += kept;
	}
	ck_assert_int_ge(lines, LOG_BURST);
	ck_assert_int_le(lines / 2, LOG_BURST);
	ck_assert_int_eq(
		lines + reported + (long)atomic_load(&site.suppressed), total);
	free(text);
}
END_TEST

static TCase *lines_case(void)
{
	TCase *tc = tcase_create("lines");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, one_line_in_one_write);
	tcase_add_test(tc, threshold);
	tcase_add_test(tc, threshold_skips_arguments);
	tcase_add_test(tc, levels_by_name);
	tcase_add_test(tc, errno_is_kept);
	tcase_add_test(tc, errno_texts);
	tcase_add_test(tc, full_sink_loses_the_line);
	tcase_add_test(tc, stalled_reader_stops_nobody);
	tcase_add_test(tc, long_lines_are_cut);
	tcase_add_test(tc, no_line_is_forged);
	tcase_add_test(tc, long_program_name);
	return tc;
}

static TCase *limit_case(void)
{
	TCase *tc = tcase_create("rate limit");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, limit_lets_a_burst_through);
	tcase_add_test(tc, limit_reports_what_was_kept_back);
	tcase_add_test(tc, limit_reports_with_another_site);
	tcase_add_test(tc, limit_reports_at_the_end);
	tcase_add_test(tc, limit_reports_behind_a_long_line);
	tcase_add_test(tc, limit_without_loss_reports_nothing);
	tcase_add_test(tc, limit_survives_a_clock_set_back);
	tcase_add_test(tc, limit_is_per_site);
	tcase_add_test(tc, limit_keeps_errno);
	tcase_add_test(tc, limit_ignores_dropped_lines);
	return tc;
}

static TCase *threads_case(void)
{
	TCase *tc = tcase_create("threads");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, threads_do_not_mix_lines);
	tcase_add_test(tc, threads_share_the_limit);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/log");

	suite_add_tcase(suite, lines_case());
	suite_add_tcase(suite, limit_case());
	suite_add_tcase(suite, threads_case());
	return suite_run(suite);
}
