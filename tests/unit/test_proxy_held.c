/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/held.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * No sockets: bytes are put into the scratch buffer as a read would, held, and
 * looked for again. Leaks and stale buffers are the address sanitizer's.
 */

#define SIZE 1024

static struct scratch scratch;
static struct held held;
static uint8_t want[2 * SIZE];

static void setup(void)
{
	memset(&held, 0, sizeof(held));
	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = (uint8_t)(i * 7 + i / 256);
	ck_assert_int_eq(scratch_init(&scratch, SIZE), 0);
}

static void teardown(void)
{
	held_drop(&held, &scratch);
	scratch_free(&scratch);
}

/* As a read of @total bytes of which @sent were passed on. */
static void leave_over(size_t sent, size_t total)
{
	memcpy(scratch.buf, want, total);
	ck_assert_int_eq(
		held_set(&held, &scratch, scratch.buf + sent, total - sent), 0);
	/* what comes next must not show in what is held */
	memset(scratch.buf, 0xee, SIZE);
	ck_assert_uint_eq(held.len, total - sent);
	ck_assert_mem_eq(held.buf + held.off, want + sent, total - sent);
}

/* Of any length, from anywhere in the buffer. */
START_TEST(is_there_again)
{
	for (size_t sent = 0; sent < SIZE; sent += 31)
		for (size_t total = sent + 1; total <= SIZE; total++) {
			leave_over(sent, total);
			held_take(&held, &scratch, 1);
			ck_assert_uint_eq(held.len, total - sent - 1);
			if (held.len > 0)
				ck_assert_mem_eq(held.buf + held.off,
					want + sent + 1, held.len);
			held_take(&held, &scratch, held.len);
			ck_assert_ptr_null(held.buf);
		}
	/* they took turns with one more */
	ck_assert_uint_eq(scratch.nr_spare, 1);
}
END_TEST

START_TEST(small_is_copied)
{
	const uint8_t *buf = scratch.buf;

	leave_over(0, SIZE / 4 - 1);
	ck_assert(!held.big);
	ck_assert_ptr_eq(scratch.buf, buf);
}
END_TEST

START_TEST(big_changes_hands)
{
	const uint8_t *buf = scratch.buf;

	leave_over(0, SIZE / 4);
	ck_assert(held.big);
	ck_assert_ptr_eq(held.buf, buf);
	ck_assert_ptr_ne(scratch.buf, buf);
}
END_TEST

/* Bytes that are elsewhere are copied, however many they are. */
START_TEST(from_elsewhere)
{
	ck_assert_int_eq(held_set(&held, &scratch, want, SIZE), 0);
	ck_assert(!held.big);
	ck_assert_mem_eq(held.buf, want, SIZE);
}
END_TEST

START_TEST(more_behind_it)
{
	ck_assert_int_eq(held_set(&held, &scratch, want, 10), 0);
	ck_assert_int_eq(held_append(&held, want + 10, SIZE), 0);
	ck_assert_uint_eq(held.len, SIZE + 10);
	ck_assert_mem_eq(held.buf, want, SIZE + 10);
}
END_TEST

/* However many are held at a time, only some are kept for later. */
START_TEST(spares_are_few)
{
	struct held many[2 * SCRATCH_SPARES] = {0};

	for (int i = 0; i < 2 * SCRATCH_SPARES; i++)
		ck_assert_int_eq(
			held_set(&many[i], &scratch, scratch.buf, SIZE), 0);
	for (int i = 0; i < 2 * SCRATCH_SPARES; i++)
		held_drop(&many[i], &scratch);
	ck_assert_uint_eq(scratch.nr_spare, SCRATCH_SPARES);
}
END_TEST

START_TEST(nothing_is_held)
{
	held_drop(&held, &scratch);
	held_drop(&held, &scratch);
	ck_assert_uint_eq(scratch.nr_spare, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("held");
	TCase *tc = tcase_create("held");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, is_there_again);
	tcase_add_test(tc, small_is_copied);
	tcase_add_test(tc, big_changes_hands);
	tcase_add_test(tc, from_elsewhere);
	tcase_add_test(tc, more_behind_it);
	tcase_add_test(tc, spares_are_few);
	tcase_add_test(tc, nothing_is_held);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
