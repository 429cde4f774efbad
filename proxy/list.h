/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_LIST_H
#define PROXY_LIST_H

/*
 * Intrusive doubly linked lists. A list is a link that points to itself when
 * it is empty; an element embeds a link for each list it can be on. A link
 * that is on no list points to itself too, so that list_del() may be called
 * twice.
 */

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

/** list_of() - the object of type @type whose member @member is @link */
#define list_of(link, type, member) \
 ((type *)(void *)((char *)(link)-offsetof(type, member)))

/** list_init() - make an empty list, or a link that is on none */
static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

/** list_empty() - does the list have no element (is the link on none)? */
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/** list_add() - append @link, which is on no list */
static inline void list_add(struct list *l, struct list *link)
{
	link->prev = l->prev;
	link->next = l;
	l->prev->next = link;
	l->prev = link;
}

/** list_del() - take @link off whatever list it is on, if any */
static inline void list_del(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

#endif
