/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/slot.h"
#include "preload_stage.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * The slots by themselves: cookies are made up here, and fd numbers need not
 * be open. A record is filled with one byte, so that a mixture of two shows.
 */

#define A_FD     7
#define FAR_FD   (int)(SLOT_FDS - 1)
#define COOKIE_A 0x100000001u
#define COOKIE_B 0x200000002u
#define COOKIE_C 0x300000003u

static struct record filled(int byte)
{
	struct record rec;

	memset(&rec, byte, sizeof(rec));
	rec.was = 0;
	return rec;
}

/* Is it one of filled()'s, but for the kind, which two sockets may differ in?
 * Return: its byte, or -1. */
static int byte_of(const struct record *rec)
{
	struct record wanted = filled(rec->backlog & 0xff);

	wanted.kind = rec->kind;
	wanted.was = rec->was;
	return memcmp(rec, &wanted, sizeof(wanted)) == 0 ? rec->backlog & 0xff
							 : -1;
}

static void expect_record(int fd, uint64_t cookie, int byte, int kind)
{
	struct record rec;

	ck_assert(slot_load(fd, cookie, &rec));
	ck_assert_int_eq(byte_of(&rec), byte);
	ck_assert_int_eq(rec.kind, kind);
}

static void expect_none(int fd, uint64_t cookie)
{
	struct record rec = filled(0x55), before = rec;

	ck_assert(!slot_load(fd, cookie, &rec));
	ck_assert_mem_eq(&rec, &before, sizeof(rec));
}

/* Store a record of one byte and this kind. */
static void put(int fd, uint64_t cookie, int byte, int kind)
{
	struct record rec = filled(byte);

	rec.kind = (uint8_t)kind;
	ck_assert(slot_store(fd, cookie, &rec));
}

static void succeed(
	int fd, uint64_t before, uint64_t cookie, int byte, int kind)
{
	struct record rec = filled(byte);

	rec.kind = (uint8_t)kind;
	ck_assert(slot_succeed(fd, before, cookie, &rec));
}

START_TEST(test_empty)
{
	static const int fds[] = {
		INT_MIN, -1, 0, A_FD, FAR_FD, (int)SLOT_FDS, INT_MAX};

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		struct epoll_event event;
		int epfd;

		expect_none(fds[i], COOKIE_A);
		expect_none(fds[i], 0);
		ck_assert(!slot_epoll_at(fds[i], 0, &epfd, &event));
		slot_not_gate(fds[i], COOKIE_A);
		slot_epoll_forget(fds[i], 0);
		slot_forget(fds[i]);
	}
	ck_assert(!slot_known(A_FD));
	ck_assert(!slot_may_be_gate(A_FD));
	ck_assert(!slot_may_be_gate(-1));
}
END_TEST

START_TEST(test_cookies)
{
	put(A_FD, COOKIE_A, 1, RECORD_CARRIER);
	expect_record(A_FD, COOKIE_A, 1, RECORD_CARRIER);
	expect_none(A_FD, COOKIE_B);
	expect_none(A_FD, 0);
	expect_none(A_FD + 1, COOKIE_A);
	/* the fd was closed and its number given to another socket */
	put(A_FD, COOKIE_B, 2, RECORD_CARRIER);
	expect_record(A_FD, COOKIE_B, 2, RECORD_CARRIER);
	expect_none(A_FD, COOKIE_A);
	ck_assert(slot_known(A_FD));
	slot_forget(A_FD);
	expect_none(A_FD, COOKIE_B);
	expect_none(A_FD, 0);
	ck_assert(!slot_known(A_FD));
}
END_TEST

START_TEST(test_gate_hint)
{
	put(A_FD, COOKIE_A, 1, RECORD_GATE);
	ck_assert(slot_may_be_gate(A_FD));
	ck_assert(!slot_may_be_gate(A_FD + 1));
	/* it is one: no reason to take the hint back */
	slot_not_gate(A_FD, COOKIE_A);
	ck_assert(slot_may_be_gate(A_FD));
	expect_record(A_FD, COOKIE_A, 1, RECORD_GATE);
	/* another socket altogether, or none */
	slot_not_gate(A_FD, COOKIE_B);
	ck_assert(!slot_may_be_gate(A_FD));
	put(A_FD, COOKIE_A, 1, RECORD_GATE);
	slot_not_gate(A_FD, 0);
	ck_assert(!slot_may_be_gate(A_FD));
	put(A_FD, COOKIE_A, 1, RECORD_CARRIER);
	ck_assert(!slot_may_be_gate(A_FD));
}
END_TEST

