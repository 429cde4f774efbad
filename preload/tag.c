/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/tag.h"
#include "preload/real.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>

#define TAG_MAGIC 0x70786603u /* "pxf", version 3 */

/* What the instructions' constants spell. */
struct tag {
	uint32_t magic;
	struct record rec;
};

#define TAG_WORDS (sizeof(struct tag) / sizeof(uint32_t))
#define TAG_LEN   (TAG_WORDS + 1) /* and the instruction that accepts */

int tag_attach(int fd, const struct record *rec)
{
	struct tag tag = {.magic = TAG_MAGIC, .rec = *rec};
	uint32_t words[TAG_WORDS];
	struct sock_filter code[TAG_LEN];
	struct sock_fprog program = {TAG_LEN, code};
	int saved = errno;
	int rc;

	memcpy(words, &tag, sizeof(words));
	for (size_t i = 0; i < TAG_WORDS; i++)
		code[i] = (struct sock_filter)BPF_STMT(
			BPF_LD | BPF_IMM, words[i]);
	code[TAG_WORDS] =
		(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
	rc = real()->setsockopt(
		fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
	errno = saved;
	return rc;
}

static bool is_address_or_none(const struct ip_port *addr)
{
	return addr->family == AF_UNSPEC || addr->family == AF_INET ||
	       addr->family == AF_INET6;
}

/* Whoever passes a socket writes what he likes on it. */
static bool is_sane(const struct record *rec)
{
	for (int i = 0; i < RECORD_OPTIONS; i++) {
		if (rec->options[i].len > OPTION_VALUE)
			return false;
	}
	return rec->kind > RECORD_NONE && rec->kind <= RECORD_LISTENER &&
	       (rec->family == AF_INET || rec->family == AF_INET6) &&
	       is_address_or_none(&rec->remote) &&
	       is_address_or_none(&rec->local);
}

bool tag_read(int fd, struct record *out)
{
	struct sock_filter code[TAG_LEN];
	uint32_t words[TAG_WORDS];
	socklen_t len = TAG_LEN; /* counted in instructions, not in bytes */
	struct tag tag;
	int saved = errno;
	int rc;

	rc = real()->getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, code, &len);
	errno = saved;
	if (rc == -1 || len != TAG_LEN)
		return false;
	for (size_t i = 0; i < TAG_WORDS; i++) {
		if (code[i].code != (BPF_LD | BPF_IMM))
			return false;
		words[i] = code[i].k;
	}
	memcpy(&tag, words, sizeof(tag));
	if (tag.magic != TAG_MAGIC || !is_sane(&tag.rec))
		return false;
	*out = tag.rec;
	out->tagged = 1;
	out->has_copies = 0;
	return true;
}
