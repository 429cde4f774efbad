/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/vendor_msg.h"
#include "vendor/gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The first byte of the input says what the rest is:
 *
 *	result   a result as the library gets it. Whatever passes the check
 *	         must be fit to act on
 *	raw      a message to a gate of the vendor
 *	patched  a valid request with the rest laid over it from some offset on,
 *	         to get past the magic
 *
 * Messages go to the real gate code over a socket pair. It must answer what it
 * does not like with EPROTO, and answer everything else too, since the host
 * proxy is a socket that does not exist; but for the two that wait for a host
 * proxy. Nothing may be left open once the front-end has gone. The request's
 * own endpoint is always empty: a fuzzer must not be given the means to connect
 * to wherever it likes.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TURNS 16 /* of the loop: many more than any answer takes */

/* assert() goes away under NDEBUG; a broken property here never does. */
static void must(bool holds)
{
	if (!holds)
		abort();
}

/* ---- results ---- */

static void fuzz_result(const uint8_t *data, size_t size)
{
	struct vendor_result *res = malloc(size ? size : 1);

	must(res != NULL);
	memcpy(res, data, size);
	for (int nr_fds = 0; nr_fds < 3; nr_fds++) {
		if (vendor_result_check(res, size, nr_fds))
			continue;
		must(size == sizeof(*res));
		must(res->status >= 0);
		must(nr_fds == (res->op == VENDOR_CONNECT && !res->status));
	}
	free(res);
}

/* ---- requests ---- */

struct vendor {
	struct ev_loop *loop;
	struct vendor_config config;
	struct gates *gates;
};

static void on_freed(void *arg)
{
}

static struct vendor *the_vendor(void)
{
	static struct vendor vendor;

	if (vendor.gates)
		return &vendor;
	log_init("fuzz", LOG_ERROR, STDERR_FILENO);
	vendor.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	must(vendor.loop != NULL);
	vendor.config.own_uid = geteuid();
	vendor.config.request_timeout = 10;
	must(endpoint_parse(&vendor.config.endpoint, "unix:/nonexistent/x") ==
		NULL);
	vendor.gates =
		gates_new(vendor.loop, &vendor.config, on_freed, &vendor);
	must(vendor.gates != NULL);
	return &vendor;
}

/* Turn the loop until the answer is there. Return: its length, 0 for none. */
static ssize_t await_answer(
	struct vendor *v, int front, struct vendor_result *res)
{
	int carrier, nr_fds;

	for (int i = 0; i < TURNS; i++) {
		ssize_t n = fd_recv(front, res, sizeof(*res), &carrier, &nr_fds,
			MSG_DONTWAIT);

		must(nr_fds == 0);
		if (n >= 0)
			return n;
		ev_run(v->loop, EVRUN_NOWAIT);
	}
	return 0;
}

/* A valid request whose answer waits for a host proxy. */
static bool waits(const struct vendor_request *req)
{
	return req->op == VENDOR_REJOIN ||
	       (req->op == VENDOR_BIND && req->timeout_ms);
}

static void fuzz_request(const void *message, size_t size)
{
	const char *why = vendor_request_check(message, size);
	struct vendor *v = the_vendor();
	struct vendor_result res;
	ssize_t n;
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC,
		     0, ends) == 0);
	must(fd_send(ends[0], message, size, -1, 0) == (ssize_t)size);
	gate_open(v->gates, ends[1]);
	n = await_answer(v, ends[0], &res);
	if (n) {
		must(n == sizeof(res));
		must((res.status == EPROTO) == (why != NULL));
	} else {
		must(!why && waits(message));
	}
	closefd(&ends[0]);
	for (int i = 0; i < TURNS && gates_count(v->gates); i++)
		ev_run(v->loop, EVRUN_NOWAIT);
	must(gates_count(v->gates) == 0);
}

/* @mode: the offset in steps of 4. */
static void fuzz_patched(uint8_t mode, const uint8_t *data, size_t size)
{
	struct vendor_request req;
	size_t at = (size_t)mode * 4 % sizeof(req);

	vendor_request_init(&req, VENDOR_CONNECT);
	req.dst.family = AF_INET;
	if (size > sizeof(req) - at)
		size = sizeof(req) - at;
	memcpy((uint8_t *)&req + at, data, size);
	req.endpoint[0] = '\0';
	fuzz_request(&req, sizeof(req));
}

static void fuzz_raw(const uint8_t *data, size_t size)
{
	struct vendor_request *req = malloc(size ? size : 1);

	must(req != NULL);
	memcpy(req, data, size);
	if (size == sizeof(*req))
		req->endpoint[0] = '\0';
	fuzz_request(req, size);
	free(req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	switch (data[0] % 3) {
	case 0: fuzz_result(data + 1, size - 1); break;
	case 1: fuzz_raw(data + 1, size - 1); break;
	default: fuzz_patched(data[1], data + 2, size - 2); break;
	}
	return 0;
}
