/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/real.h"
#include "preload/slot_impl.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* How long a reader or writer looks again while another one writes, which is
 * the matter of a tenth of a microsecond if it is not interrupted. If it is,
 * its thread may be off its processor for some milliseconds; a writer that this
 * thread's signal handler interrupted, or that fork() left behind, never ends.
 * Where others compute on this processor each yield may take milliseconds, and
 * fewer of them have to do.
 */
#define SPINS        50
#define YIELDS       1000
#define YIELDS_LEAST 30
#define PATIENCE_MS  100

static _Atomic(struct slot *) pages[SLOT_FDS / SLOTS_PER_PAGE];

struct slot *slot_find(int fd)
{
	struct slot *page;

	if ((unsigned int)fd >= SLOT_FDS)
		return NULL;
	page = atomic_load_explicit(&pages[(unsigned int)fd / SLOTS_PER_PAGE],
		memory_order_acquire);
	return page ? &page[(unsigned int)fd % SLOTS_PER_PAGE] : NULL;
}

/* Of two threads that map a page at the same time one wins and the other unmaps
 * its own. */
struct slot *slot_need(int fd)
{
	size_t size = SLOTS_PER_PAGE * sizeof(struct slot);
	struct slot *none = NULL;
	struct slot *page;
	int saved = errno;

	if ((unsigned int)fd >= SLOT_FDS)
		return NULL;
	if (slot_find(fd))
		return slot_find(fd);
	page = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page != MAP_FAILED &&
		!atomic_compare_exchange_strong(
			&pages[(unsigned int)fd / SLOTS_PER_PAGE], &none, page))
		munmap(page, size);
	errno = saved;
	return slot_find(fd);
}

uint64_t socket_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	int saved = errno;

	if (real()->getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == -1)
		cookie = 0;
	errno = saved;
	return cookie;
}

/* Acquire and release on each word keep them between the two looks at the
 * version, and cost nothing on x86. */
static void read_record(struct slot *slot, struct record *out)
{
	uint32_t words[RECORD_WORDS];

	for (size_t i = 0; i < RECORD_WORDS; i++)
		words[i] = atomic_load_explicit(
			&slot->words[i], memory_order_acquire);
	/* It takes the loop for one that may not run at all. */
	/* cppcheck-suppress uninitvar */
	memcpy(out, words, sizeof(*out));
}

static void write_record(struct slot *slot, const struct record *rec)
{
	uint32_t words[RECORD_WORDS];

	memcpy(words, rec, sizeof(words));
	for (size_t i = 0; i < RECORD_WORDS; i++)
		atomic_store_explicit(
			&slot->words[i], words[i], memory_order_release);
}

