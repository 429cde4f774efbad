/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VENDOR_STAGE_H
#define TESTS_UNIT_VENDOR_STAGE_H

/*
 * A stage for the vendor's tests: a folder of its own, a host proxy whose
 * lines the test says itself, and front-ends. Everything fails the test that
 * uses it, and waits at most STAGE_PATIENCE_MS.
 */

#include "common/socks5.h"
#include "common/vendor_msg.h"
#include "vendor/config.h"

#include <sys/types.h>

#define STAGE_PATIENCE_MS 10000

/**
 * struct stage - one test's world
 * @dir:    a fresh folder of our own, mode 0755
 * @host:   socket of the host proxy, in @dir
 * @listener: it listens, or -1
 * @config: settings of a vendor that uses it, in the foreground
 */
struct stage {
	char dir[64];
	char host[108];
	int listener;
	struct vendor_config config;
};

void stage_open(struct stage *s);
void stage_close(struct stage *s);

/** stage_listen() - have a host proxy listen. Return: the listener */
int stage_listen(struct stage *s, int backlog);

/** stage_count_fds() - open fds of a process, 0 for this one */
int stage_count_fds(pid_t pid);

/** stage_parent() - of a process, or -1 if it is dead or gone */
pid_t stage_parent(pid_t pid);

/** stage_cpu_ticks() - CPU time that a process used so far */
long stage_cpu_ticks(pid_t pid);

/** stage_wait_exit() - reap a child. Return: its wait status */
int stage_wait_exit(pid_t pid);

/* ---- the host proxy's side ---- */

/** host_accept() - the next connection, blocking */
int host_accept(const struct stage *s);

/** host_take_hello() - read a whole greeting and request of CONNECT */
void host_take_hello(int peer, struct socks5_request *request);

/** host_answer() - method answer and a reply with 192.0.2.7:4242 */
void host_answer(int peer, enum socks5_reply reply);

/** host_serve() - accept, take the hello, answer. Return: the connection */
int host_serve(const struct stage *s, enum socks5_reply reply);

/** host_send() - all of it */
void host_send(int peer, const void *buf, size_t len);

/** host_expect_eof() - the other side closed without another byte */
void host_expect_eof(int peer);

/* ---- a front-end's side ---- */

/** front_connect() - a socket to the vendor as the library makes it */
int front_connect(const struct stage *s);

/** front_ask() - the same with a CONNECT to 198.51.100.1:80 in it */
int front_ask(const struct stage *s);

/** front_request() - the request of front_ask() */
void front_request(struct vendor_request *req);

/** front_poll() - poll for in and out. Return: revents, 0 upon time-out */
short front_poll(int gate, int timeout_ms);

/** front_result() - wait for the result and peek or take it */
void front_result(int gate, struct vendor_result *res, int *carrier, int flags);

#endif
