/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_CONFIG_H
#define VENDOR_CONFIG_H

/*
 * What the command line and the environment say, checked whole before
 * anything acts on it. The command line wins over the environment.
 */

#include "common/endpoint.h"
#include "common/log.h"
#include "resolv/dns_stub.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CONFIG_ALLOW_MAX       64
#define CONFIG_GATES_DEFAULT   65536
#define CONFIG_REQUEST_TIMEOUT 10.0
#define CONFIG_POOL_LOW        2
#define CONFIG_POOL_HIGH       64
#define CONFIG_POOL_MAX        4096
#define CONFIG_EXPORTS_DEFAULT 4096

/**
 * struct vendor_config - one run's settings
 * @path:      the vendor's socket, absolute
 * @endpoint:  the host proxy, numeric
 * @log_level: threshold
 * @log_file:  where the daemon logs; unused with @foreground
 * @foreground: neither detach nor log to a file
 * @own_uid:   the vendor's own
 * @allow_any: serve every uid
 * @allow:     uids to serve besides root and the vendor's own
 * @max_gates: most connections of front-ends at a time
 * @pool_low, @pool_high: idle standby connections for each inbound port
 * @max_exports: most listeners of programs at a time
 * @no_mirror: do not serve the enclave's own clients of wildcard ports
 * @request_timeout: seconds for a front-end that connected to say something
 * @dns_listen: where the DNS stub answers; none: there is no stub
 * @dns_sockets: open for @dns_listen, by the supervisor for all its workers;
 *              none: a worker opens its own
 * @dns_servers: whom it asks
 */
struct vendor_config {
	char path[ENDPOINT_PATH_MAX + 1];
	struct endpoint endpoint;
	enum log_level log_level;
	char log_file[PATH_MAX];
	bool foreground;
	uid_t own_uid;
	bool allow_any;
	uid_t allow[CONFIG_ALLOW_MAX];
	size_t nr_allow;
	size_t max_gates;
	unsigned pool_low;
	unsigned pool_high;
	size_t max_exports;
	bool no_mirror;
	double request_timeout;
	struct ip_port dns_listen[DNS_LISTEN_MAX];
	unsigned nr_dns_listen;
	struct dns_socket dns_sockets[DNS_LISTEN_MAX];
	unsigned nr_dns_sockets;
	struct socks5_addr dns_servers[DNS_SERVERS_MAX];
	unsigned nr_dns_servers;
};

enum config_verdict {
	CONFIG_RUN,   /* go on */
	CONFIG_DONE,  /* --help or --version was answered: exit 0 */
	CONFIG_WRONG, /* a line on stderr says what: exit 2 */
};

/**
 * config_read() - command line and environment
 * @config:     filled if the verdict is CONFIG_RUN
 * @argc, @argv: of main()
 */
enum config_verdict config_read(
	struct vendor_config *config, int argc, char **argv);

/** config_allows() - may a process of this uid use the vendor? */
bool config_allows(const struct vendor_config *config, uid_t uid);

#endif
