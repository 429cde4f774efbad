/* SPDX-License-Identifier: Apache-2.0 */
#include "tempdir.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FDS_AT_ONCE 8

/* Not ck_assert(), which is for tests only: programs use this around them. */
static void must(bool holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	abort();
}

void tempdir_make(char dir[TEMPDIR_LEN])
{
	const char *root = getenv("TEMPDIR_ROOT");

	snprintf(dir, TEMPDIR_LEN, "%s/unit-test-XXXXXX", root ? root : "/tmp");
	must(mkdtemp(dir) != NULL, dir);
	must(chmod(dir, 0755) == 0, dir);
}

static int remove_one(
	const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

void tempdir_remove(const char *dir)
{
	must(nftw(dir, remove_one, FDS_AT_ONCE, FTW_DEPTH | FTW_PHYS) == 0,
		dir);
}
