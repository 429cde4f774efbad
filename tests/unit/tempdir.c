/* SPDX-License-Identifier: Apache-2.0 */
#include "tempdir.h"

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FDS_AT_ONCE 8

void tempdir_make(char dir[TEMPDIR_LEN])
{
	snprintf(dir, TEMPDIR_LEN, "/tmp/unit-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chmod(dir, 0755), 0);
}

static int remove_one(
	const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

void tempdir_remove(const char *dir)
{
	ck_assert_int_eq(
		nftw(dir, remove_one, FDS_AT_ONCE, FTW_DEPTH | FTW_PHYS), 0);
}
