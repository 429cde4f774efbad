/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/mailbox.h"
#include "proxy/watch.h"

#include "test_proxy_net.h"

#include "common/fd.h"
#include "suite.h"

#include <stdatomic.h>

/*
 * What event loops have beside libev: mailboxes between their threads, and
 * sets of fds that may go from one to another.
 */

static struct ev_loop *loop;

static void setup(void)
{
	loop = ev_loop_new(EVBACKEND_EPOLL);
	ck_assert_ptr_nonnull(loop);
}

static void teardown(void)
{
	ev_loop_destroy(loop);
}

/* ---- mailbox ---- */

#define POSTERS 4
#define LETTERS 20000

struct letter {
	struct mail mail;
	int poster;
	int number;
};

struct office {
	struct mailbox box;
	int next[POSTERS];
	int delivered;
	int dropped;
	int after;
	bool closing;
	bool closed;
};

static struct office office;

static void deliver(struct mail *mail, void *receiver)
{
	struct letter *letter = (struct letter *)mail;

	if (receiver) {
		ck_assert_ptr_eq(receiver, &office);
		/* In the order in which each poster sent them. */
		ck_assert_int_eq(letter->number, office.next[letter->poster]++);
		office.delivered++;
	} else {
		office.dropped++;
	}
	free(letter);
}

static void after(void *receiver)
{
	struct office *o = receiver;

	o->after++;
	if (o->closing && mailbox_close(&o->box))
		o->closed = true;
}

static bool post(int poster, int number)
{
	struct letter *letter = malloc(sizeof(*letter));

	ck_assert_ptr_nonnull(letter);
	letter->mail.deliver = deliver;
	letter->poster = poster;
	letter->number = number;
	if (mailbox_post(&office.box, &letter->mail))
		return true;
	free(letter);
	return false;
}

static atomic_int posted;

static void *poster_main(void *arg)
{
	int poster = *(int *)arg;

	for (int i = 0; i < LETTERS && post(poster, i); i++)
		atomic_fetch_add(&posted, 1);
	return NULL;
}

static bool all_delivered(void *arg)
{
	return office.delivered == POSTERS * LETTERS;
}

static bool is_closed(void *arg)
{
	return office.closed;
}

static void open_office(void)
{
	memset(&office, 0, sizeof(office));
	atomic_store(&posted, 0);
	mailbox_init(&office.box, loop, &office, after);
}

static void with_posters(bool (*until)(void *arg))
{
	pthread_t thread[POSTERS];
	int id[POSTERS];

	for (int i = 0; i < POSTERS; i++) {
		id[i] = i;
		ck_assert_int_eq(
			pthread_create(&thread[i], NULL, poster_main, &id[i]),
			0);
	}
	ck_assert(net_turn_until(loop, until, NULL));
	for (int i = 0; i < POSTERS; i++)
		pthread_join(thread[i], NULL);
}

START_TEST(mail_arrives_in_order)
{
	open_office();
	with_posters(all_delivered);
	ck_assert_int_gt(office.after, 0);
	mailbox_free(&office.box);
	ck_assert_int_eq(office.dropped, 0);
}
END_TEST

/* What was posted before the close is delivered, what was not is refused. */
START_TEST(mail_until_the_close)
{
	open_office();
	office.closing = true;
	with_posters(is_closed);
	ck_assert_int_eq(office.delivered, atomic_load(&posted));
	ck_assert(!post(0, 0));
	mailbox_free(&office.box);
	ck_assert_int_eq(office.dropped, 0);
}
END_TEST

START_TEST(mail_of_a_loop_that_never_ran)
{
	open_office();
	for (int i = 0; i < 3; i++)
		ck_assert(post(0, i));
	ck_assert(!mailbox_close(&office.box));
	mailbox_free(&office.box);
	ck_assert_int_eq(office.dropped, 3);
	ck_assert_int_eq(office.delivered, 0);
}
END_TEST

/* ---- watch ---- */

static struct watch_set set;
static struct watch watches[100];
static int calls, last;

static void on_event(struct watch *watch, int revents)
{
	calls++;
	last = revents;
}

/* The first of a turn silences the others. */
static void on_event_silence(struct watch *watch, int revents)
{
	calls++;
	for (int i = 0; i < 100; i++)
		if (watches[i].set)
			watch_for(&watches[i], 0);
}

static void turn(void)
{
	calls = last = 0;
	net_turn(loop, 2);
}

START_TEST(watch_for_what)
{
	int pair[2];

	ck_assert_int_eq(watch_set_init(&set, loop), 0);
	net_pair(AF_UNIX, pair);
	watch_init(&watches[0], &set, pair[0], on_event);
	turn();
	ck_assert_int_eq(calls, 0);
	ck_assert_int_eq(watch_for(&watches[0], EV_READ), 0);
	turn();
	ck_assert_int_eq(calls, 0);
	ck_assert_int_eq(watch_for(&watches[0], EV_READ | EV_WRITE), 0);
	turn();
	ck_assert_int_eq(calls, 2);
	ck_assert_int_eq(last, EV_WRITE);
	ck_assert_int_eq(send(pair[1], "x", 1, 0), 1);
	turn();
	ck_assert_int_eq(last, EV_READ | EV_WRITE);
	ck_assert_int_eq(watch_for(&watches[0], EV_READ), 0);
	turn();
	ck_assert_int_eq(last, EV_READ);
	/* Nothing is left in the set, not even for errors. */
	ck_assert_int_eq(watch_for(&watches[0], 0), 0);
	close(pair[1]);
	turn();
	ck_assert_int_eq(calls, 0);
	ck_assert_int_eq(watch_for(&watches[0], EV_WRITE), 0);
	turn();
	ck_assert_int_eq(last, EV_WRITE);
	ck_assert_int_eq(watch_for(&watches[0], 0), 0);
	close(pair[0]);
	/* A closed fd cannot be waited for. */
	ck_assert_int_eq(watch_for(&watches[0], EV_READ), -1);
	ck_assert_int_eq(watches[0].mask, 0);
	watch_set_stop(&set);
	watch_set_stop(&set);
	ck_assert_int_eq(set.fd, -1);
}
END_TEST

START_TEST(watch_changes_in_the_middle_of_a_turn)
{
	int pairs[100][2];

	memset(watches, 0, sizeof(watches));
	ck_assert_int_eq(watch_set_init(&set, loop), 0);
	for (int i = 0; i < 100; i++) {
		net_pair(AF_UNIX, pairs[i]);
		watch_init(&watches[i], &set, pairs[i][0], on_event_silence);
		ck_assert_int_eq(watch_for(&watches[i], EV_WRITE), 0);
	}
	turn();
	ck_assert_int_eq(calls, 1);
	for (int i = 0; i < 100; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	watch_set_stop(&set);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxy_loop");
	TCase *tcase = tcase_create("loop");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 2 * WAIT_SECONDS);
	tcase_add_test(tcase, mail_arrives_in_order);
	tcase_add_test(tcase, mail_until_the_close);
	tcase_add_test(tcase, mail_of_a_loop_that_never_ran);
	tcase_add_test(tcase, watch_for_what);
	tcase_add_test(tcase, watch_changes_in_the_middle_of_a_turn);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
