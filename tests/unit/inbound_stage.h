/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_INBOUND_STAGE_H
#define TESTS_UNIT_INBOUND_STAGE_H

/*
 * A stage for inbound ports: a real worker in a process of its own, a host
 * proxy with SOCKS5 BIND in the test's process, and front-ends that bind.
 *
 * The host proxy holds no real port: a "client" comes when the test says so.
 * It works only while the test waits for something, in host_turn(), which all
 * the waiting functions here call. Everything fails the test that uses it and
 * waits at most STAGE_PATIENCE_MS.
 */

#include "common/hold_name.h"
#include "vendor_stage.h"

#define HOST_CONNS 1200

enum conn_kind {
	CONN_NONE,
	CONN_HELLO,  /* its request is not whole yet */
	CONN_MUTE,   /* request whole, not answered: see struct host */
	CONN_HOLD,   /* holds a port by name */
	CONN_JOIN,   /* stands by for a port held by name */
	CONN_PLAIN,  /* stands by for a port of its own */
	CONN_PAIRED, /* has a client; the test reads and writes it */
};

struct conn {
	enum conn_kind kind;
	int fd;
	uint16_t port;
	struct hold_name name;
	size_t got;
	uint8_t in[3 + SOCKS5_REQUEST_MAX];
};

/**
 * struct host - the host proxy
 * @away:      does not listen
 * @mute:      answers no request
 * @by_name:   reply to each hold- name, 0 to hold the port
 * @plain, @plain6: reply to each plain BIND of 0.0.0.0 or ::, 0 to serve it
 * @join:      reply to each join- name, 0 to serve it
 * @next_port: what a request for any port gets; goes up by one each time
 * @holds, @joins, @plains, @plains6: requests seen, of the last those of ::
 */
struct host {
	bool away;
	bool mute;
	enum socks5_reply by_name;
	enum socks5_reply plain;
	enum socks5_reply plain6;
	enum socks5_reply join;
	uint16_t next_port;
	unsigned holds, joins, plains, plains6;
	struct conn conns[HOST_CONNS];
};

extern struct stage stage;
extern struct host host;

/** inbound_setup() - a listening host proxy; a fixture */
void inbound_setup(void);

/** inbound_teardown() - the worker must be idle, and end without a leak */
void inbound_teardown(void);

/** worker_start() - with the settings in @stage */
void worker_start(void);

/** worker_kill() - as the machine may; worker_start() begins another one */
void worker_kill(void);

/** worker_pid() - its process */
pid_t worker_pid(void);

/** worker_settle() - it has seen all that was sent before */
void worker_settle(void);

/** worker_freeze() - have it see nothing until worker_thaw() */
void worker_freeze(void);
void worker_thaw(void);

/** worker_fds() - how many more fds it has than when it was idle */
int worker_fds(void);

/* ---- the host proxy ---- */

/** host_turn() - serve what is there; wait for something at most so long */
void host_turn(int timeout_ms);

/** Wait until the condition holds */
#define UNTIL(condition)                                              \
 do {                                                                 \
  int turns_ = 0;                                                     \
  while (!(condition)) {                                              \
   ck_assert_msg(turns_++ < STAGE_PATIENCE_MS, "never: " #condition); \
   host_turn(1);                                                      \
  }                                                                   \
 } while (0)

/** host_stop() - die: all connections break, nobody listens */
void host_stop(void);

/** host_start() - listen again */
void host_start(void);

/** host_count() - connections of a kind, for a port or 0 for any */
int host_count(enum conn_kind kind, uint16_t port);

/** host_find() - the oldest one, or NULL */
struct conn *host_find(enum conn_kind kind, uint16_t port);

/** host_hang_up() - close a connection */
void host_hang_up(struct conn *conn);

/* The host's addresses, as clients reach them. */
#define HOST4 "203.0.113.5"
#define HOST6 "2001:db8:5::5"

#define HOST_REPLY2_LEN (2UL * SOCKS5_REPLY_V6_LEN)

/** host_reply2() - a second and a third reply. Return: their length, 44 */
size_t host_reply2(uint8_t *buf, const char *client, uint16_t port);

/**
 * host_client() - a client comes: pair it with a standby connection, waiting
 * for one if need be
 * @port:   of the host
 * @client: its address as text
 *
 * Return: the client's end, blocking; the caller's to close.
 */
int host_client(uint16_t port, const char *client, uint16_t client_port);

/* ---- front-ends ---- */

/** ip() - an address from text */
struct ip_port ip(const char *text, uint16_t port);

/** bind_request() - a BIND of that address */
void bind_request(struct vendor_request *req, const char *text, uint16_t port,
	unsigned flags);

/** front_send() - a new control with a request in it */
int front_send(const struct vendor_request *req);

/** front_more() - another request on it */
void front_more(int control, const struct vendor_request *req);

/** front_answer() - the next message without fd. Return: its status */
int front_answer(int control, enum vendor_op op, struct vendor_result *res);

/** front_bind() - bind. Return: the control, or -1 and errno */
int front_bind(const char *text, uint16_t port, unsigned flags,
	struct vendor_result *res);

/** front_listen() - listen on a control, which must succeed */
void front_listen(int control, int backlog);

/** front_serve() - bind to a port and listen, which must succeed */
int front_serve(const char *text, uint16_t port, unsigned flags);

/** front_accept() - the next client. Return: its fd */
int front_accept(int control, struct vendor_result *res);

/** front_pending() - is there something to read? */
bool front_pending(int control);

/** front_rejoin() - a control by REJOIN of what BIND answered */
int front_rejoin(const struct vendor_result *bound, unsigned flags);

/** expect_hang_up() - the vendor closes the control */
void expect_hang_up(int control);

/** expect_talk() - bytes go both ways between a client and an accepted fd */
void expect_talk(int client, int accepted);

#endif