/* A TCP socket, a gate in its place, and a carrier in the gate's. */
START_TEST(test_succession)
{
	put(A_FD, COOKIE_A, 1, RECORD_NONE);
	succeed(A_FD, COOKIE_A, COOKIE_B, 2, RECORD_GATE);
	ck_assert(slot_may_be_gate(A_FD));
	expect_record(A_FD, COOKIE_A, 2, RECORD_NONE);
	expect_record(A_FD, COOKIE_B, 2, RECORD_GATE);
	/* another thread, before dup3(): it sees the TCP socket */
	slot_not_gate(A_FD, COOKIE_A);
	ck_assert(slot_may_be_gate(A_FD));
	expect_record(A_FD, COOKIE_B, 2, RECORD_GATE);

	succeed(A_FD, COOKIE_B, COOKIE_C, 3, RECORD_CARRIER);
	expect_record(A_FD, COOKIE_B, 3, RECORD_GATE);
	expect_record(A_FD, COOKIE_C, 3, RECORD_CARRIER);
	expect_none(A_FD, COOKIE_A);
	ck_assert(slot_may_be_gate(A_FD));
	/* whoever still has the gate changes nothing for the carrier */
	slot_not_gate(A_FD, COOKIE_B);
	ck_assert(slot_may_be_gate(A_FD));
	put(A_FD, COOKIE_B, 4, RECORD_GATE);
	expect_record(A_FD, COOKIE_B, 4, RECORD_GATE);
	expect_record(A_FD, COOKIE_C, 4, RECORD_CARRIER);
	ck_assert(slot_may_be_gate(A_FD));
	put(A_FD, COOKIE_C, 5, RECORD_CARRIER);
	expect_record(A_FD, COOKIE_B, 5, RECORD_GATE);
	expect_record(A_FD, COOKIE_C, 5, RECORD_CARRIER);
	/* the carrier was seen behind the fd: that is that */
	slot_not_gate(A_FD, COOKIE_C);
	ck_assert(!slot_may_be_gate(A_FD));
	expect_none(A_FD, COOKIE_B);
	expect_record(A_FD, COOKIE_C, 5, RECORD_CARRIER);
}
END_TEST

/* One that was never stored is a plain TCP socket. */
START_TEST(test_succeeds_unknown)
{
	put(A_FD, COOKIE_C, 1, RECORD_GATE);
	succeed(A_FD, COOKIE_A, COOKIE_B, 2, RECORD_GATE);
	expect_record(A_FD, COOKIE_A, 2, RECORD_NONE);
	expect_record(A_FD, COOKIE_B, 2, RECORD_GATE);
	expect_none(A_FD, COOKIE_C);
}
END_TEST

START_TEST(test_beyond)
{
	static const int fds[] = {INT_MIN, -1, (int)SLOT_FDS, INT_MAX};
	struct epoll_event event = {.events = EPOLLIN};
	struct record rec = filled(1);
	int epfd;

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		ck_assert(!slot_store(fds[i], COOKIE_A, &rec));
		ck_assert(!slot_succeed(fds[i], COOKIE_A, COOKIE_B, &rec));
		expect_none(fds[i], COOKIE_A);
		slot_epoll_note(fds[i], 5, EPOLL_CTL_ADD, &event);
		ck_assert(!slot_epoll_at(fds[i], 0, &epfd, &event));
	}
	put(FAR_FD, COOKIE_A, 9, RECORD_CARRIER);
	expect_record(FAR_FD, COOKIE_A, 9, RECORD_CARRIER);
}
END_TEST

static size_t resident_kib(void)
{
	char line[128], *end;
	FILE *statm = fopen("/proc/self/statm", "re");
	unsigned long resident;

	ck_assert_ptr_nonnull(statm);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), statm));
	fclose(statm);
	strtoul(line, &end, 10); /* the size */
	resident = strtoul(end, &end, 10);
	ck_assert_int_eq(*end, ' ');
	return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

/* Asking costs nothing; one fd costs a page or two of memory. */
START_TEST(test_memory)
{
	size_t before;
	int known = 0;

	resident_kib();
	before = resident_kib();
	for (int fd = 0; fd < (int)SLOT_FDS; fd++)
		known += slot_known(fd) || slot_may_be_gate(fd);
	ck_assert_int_eq(known, 0);
	/* looking at the table maps the kernel's zero page, no more */
	ck_assert_uint_le(resident_kib(), before + 4096);
	before = resident_kib();
	for (int i = 0; i < 16; i++)
		put(i * (int)(SLOT_FDS / 16), COOKIE_A, i, RECORD_CARRIER);
	ck_assert_uint_le(resident_kib(), before + 16UL * 16 + 4096);
}
END_TEST

