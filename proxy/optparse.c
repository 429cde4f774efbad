/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/optparse.h"

#include <stdarg.h>
#include <string.h>

#define HELP_COLUMN 32

static const struct opt *find_name(
	const struct opt *opts, size_t nr, const char *name, size_t len)
{
	for (size_t i = 0; i < nr; i++)
		if (strlen(opts[i].name) == len &&
			memcmp(opts[i].name, name, len) == 0)
			return &opts[i];
	return NULL;
}

const struct opt *optparse_find(
	const struct opt *opts, size_t nr, const char *name)
{
	return find_name(opts, nr, name, strlen(name));
}

static const struct opt *find_letter(
	const struct opt *opts, size_t nr, char letter)
{
	for (size_t i = 0; i < nr; i++)
		if (opts[i].letter == letter)
			return &opts[i];
	return NULL;
}

__attribute__((format(printf, 2, 3))) static int fail(
	char *error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, OPTPARSE_ERROR_MAX, fmt, ap);
	va_end(ap);
	return -1;
}

/*
 * Store an option's value.
 * @said:  the option as written, @said_len long
 * @value: NULL if none was given
 */
static int apply(const struct opt *opt, const char *said, int said_len,
	const char *value, void *target, char *error)
{
	const char *why;

	if (!opt->arg && value)
		return fail(error, "option %.*s takes no value, got '%s'",
			said_len, said, value);
	if (opt->arg && !value)
		return fail(error, "option %.*s needs a value: %s", said_len,
			said, opt->arg);
	why = opt->set(target, value);
	if (!why)
		return 0;
	if (!value)
		return fail(error, "option %.*s: %s", said_len, said, why);
	return fail(error, "bad value '%s' for %.*s: %s", value, said_len, said,
		why);
}

/* "--name", "--name=value", "--name value". */
static int parse_long(const struct opt *opts, size_t nr, char **argv, int *at,
	void *target, char *error)
{
	const char *said = argv[*at];
	const char *equals = strchr(said, '=');
	int len = (int)(equals ? (size_t)(equals - said) : strlen(said));
	const struct opt *opt = find_name(opts, nr, said + 2, (size_t)len - 2);
	const char *value = equals ? equals + 1 : NULL;

	if (!opt)
		return fail(error, "unknown option '%.*s'", len, said);
	if (opt->arg && !value && argv[*at + 1])
		value = argv[++*at];
	return apply(opt, said, len, value, target, error);
}

/* "-t", "-p1", "-p 1", "-tp1". */
static int parse_short(const struct opt *opts, size_t nr, char **argv, int *at,
	void *target, char *error)
{
	const char *c = argv[*at] + 1;

	while (*c) {
		const struct opt *opt = find_letter(opts, nr, *c);
		char said[3] = {'-', *c, '\0'};
		const char *value = NULL;

		if (!opt)
			return fail(error, "unknown option '-%c'", *c);
		c++;
		if (opt->arg) {
			value = *c ? c : argv[*at + 1];
			if (!*c && value)
				++*at;
			c = "";
		}
		if (apply(opt, said, 2, value, target, error) == -1)
			return -1;
	}
	return 0;
}

int optparse(const struct opt *opts, size_t nr, int argc, char **argv,
	void *target, char *error)
{
	bool options = true;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		int rc;

		if (options && strcmp(arg, "--") == 0) {
			options = false;
			continue;
		}
		if (!options || arg[0] != '-' || arg[1] == '\0')
			return fail(error, "unexpected argument '%s'", arg);
		if (arg[1] == '-')
			rc = parse_long(opts, nr, argv, &i, target, error);
		else
			rc = parse_short(opts, nr, argv, &i, target, error);
		if (rc == -1)
			return -1;
	}
	return 0;
}

static void help_one(const struct opt *opt, FILE *out)
{
	const char *line = opt->help;
	int used;

	if (opt->letter)
		used = fprintf(out, "  -%c, --%s", opt->letter, opt->name);
	else
		used = fprintf(out, "      --%s", opt->name);
	if (opt->arg)
		used += fprintf(out, " %s", opt->arg);
	if (used >= HELP_COLUMN) {
		fputc('\n', out);
		used = 0;
	}
	while (*line) {
		size_t len = strcspn(line, "\n");

		fprintf(out, "%*s%.*s\n", HELP_COLUMN - used, "", (int)len,
			line);
		used = 0;
		line += len;
		line += *line == '\n';
	}
}

void optparse_help(const struct opt *opts, size_t nr, FILE *out)
{
	for (size_t i = 0; i < nr; i++)
		help_one(&opts[i], out);
}
