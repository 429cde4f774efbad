/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_RESOLV_CONF_H
#define RESOLV_RESOLV_CONF_H

/*
 * Reading and writing resolv.conf (resolv.conf(5)).
 *
 * Only nameserver lines are looked at, and whether the options have use-vc:
 * everything else is the libc's. The file is read up to a limit and may hold
 * anything.
 */

#include "common/sockaddr.h"

#include <stddef.h>

#define RESOLV_CONF_PATH "/etc/resolv.conf"
#define RESOLV_SERVERS   8                   /* libcs use 3, c-ares more */
#define RESOLV_SIZE_MAX  ((size_t)64 * 1024) /* bytes looked at */

enum resolv_file {
	RESOLV_PRESENT,
	RESOLV_MISSING,    /* no such file, nor a directory for it */
	RESOLV_DANGLING,   /* a symlink to nothing */
	RESOLV_UNREADABLE, /* there is something, errno says why not */
};

/**
 * struct resolv_conf - what a resolv.conf says
 * @servers:    in order; port 53; no scope
 * @nr_servers: at most RESOLV_SERVERS, more are left out
 * @nr_bad:     nameserver lines that hold no address (or one with a scope)
 * @use_vc:     "options use-vc"
 */
struct resolv_conf {
	struct ip_port servers[RESOLV_SERVERS];
	unsigned nr_servers;
	unsigned nr_bad;
	bool use_vc;
};

/**
 * resolv_conf_parse() - look at the text of a resolv.conf
 * @out:  always filled
 * @text: any bytes
 * @len:  how many
 */
void resolv_conf_parse(struct resolv_conf *out, const char *text, size_t len);

/**
 * resolv_conf_read() - look at a resolv.conf
 * @out:  always filled, empty unless RESOLV_PRESENT is returned
 * @path: of the file
 *
 * Return: what is there; errno is set for RESOLV_UNREADABLE (EINVAL for what
 * is not a regular file).
 */
enum resolv_file resolv_conf_read(struct resolv_conf *out, const char *path);

/**
 * resolv_conf_create() - put a file where there is none
 * @path:  what resolv_conf_read() said is missing or dangling
 * @state: what it said
 * @text:  NUL-terminated content
 *
 * The file appears whole or not at all. A dangling symlink itself is replaced:
 * the directory that it points into may not exist. A missing file that has
 * appeared meanwhile is left alone.
 *
 * Return: 0, or -1 and errno.
 */
int resolv_conf_create(
	const char *path, enum resolv_file state, const char *text);

/**
 * resolv_conf_rewrite() - the same file with other servers
 * @buf, @size: for the new text
 * @text, @len: the old text
 * @servers, @nr: nameserver lines to have
 *
 * All lines other than nameserver ones are kept as they are.
 *
 * Return: the length, or 0 if it does not fit.
 */
size_t resolv_conf_rewrite(char *buf, size_t size, const char *text, size_t len,
	const struct ip_port *servers, unsigned nr);

#endif
