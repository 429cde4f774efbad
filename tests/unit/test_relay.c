/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/relay.h"

#include "suite.h"
#include "test_proxy_net.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/ioctl.h>

/*
 * Theory of operation
 *
 * A relay between two socket pairs on a loop that the test turns itself. The
 * test plays both peers and scripts what they do: send, stop reading, end
 * their stream, close with bytes unread, reset. Each script runs for every
 * combination of families that this machine has.
 */

#define SCRATCH 4096

/* More than all buffers of two connections hold. */
#define STREAM   ((size_t)64 << 20)
#define FILL_MAX ((size_t)8 << 20)

enum combo {
	UNIX_UNIX,
	UNIX_TCP,
	TCP_UNIX,
	TCP_TCP,
	UNIX_TCP6,
	/* where the kernel has vsock loopback */
	VSOCK_TCP,
	TCP_VSOCK,
	VSOCK_UNIX,
	NR_ALL_COMBOS,
};

static const sa_family_t combos[][2] = {
	[UNIX_UNIX] = {AF_UNIX, AF_UNIX},
	[UNIX_TCP] = {AF_UNIX, AF_INET},
	[TCP_UNIX] = {AF_INET, AF_UNIX},
	[TCP_TCP] = {AF_INET, AF_INET},
	[UNIX_TCP6] = {AF_UNIX, AF_INET6},
	[VSOCK_TCP] = {AF_VSOCK, AF_INET},
	[TCP_VSOCK] = {AF_INET, AF_VSOCK},
	[VSOCK_UNIX] = {AF_VSOCK, AF_UNIX},
};

struct told {
	int done[2];
	int err[2];
	uint64_t bytes[2];
	int closed;
};

/* Bytes in use on the heap. */
static size_t heap(void)
{
#if __GLIBC_PREREQ(2, 33)
	return mallinfo2().uordblks;
#else
	return (size_t)mallinfo().uordblks;
#endif
}

static struct ev_loop *loop;
static struct reaper reaper;
static struct relay_group group;
static struct relay *relay;
static struct told told;
static int nr_group_closed;
static int peer[2];
static sa_family_t family[2];

static void on_direction_done(void *arg, int side, uint64_t bytes, int err)
{
	struct told *t = arg;

	t->done[side]++;
	t->err[side] = err;
	t->bytes[side] = bytes;
}

static void on_closed(void *arg)
{
	((struct told *)arg)->closed++;
}

static const struct relay_ops ops = {on_direction_done, on_closed};

static void on_group_closed(void *arg)
{
	nr_group_closed++;
}

static void setup_size(size_t scratch)
{
	loop = ev_loop_new(EVBACKEND_EPOLL);
	ck_assert_ptr_nonnull(loop);
	reaper_init(&reaper, loop);
	ck_assert_int_eq(relay_group_init(&group, loop, &reaper, scratch,
				 on_group_closed, NULL),
		0);
	memset(&told, 0, sizeof(told));
	nr_group_closed = 0;
}

static void setup(void)
{
	setup_size(SCRATCH);
}

static void teardown(void)
{
	relay_group_abort(&group);
	reaper_stop(&reaper);
	relay_group_free(&group);
	ev_loop_destroy(loop);
}

/* Make a relay between two fresh pairs; peer[] are the outer ends. */
static void begin(int combo)
{
	struct relay_sock sock[2];

	for (int side = 0; side < 2; side++) {
		int pair[2];

		family[side] = combos[combo][side];
		net_pair(family[side], pair);
		peer[side] = pair[0];
		sock[side].fd = pair[1];
		sock[side].family = family[side];
	}
	relay = relay_new(&group, sock, 1, &ops, &told);
	ck_assert_ptr_nonnull(relay);
}

static void end_peers(void)
{
	for (int side = 0; side < 2; side++)
		if (peer[side] != -1)
			close(peer[side]);
}

static bool is_closed(void *arg)
{
	return told.closed > 0;
}

static void wait_closed(void)
{
	ck_assert(net_turn_until(loop, is_closed, NULL));
	ck_assert_int_eq(told.closed, 1);
	ck_assert_int_eq(nr_group_closed, 1);
	ck_assert_int_eq(told.done[0], 1);
	ck_assert_int_eq(told.done[1], 1);
	ck_assert_uint_eq(group.nr, 0);
}

