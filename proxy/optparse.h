/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_OPTPARSE_H
#define PROXY_OPTPARSE_H

/*
 * Command lines by table: each row is an option, what it takes, its help text
 * and the function that stores its value. Takes "-p 1", "-p1", "--port 1" and
 * "--port=1"; names are not abbreviated, and "--" ends the options. Does
 * nothing but parse: what is wrong comes back as text.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define OPTPARSE_ERROR_MAX 512

/**
 * struct opt - one option
 * @letter: 0 if it has only a name
 * @name:   without the dashes
 * @arg:    what its value is called in the help, NULL if it takes none
 * @help:   one or more lines, '\n' between them
 * @set:    stores a value (NULL if it takes none) in @target. Returns NULL or
 *          what was expected
 * @many:   may be given more than once, and each counts
 */
/* Its members are in the order in which a table reads well. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct opt {
	char letter;
	const char *name;
	const char *arg;
	const char *help;
	const char *(*set)(void *target, const char *value);
	bool many;
};

/**
 * optparse() - parse a command line
 * @opts, @nr:  the table
 * @argc, @argv: as of main(); not changed
 * @target:     for @opts' set()
 * @error:      at least OPTPARSE_ERROR_MAX bytes; filled on failure with what
 *              is wrong, naming the option and value
 *
 * Arguments that are not options are an error.
 *
 * Return: 0 or -1.
 */
int optparse(const struct opt *opts, size_t nr, int argc, char **argv,
	void *target, char *error);

/** optparse_find() - a row by its name. Return: NULL if there is none */
const struct opt *optparse_find(
	const struct opt *opts, size_t nr, const char *name);

/** optparse_help() - print the table */
void optparse_help(const struct opt *opts, size_t nr, FILE *out);

#endif