START_TEST(test_no_memory)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct record rec = filled(1);
	struct rlimit old, none = {0, 0};
	bool stored;
	int err;

	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	none.rlim_max = old.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &none), 0);
	errno = E2BIG;
	stored = slot_store(A_FD, COOKIE_A, &rec);
	slot_epoll_note(A_FD, 5, EPOLL_CTL_ADD, &event);
	err = errno;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert(!stored);
	ck_assert_int_eq(err, E2BIG);
	expect_none(A_FD, COOKIE_A);
	put(A_FD, COOKIE_A, 1, RECORD_CARRIER);
}
END_TEST

/* ---- at the same time ---- */

#define ROUNDS 20000

static atomic_int mixtures;
static atomic_bool stop;

static void *write_slots(void *arg)
{
	int me = *(int *)arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct record rec = filled(me + i % 2);

		if (i % 3)
			slot_store(A_FD, COOKIE_A, &rec);
		else
			slot_succeed(A_FD, COOKIE_A, COOKIE_B, &rec);
		if (i % 5 == 0)
			slot_not_gate(A_FD, COOKIE_C);
	}
	return NULL;
}

static void *read_slots(void *arg)
{
	uint64_t cookie = *(int *)arg ? COOKIE_A : COOKIE_B;
	struct record rec;

	while (!atomic_load(&stop)) {
		if (slot_load(A_FD, cookie, &rec) && byte_of(&rec) == -1)
			atomic_fetch_add(&mixtures, 1);
	}
	return NULL;
}