static bool is_readable(void *arg)
{
	struct pollfd p = {.fd = *(int *)arg, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* Receive exactly @len bytes and compare. */
static void expect_bytes(int side, const void *want, size_t len)
{
	uint8_t *got = malloc(len);
	size_t have = 0;

	while (have < len) {
		ssize_t n;

		ck_assert(net_turn_until(loop, is_readable, &peer[side]));
		n = recv(peer[side], got + have, len - have, 0);
		ck_assert_int_gt(n, 0);
		have += (size_t)n;
	}
	ck_assert_mem_eq(got, want, len);
	free(got);
}

/* The next read gives an end of stream (0) or this error. */
static void expect_end(int side, int err)
{
	char c;
	ssize_t n;

	ck_assert(net_turn_until(loop, is_readable, &peer[side]));
	n = recv(peer[side], &c, 1, 0);
	if (err == 0) {
		ck_assert_int_eq(n, 0);
	} else {
		ck_assert_int_eq(n, -1);
		ck_assert_int_eq(errno, err);
	}
}

static void put(int side, const void *data, size_t len)
{
	ck_assert_int_eq(
		send(peer[side], data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void on_rested(int revents, void *arg)
{
	*(bool *)arg = true;
}

/* Nothing wakes the loop but a timer (which it may look for too early). */
static void expect_rest(void)
{
	bool rested = false;
	int turns = 0;

	net_turn(loop, 10);
	ev_once(loop, -1, 0, 0.02, on_rested, &rested);
	do {
		ev_run(loop, EVRUN_ONCE);
		turns++;
	} while (!rested);
	ck_assert_int_le(turns, 3);
}

/* ---- bytes and ends of stream ---- */

START_TEST(both_directions)
{
	begin(_i);
	relay_run(relay);
	put(0, "ping", 4);
	expect_bytes(1, "ping", 4);
	put(1, "pong", 4);
	expect_bytes(0, "pong", 4);
	put(0, "again", 5);
	expect_bytes(1, "again", 5);
	ck_assert_int_eq(told.done[0] + told.done[1] + told.closed, 0);
	ck_assert_uint_eq(group.nr, 1);
	end_peers();
}
END_TEST

/* What was received before the relay existed comes first. */
START_TEST(fed_bytes_come_first)
{
	begin(_i);
	relay_feed(relay, 0, "early", 5);
	relay_feed(relay, 0, "", 0);
	relay_feed(relay, 1, "reply", 5);
	put(0, "late", 4);
	relay_run(relay);
	expect_bytes(1, "earlylate", 9);
	expect_bytes(0, "reply", 5);
	end_peers();
}
END_TEST

/* Each direction ends by itself; the other one goes on until it does. */
START_TEST(half_close)
{
	int first = _i % 2, combo = _i / 2;

	begin(combo);
	relay_run(relay);
	put(first, "question", 8);
	ck_assert_int_eq(shutdown(peer[first], SHUT_WR), 0);
	expect_bytes(!first, "question", 8);
	expect_end(!first, 0);
	ck_assert_int_eq(told.done[first], 1);
	ck_assert_int_eq(told.err[first], 0);
	ck_assert_uint_eq(told.bytes[first], 8);
	ck_assert_int_eq(told.done[!first], 0);
	expect_rest();
	put(!first, "answer", 6);
	expect_bytes(first, "answer", 6);
	put(!first, "more", 4);
	expect_bytes(first, "more", 4);
	ck_assert_int_eq(told.closed, 0);
	ck_assert_int_eq(shutdown(peer[!first], SHUT_WR), 0);
	wait_closed();
	expect_end(first, 0);
	ck_assert_int_eq(told.err[!first], 0);
	end_peers();
}
END_TEST

/* The end of stream is there before the relay is. */
START_TEST(half_close_before_start)
{
	begin(_i);
	put(0, "x", 1);
	ck_assert_int_eq(shutdown(peer[0], SHUT_WR), 0);
	ck_assert_int_eq(shutdown(peer[1], SHUT_WR), 0);
	relay_run(relay);
	expect_bytes(1, "x", 1);
	wait_closed();
	expect_end(1, 0);
	expect_end(0, 0);
	ck_assert_int_eq(told.err[0], 0);
	ck_assert_int_eq(told.err[1], 0);
	end_peers();
}
END_TEST

/* ---- back-pressure ---- */

/* Send until the relay takes no more. Return: bytes sent. */
static size_t fill(int side, const uint8_t *data, size_t len)
{
	size_t sent = 0;
	int idle = 0;

	while (sent < len && idle < 50) {
		ssize_t n =
			send(peer[side], data + sent, len - sent, MSG_NOSIGNAL);

		if (n > 0) {
			sent += (size_t)n;
			idle = 0;
		} else {
			ck_assert_int_eq(errno, EAGAIN);
			idle++;
		}
		net_turn(loop, 3);
	}
	return sent;
}

/* Small, but not so small that TCP falls into its delayed acknowledgements:
 * a segment on loopback has 64 KiB. */
static void small_buffers(void)
{
	int size = 128 * 1024;

	for (int side = 0; side < 2; side++) {
		setsockopt(
			peer[side], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		setsockopt(
			peer[side], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	}
}

/* A sink that does not read stops its source, the relay holds no more than a
 * scratch buffer, and every byte is there when the sink reads on. */
START_TEST(slow_sink)
{
	size_t size = STREAM, sent, before, after;
	uint8_t *data = malloc(size);

	net_pattern(data, size, 7);
	begin(_i);
	small_buffers();
	relay_run(relay);
	put(1, "z", 1);
	expect_bytes(0, "z", 1);
	before = heap();
	sent = fill(0, data, size);
	after = heap();
	ck_assert_uint_lt(sent, size); /* it did stop */
	ck_assert_uint_le(after - before, SCRATCH + 256);
	/* The other direction is not held up. */
	put(1, "y", 1);
	expect_bytes(0, "y", 1);
	ck_assert_int_eq(shutdown(peer[0], SHUT_WR), 0);
	expect_bytes(1, data, sent);
	expect_end(1, 0);
	ck_assert_int_eq(shutdown(peer[1], SHUT_WR), 0);
	wait_closed();
	ck_assert_uint_eq(told.bytes[0], sent);
	end_peers();
	free(data);
}
END_TEST

/* Streams in both directions against sinks that read in odd pieces. */
START_TEST(two_streams)
{
	const size_t size = ((size_t)3 << 20) + 17;
	size_t sent[2] = {0, 0}, got[2] = {0, 0};
	uint8_t *data[2], *in[2];
	uint32_t x = 1;
	double end = net_now() + WAIT_SECONDS;

	for (int side = 0; side < 2; side++) {
		data[side] = malloc(size);
		in[side] = malloc(size);
		net_pattern(data[side], size, (uint32_t)side + 3);
	}
	begin(_i);
	small_buffers();
	relay_run(relay);
	while ((got[0] < size || got[1] < size) && net_now() < end) {
		for (int side = 0; side < 2; side++) {
			size_t want = 1 + (x = x * 1103515245 + 12345) % 30000;
			size_t left = size - sent[side];
			ssize_t n;

			n = send(peer[side], data[side] + sent[side],
				want < left ? want : left, MSG_NOSIGNAL);
			if (n > 0 && (sent[side] += (size_t)n) == size)
				shutdown(peer[side], SHUT_WR);
			want = 1 + x / 7 % 30000;
			left = size - got[side];
			if (left == 0)
				continue;
			n = recv(peer[side], in[side] + got[side],
				want < left ? want : left, 0);
			if (n > 0)
				got[side] += (size_t)n;
		}
		net_turn(loop, 1);
	}
	for (int side = 0; side < 2; side++) {
		ck_assert_uint_eq(got[side], size);
		ck_assert_mem_eq(in[side], data[!side], size);
		expect_end(side, 0);
	}
	wait_closed();
	for (int side = 0; side < 2; side++) {
		free(data[side]);
		free(in[side]);
	}
	end_peers();
}
END_TEST

/* What is fed while the sink takes nothing is held, in order. */
START_TEST(fed_bytes_against_a_full_sink)
{
	uint8_t *data = malloc(FILL_MAX);
	uint8_t fed[1024];
	struct relay_sock sock[2];
	int pair[2][2];
	size_t full = 0;
	ssize_t n;

	net_pattern(data, FILL_MAX, 5);
	net_pattern(fed, sizeof(fed), 6);
	for (int side = 0; side < 2; side++) {
		family[side] = combos[_i][side];
		net_pair(family[side], pair[side]);
		peer[side] = pair[side][0];
		sock[side].fd = pair[side][1];
		sock[side].family = family[side];
	}
	small_buffers();
	while ((n = send(pair[1][1], data + full, 65536, 0)) > 0)
		full += (size_t)n;
	relay = relay_new(&group, sock, 1, &ops, &told);
	relay_feed(relay, 0, fed, 100);
	relay_feed(relay, 0, fed + 100, 900);
	relay_feed(relay, 0, fed + 1000, 24);
	put(0, "end", 3);
	relay_run(relay);
	expect_bytes(1, data, full);
	expect_bytes(1, fed, sizeof(fed));
	expect_bytes(1, "end", 3);
	end_peers();
	free(data);
}
END_TEST

/* ---- resets ---- */

static bool is_tcp(sa_family_t f)
{
	return f == AF_INET || f == AF_INET6;
}

/* Break @side's connection so that its family shows it. */
static void break_peer(int side)
{
	if (is_tcp(family[side])) {
		net_reset(peer[side]);
	} else {
		/* Bytes unread at close are a reset to the other end. */
		put(!side, "unread", 6);
		ck_assert(net_turn_until(loop, is_readable, &peer[side]));
		close(peer[side]);
	}
	peer[side] = -1;
}

START_TEST(reset_becomes_reset)
{
	int broken = _i % 2, combo = _i / 2;

	if (combos[combo][broken] == AF_VSOCK)
		return; /* knows no resets */
	begin(combo);
	relay_run(relay);
	put(broken, "last words", 10);
	expect_bytes(!broken, "last words", 10);
	break_peer(broken);
	wait_closed();
	ck_assert_int_ne(told.err[broken], 0);
	/* Nothing was unread on a unix socket, so it cannot tell. */
	expect_end(!broken, is_tcp(family[!broken]) ? ECONNRESET : 0);
	end_peers();
}
END_TEST

/* A unix peer learns of a reset if it had sent what nobody read. */
START_TEST(reset_shows_on_unix)
{
	uint8_t *data = malloc(STREAM);
	size_t sent;
	char c[4096];
	ssize_t n;

	net_pattern(data, STREAM, 9);
	begin(TCP_UNIX);
	small_buffers();
	relay_run(relay);
	sent = fill(1, data, STREAM);
	ck_assert_uint_lt(sent, STREAM);
	net_reset(peer[0]);
	peer[0] = -1;
	/* Its next write meets the reset, or the sweep does. */
	relay_abort(relay);
	wait_closed();
	while ((n = recv(peer[1], c, sizeof(c), 0)) > 0)
		;
	ck_assert_int_eq(n, -1);
	ck_assert_int_eq(errno, ECONNRESET);
	end_peers();
	free(data);
}
END_TEST

START_TEST(abort_resets_both)
{
	begin(TCP_TCP);
	relay_run(relay);
	relay_abort(relay);
	wait_closed();
	expect_end(0, ECONNRESET);
	expect_end(1, ECONNRESET);
	ck_assert_int_eq(told.err[0], ECONNABORTED);
	end_peers();
}
END_TEST

/* A peer answers and closes although more is coming: the answer arrives, its
 * end too, and what comes after is met by a reset. */
START_TEST(sink_gone_resets_the_source)
{
	int gone = _i % 2, combo = _i / 2;
	double end = net_now() + WAIT_SECONDS;
	ssize_t n;

	begin(combo);
	relay_run(relay);
	put(gone, "go away", 7);
	close(peer[gone]);
	peer[gone] = -1;
	expect_bytes(!gone, "go away", 7);
	expect_end(!gone, 0);
	/* Its end may be a half-close: nothing is broken off yet. */
	net_turn(loop, 10);
	ck_assert_int_eq(told.closed, 0);
	while (!told.closed && net_now() < end) {
		send(peer[!gone], "more", 4, MSG_NOSIGNAL);
		net_turn(loop, 2);
	}
	wait_closed();
	ck_assert_int_ne(told.err[!gone], 0);
	n = send(peer[!gone], "more", 4, MSG_NOSIGNAL);
	ck_assert_int_eq(n, -1);
	end_peers();
}
END_TEST

/* Bytes that were on their way when their sender's sink went are delivered
 * before the reset. */
START_TEST(answer_before_reset_is_delivered)
{
	uint8_t answer[3 * SCRATCH];

	net_pattern(answer, sizeof(answer), 4);
	begin(_i);
	put(1, answer, sizeof(answer));
	/* Side 1 is closed, all read. */
	close(peer[1]);
	peer[1] = -1;
	/* The first write will fail on unix, the second on TCP. */
	put(0, "x", 1);
	relay_run(relay);
	net_turn(loop, 2);
	send(peer[0], "x", 1, MSG_NOSIGNAL);
	expect_bytes(0, answer, sizeof(answer));
	end_peers();
}
END_TEST

/* ---- the sweep ---- */

/* A half-closed connection whose peers live is left alone. */
START_TEST(sweep_spares_the_living)
{
	int first = _i % 2, combo = _i / 2;
	double end;

	group.sweep_every = 0.01;
	group.gone_after = 0.05;
	begin(combo);
	relay_run(relay);
	ck_assert_int_eq(shutdown(peer[first], SHUT_WR), 0);
	expect_end(!first, 0);
	ck_assert(ev_is_active(&group.sweep));
	end = net_now() + 0.3;
	while (net_now() < end)
		net_turn(loop, 1);
	ck_assert_int_eq(told.closed, 0);
	put(!first, "still here", 10);
	expect_bytes(first, "still here", 10);
	end_peers();
}
END_TEST

/* Can these tests be run here? */
static bool has_combo(enum combo combo)
{
	return combo < VSOCK_TCP || net_has_vsock();
}

static const enum combo abandoned_combos[] = {
	UNIX_UNIX, UNIX_TCP, VSOCK_TCP, VSOCK_UNIX};
static const enum combo reset_combos[] = {TCP_UNIX, TCP_TCP, TCP_VSOCK};

/* A unix or vsock peer that closed altogether, while the other side stays half
 * open and silent, is given up after gone_after. */
START_TEST(sweep_ends_the_abandoned)
{
	double start;

	if (!has_combo(abandoned_combos[_i]))
		return;
	group.sweep_every = 0.01;
	group.gone_after = 0.1;
	begin(abandoned_combos[_i]);
	relay_run(relay);
	close(peer[0]);
	peer[0] = -1;
	expect_end(1, 0);
	start = net_now();
	wait_closed();
	ck_assert(net_now() - start > 0.05);
	ck_assert_int_eq(told.err[0], 0);
	ck_assert(!ev_is_active(&group.sweep) || list_empty(&group.watched));
	end_peers();
}
END_TEST

/* The same with bytes held for a side that does not read them: it is given more
 * time, and then a reset, for it has not had everything. */
START_TEST(sweep_ends_the_abandoned_unread)
{
	uint8_t *data;

	if (!has_combo(abandoned_combos[_i]))
		return;
	data = malloc(STREAM);
	net_pattern(data, STREAM, 2);
	group.sweep_every = 0.01;
	group.gone_after = 0.05;
	begin(abandoned_combos[_i]);
	small_buffers();
	relay_run(relay);
	ck_assert_uint_lt(fill(0, data, STREAM), STREAM);
	close(peer[0]);
	peer[0] = -1;
	wait_closed();
	ck_assert_int_eq(told.err[0], ETIMEDOUT);
	end_peers();
	free(data);
}
END_TEST

/* A TCP peer that ended its stream and then resets: seen by the sweep alone,
 * and passed on at once. */
START_TEST(sweep_sees_a_reset)
{
	if (!has_combo(reset_combos[_i]))
		return;
	group.sweep_every = 0.01;
	group.gone_after = 1000;
	begin(reset_combos[_i]);
	relay_run(relay);
	ck_assert_int_eq(shutdown(peer[0], SHUT_WR), 0);
	expect_end(1, 0);
	net_reset(peer[0]);
	peer[0] = -1;
	wait_closed();
	ck_assert_int_ne(told.err[1], 0);
	if (is_tcp(family[1])) {
		ck_assert_int_eq(send(peer[1], "x", 1, MSG_NOSIGNAL), -1);
		ck_assert(errno == ECONNRESET || errno == EPIPE);
	}
	end_peers();
}
END_TEST

/* The same where it is the slow sink that keeps the source unread. */
START_TEST(sweep_sees_a_reset_behind_a_brake)
{
	uint8_t *data;

	if (!has_combo(reset_combos[_i]))
		return;
	data = malloc(STREAM);
	net_pattern(data, STREAM, 2);
	group.sweep_every = 0.01;
	begin(reset_combos[_i]);
	small_buffers();
	relay_run(relay);
	fill(0, data, STREAM);
	net_reset(peer[0]);
	peer[0] = -1;
	wait_closed();
	ck_assert_int_ne(told.err[0], 0);
	end_peers();
	free(data);
}
END_TEST

/* And where a write had met the reset before the sweep did: the other side,
 * which is stuck in sending to nobody and so does not take what is held for it,
 * is not left so for ever. */
START_TEST(sweep_ends_a_deadlock)
{
	uint8_t *data;

	if (!has_combo(reset_combos[_i]))
		return;
	data = malloc(STREAM);
	net_pattern(data, STREAM, 2);
	group.sweep_every = 0.05;
	group.gone_after = 0.1;
	begin(reset_combos[_i]);
	small_buffers();
	relay_run(relay);
	fill(0, data, STREAM);
	net_turn(loop, 2);
	net_reset(peer[0]);
	peer[0] = -1;
	fill(1, data, STREAM);
	ck_assert_int_eq(told.closed, 0);
	wait_closed();
	ck_assert_int_ne(told.err[0], 0);
	ck_assert_int_ne(told.err[1], 0);
	end_peers();
	free(data);
}
END_TEST

/* ---- cost ---- */

/* User memory of an idle connection, libev's share included. */
START_TEST(idle_memory)
{
	enum { NR_IDLE = 200 };
	static int outer[NR_IDLE][2];
	size_t before = heap();
	size_t each;

	for (int i = 0; i < NR_IDLE; i++) {
		begin(0);
		relay_run(relay);
		put(0, "hello", 5);
		expect_bytes(1, "hello", 5);
		outer[i][0] = peer[0];
		outer[i][1] = peer[1];
	}
	each = (heap() - before) / NR_IDLE;
	printf("idle connection: struct relay %zu bytes, heap %zu bytes\n",
		relay_size(), each);
	ck_assert_uint_lt(relay_size(), 512);
	ck_assert_uint_lt(each, 1024);
	for (int i = 0; i < NR_IDLE; i++) {
		close(outer[i][0]);
		close(outer[i][1]);
	}
}
END_TEST

/* The scratch buffer changes hands instead of being copied, comes back, and
 * none is lost. */
START_TEST(big_leftovers)
{
	size_t size = STREAM, sent;
	uint8_t *data = malloc(size);

	teardown();
	setup_size(RELAY_BUFFER_DEFAULT);
	net_pattern(data, size, 7);
	begin(_i);
	relay_run(relay);
	for (int round = 0; round < 3; round++) {
		sent = fill(0, data, size);
		expect_bytes(1, data, sent);
	}
	ck_assert_uint_le(group.scratch.nr_spare, 1);
	end_peers();
	free(data);
}
END_TEST

#define NR(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
	Suite *s = suite_create("relay");
	TCase *tc = tcase_create("relay");
	int nr = net_has_vsock() ? NR_ALL_COMBOS : VSOCK_TCP;

	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, both_directions, 0, nr);
	tcase_add_loop_test(tc, fed_bytes_come_first, 0, nr);
	tcase_add_loop_test(tc, half_close, 0, 2 * nr);
	tcase_add_loop_test(tc, half_close_before_start, 0, nr);
	tcase_add_loop_test(tc, slow_sink, 0, nr);
	tcase_add_loop_test(tc, two_streams, 0, nr);
	tcase_add_loop_test(tc, fed_bytes_against_a_full_sink, 0, nr);
	tcase_add_loop_test(tc, reset_becomes_reset, 0, 2 * nr);
	tcase_add_test(tc, reset_shows_on_unix);
	tcase_add_test(tc, abort_resets_both);
	tcase_add_loop_test(tc, sink_gone_resets_the_source, 0, 2 * nr);
	tcase_add_loop_test(tc, answer_before_reset_is_delivered, 0, nr);
	tcase_add_loop_test(tc, sweep_spares_the_living, 0, 2 * nr);
	tcase_add_loop_test(
		tc, sweep_ends_the_abandoned, 0, NR(abandoned_combos));
	tcase_add_loop_test(
		tc, sweep_ends_the_abandoned_unread, 0, NR(abandoned_combos));
	tcase_add_loop_test(tc, sweep_sees_a_reset, 0, NR(reset_combos));
	tcase_add_loop_test(
		tc, sweep_sees_a_reset_behind_a_brake, 0, NR(reset_combos));
	tcase_add_loop_test(tc, sweep_ends_a_deadlock, 0, NR(reset_combos));
	tcase_add_test(tc, idle_memory);
	tcase_add_loop_test(tc, big_leftovers, 0, nr);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
