/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_RESOLV_PLAN_H
#define RESOLV_RESOLV_PLAN_H

/*
 * What to do about names before a program is started: `--resolv`.
 *
 * Theory of operation
 *
 * resolv_prepare() looks at resolv.conf and at the machine, does what has to
 * be done to both, and says what the vendor's DNS stub shall listen on and
 * whom it shall ask. It is on 127.0.0.1 and ::1 in any case, and:
 *
 *	resolv.conf	        what is done             who is asked
 *	missing, dangling       created: 127.0.0.1       the host's resolver
 *	no or loopback servers  left; listen there       the host's resolver
 *	other servers           left; listen *there*     those servers
 *
 * A user's own file stays as it is, byte for byte. For the stub to answer on a
 * server's address, the address is put on `lo` (CAP_NET_ADMIN), or else the
 * program gets a changed copy of the file mounted over it in a mount namespace
 * of its own (CAP_SYS_ADMIN). Without either right the caller is told what is
 * missing.
 *
 * Only an address that no route leads to may be put on `lo`: otherwise this
 * would cut the whole machine off from its DNS server. In a machine that can
 * reach the servers in its resolv.conf, or has servers on loopback there and a
 * route to the world, `auto` leaves names alone altogether.
 *
 * modes
 *	auto	as above; where the stub may not listen on port 53, as use-vc
 *	stub	as above, or fail
 *	use-vc	no stub: libcs are told to use TCP, which the preloaded library
 *		covers where the libc's calls can be (glibc before 2.34)
 *	keep	nothing is touched
 *
 * Nothing here is undone when the program ends: all of it is right for the
 * enclave as a whole.
 */

#include "resolv/dns_stub.h"
#include "resolv/resolv_conf.h"
#include "resolv/servers.h"

enum resolv_mode {
	RESOLV_AUTO,
	RESOLV_STUB,
	RESOLV_USE_VC,
	RESOLV_KEEP,
};

/**
 * struct resolv_options - what the user wants
 * @mode:       --resolv
 * @servers:    --dns: ask these, whatever resolv.conf says
 * @nr_servers: 0 without --dns
 * @path:       of resolv.conf; NULL for the usual one
 */
struct resolv_options {
	enum resolv_mode mode;
	struct socks5_addr servers[DNS_SERVERS_MAX];
	unsigned nr_servers;
	const char *path;
};

#define RESOLV_MESSAGE_MAX 512
#define RESOLV_LIST_MAX    ((size_t)DNS_LISTEN_MAX * DNS_SERVER_STRLEN)

/**
 * struct resolv_plan - what is left to do
 * @kept:         nothing was touched, and nothing shall be
 * @stub:         the vendor shall run the stub
 * @use_vc:       set RES_OPTIONS, see resolv_env()
 * @private_conf: call resolv_enter() in the process that becomes the program
 * @listen:       where the stub shall listen, 127.0.0.1 first, ::1 last if
 *                there is one
 * @servers:      whom it shall ask
 * @message:      one line for the user, or empty: why it failed, or what will
 *                not work
 */
struct resolv_plan {
	bool kept;
	bool stub;
	bool use_vc;
	bool private_conf;
	struct ip_port listen[DNS_LISTEN_MAX];
	unsigned nr_listen;
	struct socks5_addr servers[DNS_SERVERS_MAX];
	unsigned nr_servers;
	const char *path;
	char message[RESOLV_MESSAGE_MAX];
};

/**
 * resolv_mode_parse() - "auto", "stub", "use-vc" or "keep"
 *
 * Return: 0 and *out set, or -1.
 */
int resolv_mode_parse(const char *text, enum resolv_mode *out);

/**
 * resolv_prepare() - prepare this machine for programs that look up names
 * @plan:    always filled
 * @options: the user's
 *
 * Call it when `lo` is up and before the vendor is started.
 *
 * Return: 0, with a warning in @plan->message or none; or -1 and the reason in
 * @plan->message, if what the user asked for explicitly cannot be had.
 */
int resolv_prepare(
	struct resolv_plan *plan, const struct resolv_options *options);

/**
 * resolv_served() - does the stub answer where the plan has it?
 * @plan:    of resolv_prepare()
 * @missing: if not, the first address where nobody listens
 *
 * A vendor that was there before may have been started with another plan, or
 * not have got the port.
 */
bool resolv_served(const struct resolv_plan *plan, struct ip_port *missing);

/**
 * resolv_enter() - give this process its own resolv.conf, if @plan says so
 * @plan: of resolv_prepare()
 *
 * Moves the calling process into a mount namespace of its own: call it after
 * the vendor was started, in the process that becomes the program.
 *
 * Return: 0, or -1 and errno.
 */
int resolv_enter(const struct resolv_plan *plan);

/**
 * resolv_plan_listen() - the addresses as --dns-listen takes them
 * @buf:  RESOLV_LIST_MAX bytes always suffice
 *
 * Return: @buf.
 */
const char *resolv_plan_listen(
	const struct resolv_plan *plan, char *buf, size_t size);

/** resolv_plan_addresses() - the same without the port, which is 53 */
const char *resolv_plan_addresses(
	const struct resolv_plan *plan, char *buf, size_t size);

/** resolv_plan_servers() - the servers as --dns takes them; likewise */
const char *resolv_plan_servers(
	const struct resolv_plan *plan, char *buf, size_t size);

/**
 * resolv_env() - the value of RES_OPTIONS that asks for use-vc
 * @old:  the present one, or NULL
 * @buf:  filled if @old does not ask for it yet
 * @size: of @buf; strlen(@old) + 8 suffices
 *
 * Return: @buf or @old, or NULL if @buf is too small.
 */
const char *resolv_env(const char *old, char *buf, size_t size);

#endif
