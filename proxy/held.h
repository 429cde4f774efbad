/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_HELD_H
#define PROXY_HELD_H

/*
 * Memory for bytes on their way: where a read puts them, and where those stay
 * that the other side did not take.
 *
 * Theory of operation
 *
 * All relays of a loop read into one scratch buffer, because what is read is
 * nearly always passed on at once. What is left over is held, by the relay
 * alone, in one of two forms:
 *	small	a copy of exactly its size
 *	big	from 1/STEAL_PART of the scratch buffer on the buffer itself
 *		changes hands, and another takes its place: copying that much
 *		costs more than a buffer
 * Buffers that come back are kept for the next, up to SCRATCH_SPARES. So an
 * idle connection holds nothing, and one with a slow receiver at most one
 * buffer in each direction.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRATCH_SPARES 8

/**
 * struct scratch - of one loop
 * @buf:  @size bytes
 * @spare, @nr_spare: buffers of that size that nobody holds
 */
struct scratch {
	uint8_t *buf;
	size_t size;
	uint8_t *spare[SCRATCH_SPARES];
	unsigned int nr_spare;
};

/**
 * struct held - what is held; all zero if nothing is
 * @off, @len: where it starts in @buf, and how much it is
 * @big: @buf is of scratch size
 */
struct held {
	uint8_t *buf;
	uint32_t off;
	uint32_t len;
	bool big;
};

/** scratch_init() - Return: 0, or -1 and errno ENOMEM */
int scratch_init(struct scratch *scratch, size_t size);

/** scratch_free() - nothing big is held any more */
void scratch_free(struct scratch *scratch);

/**
 * held_set() - hold bytes
 * @held: empty
 * @data, @len: 1 to the scratch buffer's size. Where they are in that buffer,
 *        it may be another one after this
 *
 * Return: 0, or -1 without memory.
 */
int held_set(struct held *held, struct scratch *scratch, const uint8_t *data,
	size_t len);

/**
 * held_append() - hold more behind what is held already
 * @held: small, and nothing was taken from it
 *
 * Return: 0, or -1 without memory, and what was held is.
 */
int held_append(struct held *held, const uint8_t *data, size_t len);

/** held_take() - the first @n bytes are done with */
void held_take(struct held *held, struct scratch *scratch, size_t n);

/** held_drop() - let go of what is held, if anything is */
void held_drop(struct held *held, struct scratch *scratch);

#endif
