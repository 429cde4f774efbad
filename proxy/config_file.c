/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/config_file.h"

#include "proxy/set.h"

#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The format is INI, parsed by inih: it is packaged everywhere, fuzzed by
 * OSS-Fuzz, and has been kept for more than a decade. Of what Debian has it is
 * the one that leaves keys in their order, repeated ones included, as rules
 * need it (libconfuse and libconfig group values by key, libyaml has no idea of
 * sections), and a section reads as the command line of its mode, one option on
 * each line. The keys and their values are in fact the rows of that command
 * line's table (options.h), so that nothing can be said in one form only.
 *
 * What inih leaves open is decided in the reader that it takes its lines from:
 *	line numbers  are counted there, for messages about values
 *	sections      each header begins a listener, whatever its name, even if
 *	              the last one was the same; inih tells only keys apart
 *	indentation   is cut off, or inih would take such a line for the
 *	              continuation of the last value
 *	long lines    are an error, where inih would cut them in two, unless
 *	              they are comments
 *
 * The first error ends it. Nothing is opened here: a file is taken whole or
 * not at all.
 */

#define BOM "\xef\xbb\xbf"

/**
 * struct parser - one file being read
 * @rows, @nr_rows: the keys of the current section
 * @given:  bit I: row I was given
 * @options: of the current section; the process's while @in_section is false
 * @header: line of the section's header
 * @failed: @error is filled
 */
struct parser {
	struct config *config;
	FILE *in;
	const char *name;
	char *error;
	unsigned int line;
	unsigned int header;
	char *buf;
	size_t buf_size;
	struct opt rows[OPTIONS_ROWS_MAX];
	size_t nr_rows;
	uint64_t given;
	struct options section;
	bool in_section;
	bool failed;
};
_Static_assert(OPTIONS_ROWS_MAX <= 64, "a bit for each row");

__attribute__((format(printf, 3, 4))) static bool fail(
	struct parser *p, unsigned int line, const char *fmt, ...)
{
	va_list ap;
	int n;

	assert(!p->failed);
	p->failed = true;
	if (line > 0)
		n = snprintf(
			p->error, CONFIG_ERROR_MAX, "%s:%u: ", p->name, line);
	else
		n = snprintf(p->error, CONFIG_ERROR_MAX, "%s: ", p->name);
	if (n < 0 || n >= CONFIG_ERROR_MAX)
		return false;
	va_start(ap, fmt);
	vsnprintf(p->error + n, (size_t)(CONFIG_ERROR_MAX - n), fmt, ap);
	va_end(ap);
	return false;
}

/* ---- sections ---- */

/* What belongs to @line of the file, for log lines. */
static void set_where(const struct parser *p, struct service_config *config)
{
	snprintf(config->where, sizeof(config->where), "%s:%u", p->name,
		p->header);
}

static bool add_services(struct parser *p)
{
	struct service_config more[OPTIONS_LISTEN_MAX];
	struct config *c = p->config;
	int nr = options_services(&p->section, more);
	struct service_config *grown;

	if (nr == -1)
		return fail(p, p->header, "out of memory");
	grown = realloc(c->service, (c->nr + (size_t)nr) * sizeof(*grown));
	if (!grown || c->nr + (size_t)nr > SET_MAX) {
		if (grown)
			c->service = grown;
		for (int i = 0; i < nr; i++)
			rules_free(&more[i].rules);
		return fail(p, p->header,
			grown ? "more than 1024 listeners" : "out of memory");
	}
	c->service = grown;
	memcpy(grown + c->nr, more, (size_t)nr * sizeof(*more));
	for (int i = 0; i < nr; i++)
		set_where(p, &grown[c->nr++]);
	return true;
}

/* The section is whole. */
static bool end_section(struct parser *p)
{
	char error[OPTPARSE_ERROR_MAX];
	bool ok = true;

	if (!p->in_section)
		return true;
	p->in_section = false;
	if (options_check(&p->section, error) == -1)
		ok = fail(
			p, p->header, "[%s]: %s", p->section.mode->name, error);
	else
		ok = add_services(p);
	options_free(&p->section);
	return ok;
}

static void use_rows(
	struct parser *p, const struct mode *mode, unsigned int which)
{
	p->nr_rows = options_rows(mode, which, p->rows);
	p->given = 0;
}

/*
 * A line that begins with '[': "[MODE]" or "[MODE NAME]", and nothing behind
 * it but a comment (strchr() finds the NUL too). The name is for the reader of
 * the file alone.
 */
static bool begin_section(struct parser *p, const char *line)
{
	const char *close = strchr(line, ']');
	const struct mode *mode;
	size_t len;

	if (!end_section(p))
		return false;
	if (close)
		close += 1 + strspn(close + 1, " \t");
	if (!close || !strchr(";#", *close))
		return fail(p, p->line,
			"expected [MODE] or [MODE NAME] on a line of its own");
	line++;
	line += strspn(line, " \t");
	len = strcspn(line, " \t]");
	mode = mode_find(line, len);
	if (!mode)
		return fail(p, p->line, "no such mode: '%.*s'", (int)len, line);
	options_init(&p->section, mode);
	p->in_section = true;
	p->header = p->line;
	use_rows(p, mode, OPTIONS_OF_LISTENER);
	return true;
}

