/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/siblings.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PROXIFY_BIN_TO_LIB
# define PROXIFY_BIN_TO_LIB "../lib/proxify"
#endif

#define BUILD_DIR "proxify" /* this folder's name in the build tree */

/**
 * struct part - a file and where it may be, relative to the launcher's folder
 * @build: in the build tree only
 */
struct part {
	const char *name;
	const char *build;
	const char *places[4];
};

static const struct part parts[] = {
	[SIBLING_LIBRARY] = {"libproxy_preload.so", "../preload",
		{".", PROXIFY_BIN_TO_LIB, "../lib/proxify",
			"../lib64/proxify"}},
	[SIBLING_VENDOR] = {"socket_vendor", "../vendor", {"."}},
};
_Static_assert(sizeof(parts) / sizeof(parts[0]) == SIBLING_COUNT,
	"an entry for each part");

const char *sibling_name(enum sibling which)
{
	return parts[which].name;
}

static bool is_trusted(const struct stat *st, const struct stat *self)
{
	return S_ISREG(st->st_mode) &&
	       (st->st_uid == 0 || st->st_uid == geteuid() ||
		       st->st_uid == self->st_uid);
}

static void note(char *tried, size_t size, const char *place)
{
	size_t len = strlen(tried);

	snprintf(tried + len, size - len, "%s%s", len ? ", " : "", place);
}

/* Is it in @place, a folder relative to @dir? */
static bool look(const char *dir, const char *place, const char *name,
	const struct stat *self, char path[PATH_MAX], char *tried, size_t size)
{
	char file[PATH_MAX];
	struct stat st;
	int n = snprintf(file, sizeof(file), "%s/%s/%s", dir, place, name);

	if (n < 0 || (size_t)n >= sizeof(file))
		return false;
	if (realpath(file, path) && stat(path, &st) == 0 &&
		is_trusted(&st, self))
		return true;
	note(tried, size, file);
	return false;
}

/* The launcher's folder, and whether it is one of a build tree. */
static bool split(const char *self, char dir[PATH_MAX])
{
	const char *slash = strrchr(self, '/');
	size_t len = slash ? (size_t)(slash - self) : 0;

	snprintf(dir, PATH_MAX, "%.*s", (int)len, self);
	slash = strrchr(dir, '/');
	return slash && strcmp(slash + 1, BUILD_DIR) == 0;
}

int sibling_find(const char *self, enum sibling which, char path[PATH_MAX],
	char *tried, size_t size)
{
	const struct part *part = &parts[which];
	char dir[PATH_MAX];
	bool build = split(self, dir);
	struct stat st;

	tried[0] = '\0';
	if (stat(self, &st) == -1)
		return -1;
	for (size_t i = 0; i < 4 && part->places[i]; i++) {
		if (look(dir, part->places[i], part->name, &st, path, tried,
			    size))
			return 0;
		if (i == 0 && build &&
			look(dir, part->build, part->name, &st, path, tried,
				size))
			return 0;
	}
	return -1;
}
