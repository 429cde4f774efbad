/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_DNS_STAGE_H
#define TEST_DNS_STAGE_H

/*
 * The stub between real clients' sockets and fake servers, all on one loop.
 * Deadlines are short; descriptors are counted before and after each test.
 */

#include "resolv/dns_stub.h"
#include "test_dns_fake.h"
#include "test_dns_wire.h"

#define DEADLINE 1.5
#define QUICK    0.4 /* seconds: less than an attempt at a dead server */
#define PATIENT  8.0 /* seconds: longer is a failure */

extern struct ev_loop *loop;
extern struct dns_stub *stub;
extern struct dns_stub_config config; /* change it before start() */
extern struct fake fakes[3];
extern struct socks5_addr servers[3];
extern unsigned nr_fakes, nr_servers;
extern struct ip_port at;  /* the stub's address */
extern struct wire q, a;   /* the last query and the last answer */
extern const int types[2]; /* SOCK_DGRAM, SOCK_STREAM */

/* A checked fixture. */
void setup(void);
void teardown(void);

/** server() - one more server for the stub, on 127.0.0.1 */
struct fake *server(enum fake_manner manner);

/** black_hole() - one more that connecting to leads nowhere */
void black_hole(void);

/** start() - the stub, with the servers so far */
void start(void);

/** turn() - the loop, for at most a moment */
void turn(void);

void turn_for(double seconds);

/** wait_readable() - or closed. Return: the seconds it took */
double wait_readable(int sock);

/** client() - a socket connected to the stub; client_at() to one address */
int client(int type);
int client_at(int type, const struct ip_port *where);

/** put() - send @q */
void put(int sock, int type);

/** get() - take an answer into @a. Return: the seconds it took to come */
double get(int sock, int type);

/** ask() - build, send, and take the answer. Return: as get() */
double ask(int sock, int type, unsigned id, const char *name);

/** ask_once() - the same over UDP on a socket of its own */
double ask_once(const char *name);

/** rcode() - of @a */
unsigned rcode(void);

/** is_answer() - is @a the answer to @q? */
bool is_answer(void);

/** is_error() - is @a this error in answer to @q? */
bool is_error(unsigned code);

/** next_query_works() - with another name each time */
void next_query_works(void);

#endif
