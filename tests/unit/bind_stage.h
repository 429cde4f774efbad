/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_BIND_STAGE_H
#define TESTS_UNIT_BIND_STAGE_H

/*
 * A stage for the tests of exported ports: real workers in threads, listening
 * on a unix socket in a folder of their own and on loopback TCP; the test is
 * the enclave and the clients of the host, with blocking sockets that time
 * out. Everything fails the test that uses it.
 */

#include "common/hold_name.h"
#include "common/socks5.h"
#include "proxy/bind_policy.h"
#include "proxy/worker.h"

#include "tempdir.h"

#define STAGE_WORKERS 3

#define KEY_A "00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100"

/**
 * struct bind_stage - one test's world
 * @policy, @budget: changed between bind_stage_open() and bind_stage_start()
 * @fds: open before the workers were made
 */
struct bind_stage {
	char dir[TEMPDIR_LEN];
	struct bind_policy policy;
	struct fd_budget budget;
	struct listener *listener[2]; /* unix, TCP */
	struct worker_config config;
	struct worker *worker[STAGE_WORKERS];
	int fds;
};

void bind_stage_open(struct bind_stage *s);
void bind_stage_start(struct bind_stage *s);

/** bind_stage_close() - end the workers; nothing may have leaked */
void bind_stage_close(struct bind_stage *s);

/** count_fds() - of this process */
int count_fds(void);

/* ---- the enclave's side ---- */

/** stage_dial() - a connection over the unix socket */
int stage_dial(const struct bind_stage *s);

/** stage_dial_tcp() - the same over TCP, from 127.0.0.@host */
int stage_dial_tcp(const struct bind_stage *s, uint8_t host);

/** put() - send all of it */
void put(int fd, const void *buf, size_t len);

/** expect() - receive exactly these bytes */
void expect(int fd, const void *buf, size_t len);

/** expect_silence() - nothing has come, and the connection is open */
void expect_silence(int fd);

/** expect_end() - the connection ends, with or without a reset; closes @fd */
void expect_end(int fd);

/** expect_open() - a byte goes through from one to the other, and back */
void expect_open(int one, int other);

/** ask_bytes() - greeting and a request in wire format. Return: reply code,
 * and *port from the first reply */
int ask_bytes(int fd, const void *request, size_t len, uint16_t *port);

/** plain() - ask for a port by plain BIND of 0.0.0.0. Return: reply code */
int plain(int fd, uint16_t *port);

/** plain6() - the same with :: */
int plain6(int fd, uint16_t *port);

/** ask_name() - BIND of NAME.proxy.internal. Return: reply code */
int ask_name(int fd, const char *name, uint16_t *port);

/** hold() - a connection that holds a port. @what: "46-" KEY, and so on */
int hold(const struct bind_stage *s, const char *what, uint16_t *port);

/** join(), meet() - a standby connection */
int join(const struct bind_stage *s, const char *key, uint16_t port);
int meet(const struct bind_stage *s, const char *key, uint16_t port);

/** refused() - ask with a name, be refused with @reply */
void refused(
	const struct bind_stage *s, const char *name, uint16_t port, int reply);

/* ---- the host's side ---- */

/** reach() - connect to a port of the host. Return: fd, or -1 and errno */
int reach(sa_family_t family, uint16_t port);

/** reached() - the same, and it works */
int reached(sa_family_t family, uint16_t port);

/** expect_second() - the second reply names @client's own address */
void expect_second(int standby, int client);

/** expect_third() - and the third one the address that it reached */
void expect_third(int standby, int client);

/** break_off() - close with a reset */
void break_off(int fd);

/** free_port() - one that nobody has in either family */
uint16_t free_port(void);

#endif
