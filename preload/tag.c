/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/tag.h"
#include "preload/real.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>

#define TAG_MAGIC 0x70786602u /* "pxf", version 2 */

/* What the instructions' constants spell. */
struct tag {
	uint32_t magic;
	uint8_t kind;
	uint8_t family;
	uint8_t bind_flags;
	uint8_t zero;
	int32_t backlog;
	uint8_t key[VENDOR_KEY_LEN];
	struct ip_port remote;
	struct ip_port local;
};

#define TAG_WORDS (sizeof(struct tag) / sizeof(uint32_t))
#define TAG_LEN   (TAG_WORDS + 1) /* and the instruction that accepts */

int tag_attach(int fd, const struct record *rec)
{
	struct tag tag = {
		.magic = TAG_MAGIC,
		.kind = rec->kind,
		.family = rec->family,
		.bind_flags = rec->bind_flags,
		.backlog = rec->backlog,
		.remote = rec->remote,
		.local = rec->local,
	};
	uint32_t words[TAG_WORDS];
	struct sock_filter code[TAG_LEN];
	struct sock_fprog program = {TAG_LEN, code};
	int saved = errno;
	int rc;

	memcpy(tag.key, rec->key, sizeof(tag.key));
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
static bool is_sane(const struct tag *tag)
{
	return tag->magic == TAG_MAGIC && tag->kind > RECORD_NONE &&
	       tag->kind <= RECORD_LISTENER &&
	       (tag->family == AF_INET || tag->family == AF_INET6) &&
	       is_address_or_none(&tag->remote) &&
	       is_address_or_none(&tag->local);
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
	if (!is_sane(&tag))
		return false;
	memset(out, 0, sizeof(*out));
	out->kind = tag.kind;
	out->family = tag.family;
	out->tagged = 1;
	out->bind_flags = tag.bind_flags;
	out->backlog = tag.backlog;
	memcpy(out->key, tag.key, sizeof(out->key));
	out->remote = tag.remote;
	out->local = tag.local;
	return true;
}
