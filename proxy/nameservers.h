/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_NAMESERVERS_H
#define PROXY_NAMESERVERS_H

/*
 * The name servers that this host itself uses, out of its resolv.conf.
 *
 * Theory of operation
 *
 * A client that wants to speak DNS with the host's resolver (the DNS stub of
 * an enclave) cannot know its address, and connects to the reserved name
 * RESOLVER_NAME, port 53, instead. It is never looked up: it stands for the
 * servers listed here, tried in turn. A server may take connections and not
 * answer, which only the client can see: it goes on to "2." RESOLVER_NAME, and
 * to "3.", which begin with the second and third server, counted in a circle.
 *
 * As in libc: at most NAMESERVERS_MAX `nameserver` lines count, lines that
 * cannot be read are ignored, and without any there is one on 127.0.0.1. The
 * file is read again when it is not the one read last (its inode, size or
 * time of change differ).
 *
 * `options timeout:N` and `attempts:N` are read too, with libc's defaults and
 * limits, because c-ares does not know them before 1.19.
 */

#include "common/sockaddr.h"

#include <sys/stat.h>

#define RESOLVER_NAME   "resolver.proxy.internal"
#define RESOLVER_PORT   53
#define NAMESERVERS_MAX 3 /* MAXNS of resolv.h */

/**
 * struct file_stamp - tells one content of a file from another
 * Zero for a file that cannot be looked at.
 */
struct file_stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime;
};

struct nameservers {
	const char *path;
	struct file_stamp stamp;
	struct ip_port addr[NAMESERVERS_MAX];
	size_t nr;
	unsigned int timeout; /* seconds for each attempt */
	unsigned int attempts;
};

/** file_stamp() - that of @path now */
struct file_stamp file_stamp(const char *path);

/** file_stamp_equal() - the same content? */
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

/** nameservers_init() - @path stays the caller's; read at first use */
void nameservers_init(struct nameservers *ns, const char *path);

/**
 * nameservers_get() - the servers as of now
 * @ns:  read again if the file changed
 * @out: set to @nr addresses with port 53, valid until the next call
 *
 * Return: how many, at least 1.
 */
size_t nameservers_get(struct nameservers *ns, const struct ip_port **out);

/**
 * is_resolver_name() - RESOLVER_NAME in any case, with or without a dot?
 * @first: if so, set to the index of the server to begin with, counted in a
 *         circle
 */
bool is_resolver_name(const char *name, size_t *first);

#endif
