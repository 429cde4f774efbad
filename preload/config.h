/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONFIG_H
#define PRELOAD_CONFIG_H

/*
 * What the environment tells the library, read once when it is loaded (or at
 * the first hook that runs earlier) and never changed afterwards.
 */

#include "common/endpoint.h"

#define BYPASS_MAX 64
#define STUB_MAX   16
#define STUB_PORT  53

/* Set by the launcher for the library, and by nobody else: the addresses, with
 * commas between them, on whose port 53 the enclave's DNS stub answers. */
#define STUB_VARIABLE "PROXY_STUB"

/* What a variable should have been; the launcher says the same. */
#define EXPECTED_LOOPBACK "expected local or host"
#define EXPECTED_BYPASS \
 "expected addresses or blocks such as 10.0.0.0/8,fd00::/8"
#define EXPECTED_FEWER_BLOCKS "expected at most 64 addresses or blocks"
#define EXPECTED_WAIT         "expected seconds, a number up to 86400"
#define EXPECTED_STUB         "expected at most 16 addresses with commas between them"

/**
 * struct config - the library's settings
 * @bad:           NULL, or the variable that could not be read; connecting
 *                 then fails, because guessing might let traffic out
 * @bad_value:     how it was set, cut to fit
 * @bad_expected:  what it should have been
 * @endpoint:      the host proxy
 * @endpoint_text: the same, for the vendor
 * @vendor_path:   the vendor's unix socket
 * @vendor_is_default: it is where everybody knows it to be, maybe in a folder
 *                 where others could be first; so it must be root's or ours
 * @loopback_is_host: PROXY_LOOPBACK=host
 * @bypass, @nr_bypass: PROXY_BYPASS
 * @stub, @nr_stub: PROXY_STUB
 * @use_vc:        RES_OPTIONS asks for use-vc, see resolver.c
 * @talk:          PROXY_LOG is set, to warn or more: the library may say a
 *                 line on stderr. Without it, it never does
 */
struct config {
	const char *bad;
	const char *bad_expected;
	char bad_value[128];
	struct endpoint endpoint;
	char endpoint_text[ENDPOINT_STRLEN];
	char vendor_path[ENDPOINT_PATH_MAX + 1];
	bool vendor_is_default;
	bool loopback_is_host;
	bool use_vc;
	bool talk;
	uint32_t wait_ms;
	unsigned int nr_bypass;
	unsigned int nr_stub;
	struct ip_prefix bypass[BYPASS_MAX];
	struct ip_prefix stub[STUB_MAX];
};

/** config() - the settings; never NULL */
const struct config *config(void);

/**
 * config_keeps_local() - is this destination the kernel's and not ours?
 * @dst: as the application gave it
 *
 * Loopback (unless PROXY_LOOPBACK=host), the PROXY_BYPASS blocks, and what
 * TCP cannot reach anyway or not on another machine (multicast, broadcast, IPv6
 * link-local), whose errors are the kernel's to give. 0.0.0.0 and :: mean
 * loopback, as in the kernel.
 *
 * And port 53 of the addresses on which the enclave's DNS stub stands in for
 * the servers in resolv.conf: a resolver that asks over TCP, because it was
 * told to or an answer was truncated, gets the same answers there as over UDP
 * (and from the servers of --dns).
 */
bool config_keeps_local(const struct ip_port *dst);

/**
 * config_exports() - does listening on this address mean the host's port?
 * @at: as given to bind(); a wildcard is exported, loopback only with
 *      PROXY_LOOPBACK=host, PROXY_BYPASS never
 */
bool config_exports(const struct ip_port *at);

/**
 * config_refused() - is a variable unreadable, so that nothing may be done?
 *
 * Return: false, or true with errno EINVAL, having said once which one, its
 * value and what was expected.
 */
bool config_refused(void);

/**
 * warn_once() - say one line on stderr, the first time only
 * @said: one flag for each kind of line
 * @what, @name: the line is "proxify: WHAT: NAME"
 *
 * Only when PROXY_LOG asks for it: this is somebody else's stderr.
 */
void warn_once(_Atomic bool *said, const char *what, const char *name);

/** warn_of_host_proxy() - warn_once() that it cannot be reached, or does not
 * answer as it should: what the application learns as ENETDOWN */
void warn_of_host_proxy(void);

#endif
