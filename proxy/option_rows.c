/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/mode.h"
#include "proxy/option_values.h"
#include "proxy/options.h"

#include <assert.h>
#include <string.h>

/*
 * The options in groups that several commands share, and which command has
 * which. Command line, configuration file, --help and, by a test, the manual
 * all go by these rows.
 */

/* ---- groups of options ---- */

static const struct opt socks5_opts[] = {
	{'l', "listen", "ENDPOINT",
		"listen on vsock:CID:PORT, unix:/path or tcp:HOST:PORT;\n"
		"may be given several times (default vsock:any:8888).\n"
		"vsock:CID:PORT-PORT is a range, for enclaves with\n"
		"thousands of connections",
		option_set_listen, true},
};

/* Short for --listen, on a command line only. */
static const struct opt reference_opts[] = {
	{'t', "tcp", NULL,
		"listen on TCP, on every IPv4 address of this host, instead\n"
		"of vsock",
		option_set_tcp},
	{'p', "port", "PORT", "port for -t or vsock (default 8888)",
		option_set_port},
};

static const struct opt vsock_listen_opts[] = {
	{'v', "vsock-addr", "CID:PORT",
		"listen on this vsock address; CID may be 'any'. Or an\n"
		"endpoint: unix:/path, tcp:HOST:PORT (required)",
		option_set_vsock},
};

static const struct opt vsock_target_opts[] = {
	{'v', "vsock-addr", "CID:PORT",
		"connect to this vsock address. Or an endpoint:\n"
		"vsock-mux:/path:PORT for a guest of Firecracker or Cloud\n"
		"Hypervisor, unix:/path, tcp:HOST:PORT (required)",
		option_set_vsock},
};

static const struct opt vsock_cid_opts[] = {
	{'v', "vsock", "CID",
		"connect to this machine, on the port that the client asked\n"
		"for. Or an endpoint without a port: vsock-mux:/path,\n"
		"unix:/path (the socket /path_PORT), tcp:HOST (required)",
		option_set_vsock},
};

static const struct opt ip_listen_opts[] = {
	{'i', "ip-addr", "IP:PORT",
		"listen on this TCP address; IPv6 in brackets. Or an\n"
		"endpoint: unix:/path, vsock:CID:PORT (required)",
		option_set_ip},
};

static const struct opt redirect_opts[] = {
	{'i', "ip-addr", "IP:PORT",
		"listen for redirected connections on this TCP address; IPv6\n"
		"in brackets (required)",
		option_set_ip},
	{0, "tproxy", NULL,
		"connections are redirected by TPROXY (default: by REDIRECT\n"
		"or DNAT); needs CAP_NET_ADMIN",
		option_set_tproxy},
};

static const struct opt ip_target_opts[] = {
	{'i', "ip-addr", "HOST:PORT",
		"connect to this TCP address; a name is looked up for each\n"
		"connection. Or an endpoint: unix:/path (required)",
		option_set_ip},
};

static const struct opt limit_opts[] = {
	{0, "max-connections", "N",
		"at the same time; others wait to be accepted (default 0:\n"
		"as many as there are file descriptors for)",
		option_set_max_connections},
	{0, "connect-timeout", "SECONDS",
		"for a destination to answer, name look-up included\n"
		"(default 60)",
		option_set_connect},
	{0, "idle-timeout", "SECONDS",
		"end connections on which nothing moves in either direction\n"
		"(default 0: never)",
		option_set_idle},
};

static const struct opt socks5_handshake_opts[] = {
	{0, "handshake-timeout", "SECONDS",
		"for a client to send its whole request (default 10)",
		option_set_handshake},
};

static const struct opt handshake_opts[] = {
	{0, "handshake-timeout", "SECONDS",
		"for what is expected ahead of the payload to arrive\n"
		"(default 10)",
		option_set_handshake},
};

static const struct opt proxyproto_opts[] = {
	{0, "proxy-protocol", "v1|v2",
		"send a PROXY protocol header of this version ahead of each\n"
		"connection (default: none)",
		option_set_send_proxyproto},
	{0, "accept-proxy-protocol", NULL,
		"expect a PROXY protocol header, of either version, at the\n"
		"head of each connection (default: none is looked for)",
		option_set_accept_proxyproto},
};

static const struct opt rule_opts[] = {
	{0, "allow", "RULE",
		"let clients connect to CIDR, CIDR:PORT or CIDR:PORT-PORT\n"
		"([IPV6]/LENGTH:PORT). The first of all --allow and --deny\n"
		"that matches decides; if none does, the destination is\n"
		"denied where any --allow was given",
		option_set_allow, true},
	{0, "deny", "RULE", "refuse destinations, as above", option_set_deny,
		true},
};

