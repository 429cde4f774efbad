/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/resolv_conf.h"
#include "common/fd.h"
#include "resolv/dns_msg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char blank[] = " \t";
static const char word_end[] = " \t\r\n;#";

/* A word within a line; not NUL-terminated. */
struct word {
	const char *at;
	size_t len;
};

static bool is_in(char c, const char *set)
{
	return c == '\0' || strchr(set, c);
}

/* Take the next word off [*p, end). Return: its length is 0 at the end. */
static struct word next_word(const char **p, const char *end)
{
	struct word word;

	while (*p < end && **p && strchr(blank, **p))
		++*p;
	word.at = *p;
	while (*p < end && !is_in(**p, word_end))
		++*p;
	word.len = (size_t)(*p - word.at);
	return word;
}

static bool word_is(struct word word, const char *text)
{
	return word.len == strlen(text) && memcmp(word.at, text, word.len) == 0;
}

/* The end of the line at @p, without its newline. */
static const char *line_end(const char *p, const char *end)
{
	const char *nl = memchr(p, '\n', (size_t)(end - p));

	return nl ? nl : end;
}

/*
 * The libc knows a keyword at the very start of a line, with blanks behind it.
 */
static bool is_nameserver(const char *line, const char *end)
{
	const char *p = line;

	return line < end && !is_in(*line, blank) &&
	       word_is(next_word(&p, end), "nameserver");
}

static void parse_nameserver(
	struct resolv_conf *out, const char *p, const char *end)
{
	struct word word;
	struct ip_prefix prefix;

	next_word(&p, end); /* the keyword */
	word = next_word(&p, end);
	if (memchr(word.at, '/', word.len) ||
		ip_prefix_parse(&prefix, word.at, word.len) == -1) {
		out->nr_bad++;
		return;
	}
	if (out->nr_servers == RESOLV_SERVERS)
		return;
	ip_port_unmap(&prefix.addr);
	prefix.addr.port = DNS_PORT;
	out->servers[out->nr_servers++] = prefix.addr;
}

static void parse_options(
	struct resolv_conf *out, const char *p, const char *end)
{
	struct word word = next_word(&p, end);

	if (!word_is(word, "options"))
		return;
	while (word.len > 0) {
		if (word_is(word, "use-vc"))
			out->use_vc = true;
		word = next_word(&p, end);
	}
}

void resolv_conf_parse(struct resolv_conf *out, const char *text, size_t len)
{
	const char *end = text + len;

	memset(out, 0, sizeof(*out));
	while (text < end) {
		const char *eol = line_end(text, end);

		if (is_nameserver(text, eol))
			parse_nameserver(out, text, eol);
		else
			parse_options(out, text, eol);
		text = eol < end ? eol + 1 : end;
	}
}

/* Return: bytes read into @buf, or -1 and errno. */
static ssize_t read_regular(const char *path, char *buf, size_t size)
{
	/* Not to hang on a FIFO, nor to make a terminal ours. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t have = 0;
	struct stat st;
	ssize_t n = -1;

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == -1)
		goto out;
	if (!S_ISREG(st.st_mode)) {
		errno = EINVAL;
		goto out;
	}
	while (have < size) {
		n = read(fd, buf + have, size - have);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
out:
	closefd(&fd);
	return n == -1 && have == 0 ? -1 : (ssize_t)have;
}

/* What is at a path that could not be opened? */
static enum resolv_file absence(const char *path, int err)
{
	struct stat st;

	if (err != ENOENT && err != ENOTDIR)
		return RESOLV_UNREADABLE;
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		return RESOLV_DANGLING;
	return RESOLV_MISSING;
}

enum resolv_file resolv_conf_read(struct resolv_conf *out, const char *path)
{
	char *text = malloc(RESOLV_SIZE_MAX);
	enum resolv_file state = RESOLV_PRESENT;
	ssize_t len;
	int err;

	memset(out, 0, sizeof(*out));
	if (!text)
		return RESOLV_UNREADABLE;
	len = read_regular(path, text, RESOLV_SIZE_MAX);
	err = errno;
	if (len == -1)
		state = absence(path, err);
	else
		resolv_conf_parse(out, text, (size_t)len);
	free(text);
	errno = err;
	return state;
}

static int write_all(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		text += n;
		len -= (size_t)n;
	}
	return fchmod(fd, 0644);
}

/*
 * A link is never made over a file that has appeared meanwhile. Not all file
 * systems have them; there, the window between the two calls has to do.
 */
static int put_in_place(
	const char *temp, const char *path, enum resolv_file state)
{
	if (state == RESOLV_DANGLING)
		return rename(temp, path);
	if (link(temp, path) == 0 || errno == EEXIST)
		return 0;
	if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
		return -1;
	return access(path, F_OK) == 0 ? 0 : rename(temp, path);
}

int resolv_conf_create(
	const char *path, enum resolv_file state, const char *text)
{
	char temp[PATH_MAX];
	int ret = -1;
	int fd, err;

	if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >=
		(int)sizeof(temp)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd == -1)
		return -1;
	if (write_all(fd, text) == -1)
		goto out;
	ret = put_in_place(temp, path, state);
out:
	err = errno;
	closefd(&fd);
	unlink(temp); /* gone already if it was renamed */
	errno = err;
	return ret;
}

/* Return: bytes written at @buf, or 0 if there is no room. */
static size_t put_server(char *buf, size_t size, const struct ip_port *server)
{
	char ip[INET6_ADDRSTRLEN];
	int n;

	inet_ntop(server->family, server->ip, ip, sizeof(ip));
	n = snprintf(buf, size, "nameserver %s\n", ip);
	return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

size_t resolv_conf_rewrite(char *buf, size_t size, const char *text, size_t len,
	const struct ip_port *servers, unsigned nr)
{
	const char *end = text + len;
	size_t have = 0;
	unsigned i;

	for (i = 0; i < nr; i++) {
		size_t n = put_server(buf + have, size - have, &servers[i]);

		if (n == 0)
			return 0;
		have += n;
	}
	while (text < end) {
		const char *eol = line_end(text, end);
		const char *next = eol < end ? eol + 1 : end;
		size_t n = (size_t)(next - text);

		if (!is_nameserver(text, eol)) {
			if (n > size - have)
				return 0;
			memcpy(buf + have, text, n);
			have += n;
		}
		text = next;
	}
	return have;
}
