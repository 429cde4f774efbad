/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/nameservers.h"

#include "common/endpoint.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLANKS " \t\r\n"

/* RES_TIMEOUT and RES_DFLRETRY of resolv.h, and their limits. */
#define TIMEOUT_DEFAULT  5
#define TIMEOUT_MAX      30
#define ATTEMPTS_DEFAULT 2
#define ATTEMPTS_MAX     5

struct file_stamp file_stamp(const char *path)
{
	struct file_stamp stamp;
	struct stat st;

	memset(&stamp, 0, sizeof(stamp));
	if (stat(path, &st) == -1)
		return stamp;
	stamp.dev = st.st_dev;
	stamp.ino = st.st_ino;
	stamp.size = st.st_size;
	stamp.mtime = st.st_mtim;
	return stamp;
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime.tv_sec == b->mtime.tv_sec &&
	       a->mtime.tv_nsec == b->mtime.tv_nsec;
}

/* "%eth0" or "%2" of a link-local address. Return: 0 if there is none. */
static uint32_t scope_id(const char *zone)
{
	uint32_t scope = if_nametoindex(zone);

	return scope ? scope : (uint32_t)strtoul(zone, NULL, 10);
}

/* Return: 0, or -1 if @text is no address. */
static int parse_address(struct ip_port *out, char *text)
{
	char *zone = strchr(text, '%');

	memset(out, 0, sizeof(*out));
	out->port = RESOLVER_PORT;
	out->family = AF_INET;
	if (inet_pton(AF_INET, text, out->ip) == 1)
		return 0;
	if (zone)
		*zone++ = '\0';
	out->family = AF_INET6;
	if (inet_pton(AF_INET6, text, out->ip) != 1)
		return -1;
	out->scope = zone ? scope_id(zone) : 0;
	return 0;
}

/* "NAME:N" with N of at least 1; more than @max counts as @max. */
static void parse_option(
	const char *word, const char *name, unsigned int max, unsigned int *out)
{
	size_t len = strlen(name);
	uint64_t value;

	if (strncmp(word, name, len) != 0 ||
		parse_uint(word + len, strlen(word + len), UINT32_MAX,
			&value) == -1 ||
		value == 0)
		return;
	*out = value > max ? max : (unsigned int)value;
}

static void parse_line(struct nameservers *ns, char *line)
{
	char *save;
	char *word = strtok_r(line, BLANKS, &save);

	if (word && strcmp(word, "nameserver") == 0) {
		word = strtok_r(NULL, BLANKS, &save);
		if (word && ns->nr < NAMESERVERS_MAX &&
			parse_address(&ns->addr[ns->nr], word) == 0)
			ns->nr++;
	} else if (word && strcmp(word, "options") == 0) {
		while ((word = strtok_r(NULL, BLANKS, &save))) {
			parse_option(
				word, "timeout:", TIMEOUT_MAX, &ns->timeout);
			parse_option(
				word, "attempts:", ATTEMPTS_MAX, &ns->attempts);
		}
	}
}

static void fall_back(struct nameservers *ns)
{
	char loopback[] = "127.0.0.1";

	parse_address(&ns->addr[0], loopback);
	ns->nr = 1;
}

static void reload(struct nameservers *ns)
{
	FILE *file = fopen(ns->path, "re");
	char line[512];

	ns->nr = 0;
	ns->timeout = TIMEOUT_DEFAULT;
	ns->attempts = ATTEMPTS_DEFAULT;
	if (file) {
		while (fgets(line, sizeof(line), file))
			parse_line(ns, line);
		fclose(file);
	} else if (errno != ENOENT) {
		log_warn_ratelimit(
			"cannot read %s: %s", ns->path, log_strerror(errno));
	}
	if (ns->nr == 0)
		fall_back(ns);
}

void nameservers_init(struct nameservers *ns, const char *path)
{
	memset(ns, 0, sizeof(*ns));
	ns->path = path;
}

size_t nameservers_get(struct nameservers *ns, const struct ip_port **out)
{
	struct file_stamp now = file_stamp(ns->path);

	if (ns->nr == 0 || !file_stamp_equal(&now, &ns->stamp)) {
		reload(ns);
		ns->stamp = now;
	}
	*out = ns->addr;
	return ns->nr;
}

bool is_resolver_name(const char *name, size_t *first)
{
	size_t len = sizeof(RESOLVER_NAME) - 1;

	*first = 0;
	if (name[0] >= '2' && name[0] < '1' + NAMESERVERS_MAX &&
		name[1] == '.') {
		*first = (size_t)(name[0] - '1');
		name += 2;
	}
	return strncasecmp(name, RESOLVER_NAME, len) == 0 &&
	       (name[len] == '\0' || strcmp(name + len, ".") == 0);
}