/* ---- lines ---- */

/* Return: the next line without indentation and its end, or NULL. */
static char *next_line(struct parser *p)
{
	ssize_t len = getline(&p->buf, &p->buf_size, p->in);
	char *line = p->buf;

	if (len == -1) {
		if (ferror(p->in))
			fail(p, 0, "%s", log_strerror(errno));
		return NULL;
	}
	p->line++;
	if (strlen(line) != (size_t)len) {
		fail(p, p->line, "a NUL byte");
		return NULL;
	}
	line[strcspn(line, "\r\n")] = '\0';
	if (p->line == 1 && strncmp(line, BOM, strlen(BOM)) == 0)
		line += strlen(BOM);
	return line + strspn(line, " \t");
}

/* What inih reads with, as fgets(). */
static char *on_read(char *str, int num, void *stream)
{
	struct parser *p = stream;
	char *line;

	if (p->failed)
		return NULL;
	line = next_line(p);
	if (!line)
		return NULL;
	if (line[0] == '[' && !begin_section(p, line))
		return NULL;
	/* Neither a section's name nor a comment is of interest to inih, which
	 * would cut them. */
	if (line[0] != '\0' && strchr("[#;", line[0]))
		line[0] = '\0';
	if (snprintf(str, (size_t)num, "%s\n", line) >= num) {
		fail(p, p->line, "longer than %d bytes", num - 2);
		return NULL;
	}
	return str;
}

/* The words that an option without a value may be given. Return: -1: none */
static int parse_switch(const char *value)
{
	static const char *const words[][3] = {
		{"no", "false", "off"}, {"yes", "true", "on"}};

	for (int on = 0; on < 2; on++)
		for (int i = 0; i < 3; i++)
			if (strcmp(value, words[on][i]) == 0)
				return on;
	return -1;
}

static bool apply(struct parser *p, const struct opt *opt, const char *value)
{
	struct options *target =
		p->in_section ? &p->section : &p->config->process;
	const char *why = NULL;

	if (opt->arg) {
		why = opt->set(target, value);
	} else {
		int on = parse_switch(value);

		if (on == -1)
			why = "expected yes or no";
		else if (on)
			why = opt->set(target, NULL);
	}
	if (why)
		return fail(p, p->line, "bad value '%s' for %s: %s", value,
			opt->name, why);
	return true;
}

static int on_pair(
	void *arg, const char *section, const char *name, const char *value)
{
	struct parser *p = arg;
	const struct opt *opt = optparse_find(p->rows, p->nr_rows, name);
	uint64_t bit;

	if (p->failed)
		return 0;
	if (!opt)
		return fail(p, p->line, "unknown setting '%s'%s%s%s", name,
			p->in_section ? " in [" : " ahead of the first section",
			p->in_section ? p->section.mode->name : "",
			p->in_section ? "]" : "");
	bit = UINT64_C(1) << (opt - p->rows);
	if ((p->given & bit) && !opt->many)
		return fail(p, p->line, "%s is set already", name);
	p->given |= bit;
	return apply(p, opt, value);
}

/* ---- files ---- */

int config_file_parse(
	struct config *config, FILE *in, const char *name, char *error)
{
	struct parser p = {
		.config = config, .in = in, .name = name, .error = error};
	int line;

	memset(config, 0, sizeof(*config));
	options_init(&config->process, NULL);
	use_rows(&p, NULL, OPTIONS_OF_PROCESS);
	line = ini_parse_stream(on_read, &p, on_pair, &p);
	if (!p.failed && line > 0)
		fail(&p, (unsigned int)line, "expected NAME = VALUE");
	else if (!p.failed && line < 0)
		fail(&p, 0, "out of memory");
	if (!p.failed)
		end_section(&p);
	else if (p.in_section)
		options_free(&p.section);
	if (!p.failed && config->nr == 0)
		fail(&p, 0, "no section, so there is nothing to serve");
	free(p.buf);
	return p.failed ? -1 : 0;
}

int config_file_read(struct config *config, const char *path, char *error)
{
	FILE *in = fopen(path, "re");
	int rc;

	if (!in) {
		memset(config, 0, sizeof(*config));
		snprintf(error, CONFIG_ERROR_MAX, "%s: %s", path,
			log_strerror(errno));
		return -1;
	}
	rc = config_file_parse(config, in, path, error);
	fclose(in);
	return rc;
}

void config_free(struct config *config)
{
	for (size_t i = 0; i < config->nr; i++)
		rules_free(&config->service[i].rules);
	free(config->service);
	options_free(&config->process);
	memset(config, 0, sizeof(*config));
}