/* Ports of this host for servers of an enclave: one for the whole process. */
static const struct opt export_opts[] = {
	{0, "bind-address", "ADDR",
		"address of this host on which servers of an enclave are\n"
		"reached; may be given several times (default: any, of both\n"
		"families)",
		option_set_bind_address, true},
	{0, "allow-bind", "PORTS",
		"ports of this host that they may use: all, none, or\n"
		"80,443,8000-8999; several lists add up (default all)",
		option_set_allow_bind, true},
	{0, "publish", "ENCLAVE:HOST",
		"a server on port ENCLAVE is reached on port HOST; may be\n"
		"given several times (default: on the same port)",
		option_set_publish, true},
	{0, "accept-queue", "N",
		"clients of such a port that may wait for a connection from\n"
		"the enclave (default 1024)",
		option_set_accept_queue},
};

static const struct opt process_opts[] = {
	{'b', "buffer_size", "BYTES",
		"most that is moved at once, and held for a slow receiver\n"
		"(default 262144)",
		option_set_buffer_size},
	{'w', "workers", "N", "threads (default: the number of processors)",
		option_set_workers},
	{0, "drain", "SECONDS",
		"on SIGTERM or SIGINT, time for streams to finish; a second\n"
		"signal ends them at once (default 10)",
		option_set_drain},
	{0, "resolv-conf", "FILE",
		"name servers of this host (default /etc/resolv.conf)",
		option_set_resolv_conf},
	{0, "log", "LEVEL", "error, warn, info or debug (default info)",
		option_set_log},
};

static const struct opt run_opts[] = {
	{'c', "config", "FILE",
		"the listeners and their options; read again on SIGHUP\n"
		"(required)",
		option_set_config},
};

static const struct opt info_opts[] = {
	{'h', "help", NULL, "print this text", option_set_help},
	{'V', "version", NULL, "print the version", option_set_version},
};

struct rows {
	struct opt *row;
	size_t nr;
};

#define ADD(rows, group) \
 add_rows(rows, group, sizeof(group) / sizeof((group)[0]))

static void add_rows(struct rows *rows, const struct opt *group, size_t nr)
{
	assert(rows->nr + nr <= OPTIONS_ROWS_MAX);
	memcpy(rows->row + rows->nr, group, nr * sizeof(*group));
	rows->nr += nr;
}

/* The two ends of a forward, in the order of its name. */
static void add_ends(struct rows *rows, const struct mode *mode)
{
	if (mode->from_vsock) {
		ADD(rows, vsock_listen_opts);
		if (mode->reach == REACH_TARGET)
			ADD(rows, ip_target_opts);
		return;
	}
	if (mode->learn == LEARN_REDIRECT)
		ADD(rows, redirect_opts);
	else
		ADD(rows, ip_listen_opts);
	if (mode->reach == REACH_PORT)
		ADD(rows, vsock_cid_opts);
	else
		ADD(rows, vsock_target_opts);
}

static void add_listener_rows(
	struct rows *rows, const struct mode *mode, bool command_line)
{
	if (mode->learn == LEARN_SOCKS5) {
		ADD(rows, socks5_opts);
		if (command_line)
			ADD(rows, reference_opts);
		ADD(rows, socks5_handshake_opts);
	} else {
		add_ends(rows, mode);
		ADD(rows, proxyproto_opts);
		ADD(rows, handshake_opts);
	}
	ADD(rows, limit_opts);
	if (mode->learn == LEARN_SOCKS5 || mode->learn == LEARN_PREFIX)
		ADD(rows, rule_opts);
}

size_t options_rows(
	const struct mode *mode, unsigned int which, struct opt *row)
{
	struct rows rows = {.row = row};
	bool command_line = which == (OPTIONS_OF_LISTENER | OPTIONS_OF_PROCESS);

	if (mode && (which & OPTIONS_OF_LISTENER))
		add_listener_rows(&rows, mode, command_line);
	/* Those of `run` are in the file. */
	if (!mode && command_line) {
		ADD(&rows, run_opts);
	} else if (which & OPTIONS_OF_PROCESS) {
		if (!mode || mode->learn == LEARN_SOCKS5)
			ADD(&rows, export_opts);
		ADD(&rows, process_opts);
	}
	if (command_line)
		ADD(&rows, info_opts);
	return rows.nr;
}
