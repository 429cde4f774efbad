/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

/*
 * A circular doubly linked list, its links inside the objects. Not
 * <sys/queue.h>, which musl does not have.
 *
 * A link is either in a list or points at itself, so that list_del() may be
 * called on both and an empty head is a link that points at itself.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next;
	struct list *prev;
};

/** list_init() - an empty head, or a link that is in no list */
static inline void list_init(struct list *l)
{
	l->next = l;
	l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/** list_add_tail() - put @l, which is in no list, at the end of @head */
static inline void list_add_tail(struct list *head, struct list *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/** list_del() - take @l out of whatever list it is in, if any */
static inline void list_del(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

/** list_pop() - take the first link out of @head, which is not empty */
static inline struct list *list_pop(struct list *head)
{
	struct list *l = head->next;

	list_del(l);
	assert(l != head && head->next != l);
	return l;
}

/** list_entry() - the object of type @type whose member @member is @ptr */
#define list_entry(ptr, type, member) \
 ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* The body may take @pos out of the list, but no other link. */
#define list_foreach_safe(pos, tmp, head)                         \
 for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	 (pos) = (tmp), (tmp) = (pos)->next)

#endif