START_TEST(test_threads)
{
	int names[] = {0x10, 0x20, 0, 1};
	pthread_t writers[2], readers[2];

	for (int i = 0; i < 2; i++) {
		pthread_create(&readers[i], NULL, read_slots, &names[2 + i]);
		pthread_create(&writers[i], NULL, write_slots, &names[i]);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	ck_assert_int_eq(atomic_load(&mixtures), 0);
}
END_TEST

/* Two threads need the same page of slots first. */
static void *map_page(void *arg)
{
	int fd = *(int *)arg;

	for (int at = fd; at < (int)SLOT_FDS; at += (int)(SLOT_FDS / 256)) {
		struct record rec = filled(fd);

		slot_store(at, COOKIE_A, &rec);
	}
	return NULL;
}

START_TEST(test_threads_map)
{
	pthread_t threads[4];
	int fds[] = {1, 2, 3, 4};

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, map_page, &fds[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 4; i++) {
		for (int at = fds[i]; at < (int)SLOT_FDS;
			at += (int)(SLOT_FDS / 256))
			expect_record(at, COOKIE_A, fds[i], fds[i]);
	}
}
END_TEST

static volatile sig_atomic_t handled;

static void write_from_handler(int number)
{
	struct record rec = filled(0x30);

	slot_load(A_FD, COOKIE_A, &rec);
	rec = filled(0x30);
	slot_store(A_FD, COOKIE_A, &rec);
	handled++;
}

/* Hooks are called from signal handlers, in the middle of a store too. */
START_TEST(test_signals)
{
	struct sigaction act = {.sa_handler = write_from_handler};
	struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
	int64_t deadline = now_ms() + STAGE_PATIENCE_MS;
	struct record rec = filled(0x10);

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (handled < 200 && now_ms() < deadline)
		slot_store(A_FD, COOKIE_A, &rec);
	setitimer(ITIMER_REAL, &never, NULL);
	/* Where others compute, each waits as long as there is patience for the
	 * store that it interrupts, twice. */
	ck_assert_int_ge(handled, 20);
	put(A_FD, COOKIE_A, 0x11, RECORD_CARRIER);
	expect_record(A_FD, COOKIE_A, 0x11, RECORD_CARRIER);
}
END_TEST

static void *write_until_stopped(void *arg)
{
	while (!atomic_load(&stop)) {
		struct record rec = filled(0x10);

		slot_store(A_FD, COOKIE_A, &rec);
	}
	return NULL;
}

/* fork() takes a picture of the slot in the middle of another thread's store;
 * the child has nobody who would finish it. */
START_TEST(test_fork)
{
	pthread_t writer;

	pthread_create(&writer, NULL, write_until_stopped, NULL);
	for (int i = 0; i < 40; i++) {
		pid_t pid = fork();

		ck_assert_int_ne(pid, -1);
		if (pid == 0) {
			struct record rec = filled(0x20);
			int64_t start = now_ms();

			slot_load(A_FD, COOKIE_A, &rec);
			rec = filled(0x20);
			if (!slot_store(A_FD, COOKIE_A, &rec) ||
				!slot_load(A_FD, COOKIE_A, &rec) ||
				byte_of(&rec) != 0x20)
				_exit(1);
			_exit(now_ms() - start > 2000 ? 2 : 0);
		}
		ck_assert_int_eq(stage_wait_exit(pid), 0);
	}
	atomic_store(&stop, true);
	pthread_join(writer, NULL);
}
END_TEST

/* ---- epoll notes ---- */

static void note(int epfd, int op, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	slot_epoll_note(A_FD, epfd, op, op == EPOLL_CTL_DEL ? NULL : &event);
}

/* Return: the data of @epfd's note, or 0. */
static uint64_t noted(int epfd, uint32_t *events)
{
	struct epoll_event event;
	int at;

	for (int i = 0; i < SLOT_EPOLLS; i++) {
		if (slot_epoll_at(A_FD, i, &at, &event) && at == epfd) {
			*events = event.events;
			return event.data.u64;
		}
	}
	return 0;
}

/* One waits, another gives it up, and a late one has nothing to give up. */
START_TEST(test_wait)
{
	uint64_t cookie;

	ck_assert_int_eq(slot_wait_at(70, &cookie), -1);
	ck_assert(!slot_wait_break(70, 5));
	slot_wait_begin(70, 8, 5);
	ck_assert_int_eq(slot_wait_at(70, &cookie), 8);
	ck_assert_uint_eq(cookie, 5);
	ck_assert(!slot_wait_break(70, 6));
	ck_assert(!slot_wait_end(70, 5));
	ck_assert_int_eq(slot_wait_at(70, &cookie), -1);
	slot_wait_begin(70, 8, 5);
	ck_assert(slot_wait_break(70, 5));
	ck_assert(!slot_wait_break(70, 5));
	ck_assert(slot_wait_end(70, 5));
	ck_assert(!slot_wait_end(70, 5));
	/* of two that wait, the first knows nothing of the second's end */
	slot_wait_begin(70, 8, 5);
	slot_wait_begin(70, 9, 6);
	ck_assert(slot_wait_break(70, 6));
	ck_assert(!slot_wait_end(70, 5));
	ck_assert(slot_wait_end(70, 6));
	/* beyond the slots nobody knows anything */
	slot_wait_begin((int)SLOT_FDS, 8, 5);
	ck_assert_int_eq(slot_wait_at((int)SLOT_FDS, &cookie), -1);
	ck_assert(!slot_wait_end((int)SLOT_FDS, 5));
}
END_TEST

START_TEST(test_epolls)
{
	uint32_t events = 0;

	/* nothing that was never added is noted */
	note(0, EPOLL_CTL_MOD, EPOLLIN, 1);
	note(0, EPOLL_CTL_DEL, 0, 0);
	ck_assert_uint_eq(noted(0, &events), 0);
	note(0, EPOLL_CTL_ADD, EPOLLIN, 1);
	note(9, EPOLL_CTL_ADD, EPOLLOUT | EPOLLET, 2);
	note(0, EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT, 3);
	ck_assert_uint_eq(noted(0, &events), 3);
	ck_assert_uint_eq(events, EPOLLIN | EPOLLONESHOT);
	ck_assert_uint_eq(noted(9, &events), 2);
	ck_assert_uint_eq(events, EPOLLOUT | EPOLLET);
	note(0, EPOLL_CTL_DEL, 0, 0);
	ck_assert_uint_eq(noted(0, &events), 0);
	ck_assert_uint_eq(noted(9, &events), 2);
	slot_epoll_forget(A_FD, 1);
	ck_assert_uint_eq(noted(9, &events), 0);
	/* more than there is room for: the last ones count */
	for (int i = 0; i < SLOT_EPOLLS + 1; i++)
		note(20 + i, EPOLL_CTL_ADD, EPOLLIN, 5);
	ck_assert_uint_eq(noted(20 + SLOT_EPOLLS, &events), 5);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_slot");
	TCase *tc = stage_case(s, "slot");

	tcase_add_test(tc, test_empty);
	tcase_add_test(tc, test_cookies);
	tcase_add_test(tc, test_gate_hint);
	tcase_add_test(tc, test_succession);
	tcase_add_test(tc, test_succeeds_unknown);
	tcase_add_test(tc, test_beyond);
	tcase_add_test(tc, test_memory);
	tcase_add_test(tc, test_no_memory);
	tcase_add_test(tc, test_threads);
	tcase_add_test(tc, test_threads_map);
	tcase_add_test(tc, test_signals);
	tcase_add_test(tc, test_fork);
	tcase_add_test(tc, test_wait);
	tcase_add_test(tc, test_epolls);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