/* Each step spreads a word over all of the sum's bits. */
static uint32_t sum_of(
	uint64_t cookie, uint64_t other, const struct record *rec)
{
	static const uint64_t spread = 0x9e3779b97f4a7c15u; /* 2^64 / golden */
	uint64_t sum = (cookie * spread ^ other) * spread;
	uint32_t words[RECORD_WORDS];

	memcpy(words, rec, sizeof(words));
	for (size_t i = 0; i < RECORD_WORDS; i++)
		sum = (sum ^ sum >> 29 ^ words[i]) * spread;
	return (uint32_t)(sum >> 32);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/** struct patience - of one who waits; zero to begin with */
struct patience {
	int times;
	int64_t since;
};

/* Wait a little, longer from the SPINSth time on. sched_yield() is fit for
 * signal handlers. Return: false if it has lasted too long. */
static bool relax(struct patience *p)
{
	int yields = ++p->times - SPINS;

	if (yields <= 0)
		return true;
	if (yields == 1)
		p->since = now_ms();
	if (yields > YIELDS ||
		(yields > YIELDS_LEAST && now_ms() - p->since > PATIENCE_MS))
		return false;
	sched_yield();
	return true;
}

/* Return: an odd version, this writer's own. */
static uint32_t write_begin(struct slot *slot)
{
	struct patience patience = {0};

	for (;;) {
		uint32_t version = atomic_load(&slot->version);
		uint32_t mine = version | 1;

		if (version & 1) {
			if (relax(&patience))
				continue;
			mine += 2;
		}
		if (atomic_compare_exchange_weak(
			    &slot->version, &version, mine))
			return mine;
	}
}

/* Return: whether nobody overruled this writer meanwhile; if somebody did,
 * what is written now may be a mixture. */
static bool write_end(struct slot *slot, uint32_t mine)
{
	return atomic_compare_exchange_strong(&slot->version, &mine, mine + 1);
}

/* Read the record that goes with these cookies. Return: whether it is what one
 * writer has put there. */
static bool read_whole(
	struct slot *slot, uint64_t cookie, uint64_t other, struct record *out)
{
	uint32_t sum = atomic_load(&slot->sum);

	read_record(slot, out);
	return sum_of(cookie, other, out) == sum;
}

/* A writer that was overruled asks: has what it went on to write spoilt the
 * later record? If not, that one stays, because it is the later one. */
static bool spoilt(struct slot *slot)
{
	struct patience patience = {0};

	do {
		uint32_t version = atomic_load(&slot->version);
		struct record rec;
		bool whole = read_whole(slot, atomic_load(&slot->cookie),
			atomic_load(&slot->other), &rec);

		if (!(version & 1) && atomic_load(&slot->version) == version)
			return !whole;
	} while (relax(&patience));
	return true;
}

enum look { LOOK_OTHER, LOOK_FOUND, LOOK_MIXTURE };

/* Is the slot about this socket, and what kind is that one? */
static enum look look(struct slot *slot, uint64_t cookie, struct record *rec)
{
	uint64_t first = atomic_load(&slot->cookie);
	uint64_t second = atomic_load(&slot->other);

	if (first != cookie && second != cookie)
		return LOOK_OTHER;
	if (!read_whole(slot, first, second, rec))
		return LOOK_MIXTURE;
	if (first != cookie)
		rec->kind = rec->was;
	return LOOK_FOUND;
}

bool slot_load(int fd, uint64_t cookie, struct record *out)
{
	struct slot *slot = slot_find(fd);
	struct patience patience = {0};

	if (!slot || cookie == 0)
		return false;
	do {
		uint32_t version = atomic_load(&slot->version);
		struct record rec;
		enum look saw;

		if (version & 1)
			continue;
		saw = look(slot, cookie, &rec);
		if (atomic_load(&slot->version) != version ||
			saw == LOOK_MIXTURE)
			continue;
		if (saw == LOOK_FOUND)
			*out = rec;
		return saw == LOOK_FOUND;
	} while (relax(&patience));
	return false;
}

static bool no_stream(uint64_t cookie, uint8_t kind)
{
	return cookie != 0 && (kind == RECORD_GATE || kind == RECORD_BOUND ||
				      kind == RECORD_LISTENER);
}

/* Write all of a slot, between write_begin() and write_end(). */
static void put(struct slot *slot, uint64_t cookie, uint64_t other,
	const struct record *rec)
{
	atomic_store(&slot->cookie, cookie);
	atomic_store(&slot->other, other);
	write_record(slot, rec);
	atomic_store(&slot->sum, sum_of(cookie, other, rec));
	atomic_store(&slot->gate,
		no_stream(cookie, rec->kind) || no_stream(other, rec->was));
}

/* The other socket that a slot shall go on speaking of besides @cookie, and
 * its kind in rec->was. */
static uint64_t keep_other(
	struct slot *slot, uint64_t cookie, uint64_t before, struct record *rec)
{
	uint64_t first = atomic_load(&slot->cookie);
	uint64_t second = atomic_load(&slot->other);
	struct record now;

	read_record(slot, &now);
	rec->was = RECORD_NONE;
	if (before == 0 && first == cookie)
		before = second;
	else if (before == 0 && second == cookie)
		before = first;
	if (before == first)
		rec->was = now.kind;
	else if (before == second)
		rec->was = now.was;
	return before;
}

static bool store(
	int fd, uint64_t before, uint64_t cookie, const struct record *rec)
{
	struct slot *slot = slot_need(fd);
	struct record copy = *rec;
	uint32_t mine;

	if (!slot)
		return false;
	do {
		mine = write_begin(slot);
		put(slot, cookie, keep_other(slot, cookie, before, &copy),
			&copy);
	} while (!write_end(slot, mine) && spoilt(slot));
	return true;
}

bool slot_store(int fd, uint64_t cookie, const struct record *rec)
{
	return store(fd, 0, cookie, rec);
}

bool slot_succeed(
	int fd, uint64_t before, uint64_t cookie, const struct record *rec)
{
	return store(fd, before, cookie, rec);
}

uint32_t slot_version(int fd)
{
	struct slot *slot = slot_find(fd);

	return slot ? atomic_load(&slot->version) : 0;
}

bool slot_amend(
	int fd, uint64_t cookie, const struct record *rec, uint32_t version)
{
	struct slot *slot = slot_need(fd);
	struct record copy = *rec;

	if (!slot)
		return true;
	if (version & 1 || !atomic_compare_exchange_strong(
				   &slot->version, &version, version + 1))
		return false;
	put(slot, cookie, keep_other(slot, cookie, 0, &copy), &copy);
	if (write_end(slot, version + 1))
		return true;
	return spoilt(slot) && slot_store(fd, cookie, rec);
}

void slot_forget(int fd)
{
	static const struct record nothing;
	struct slot *slot = slot_find(fd);
	uint32_t mine;

	if (!slot)
		return;
	do {
		mine = write_begin(slot);
		put(slot, 0, 0, &nothing);
	} while (!write_end(slot, mine) && spoilt(slot));
}

/* Beyond the table, who knows? */
static bool is_beyond(int fd)
{
	return fd >= (int)SLOT_FDS;
}

int slot_find_cookie(uint64_t cookie, int from)
{
	for (unsigned int fd = (unsigned int)from; fd < SLOT_FDS; fd++) {
		struct slot *slot = slot_find((int)fd);

		if (!slot) /* none in its page */
			fd |= SLOTS_PER_PAGE - 1;
		else if (atomic_load(&slot->cookie) == cookie)
			return (int)fd;
	}
	return -1;
}

bool slot_known(int fd)
{
	struct slot *slot = slot_find(fd);

	return slot ? atomic_load(&slot->cookie) != 0 : is_beyond(fd);
}

bool slot_may_be_gate(int fd)
{
	struct slot *slot = slot_find(fd);

	return slot ? atomic_load_explicit(&slot->gate, memory_order_relaxed)
		    : is_beyond(fd);
}

void slot_not_gate(int fd, uint64_t cookie)
{
	struct slot *slot = slot_find(fd);
	struct record rec;
	uint32_t mine;

	if (!slot || !slot_may_be_gate(fd))
		return;
	do {
		uint64_t first, second;

		mine = write_begin(slot);
		first = atomic_load(&slot->cookie);
		second = atomic_load(&slot->other);
		if (!read_whole(slot, first, second, &rec))
			continue; /* its writer puts that right */
		if (first == cookie)
			put(slot, cookie, rec.kind == RECORD_GATE ? second : 0,
				&rec);
		else if (cookie == 0 || second != cookie)
			put(slot, 0, 0, &rec);
	} while (!write_end(slot, mine) && spoilt(slot));
}
