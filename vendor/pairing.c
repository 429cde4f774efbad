/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/pairing.h"
#include "common/hold_name.h"
#include "common/log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

void pairing_ask(const struct pool_port *port, struct socks5_addr *dst)
{
	struct hold_name name = {.verb = HOLD_MEET};

	memset(dst, 0, sizeof(*dst));
	dst->addr.family = port->family;
	dst->addr.port = port->port;
	if (port->plain)
		return;
	memcpy(name.key, port->key, sizeof(name.key));
	hold_name_write(&name, port->port, dst);
}

static enum pairing_state read_failed(const char **why)
{
	if (errno == EAGAIN || errno == EINTR)
		return PAIRING_PART;
	*why = log_strerror(errno);
	return PAIRING_FAILED;
}

static enum pairing_state take_remote(
	struct pairing *p, const struct ip_port *addr, const char **why)
{
	*why = "a second reply without the client's address";
	if (addr->family == AF_UNSPEC)
		return PAIRING_FAILED;
	p->remote = *addr;
	if (p->plain)
		return PAIRING_WHOLE;
	p->got = 0;
	return PAIRING_PART;
}

static enum pairing_state take_local(
	struct pairing *p, const struct ip_port *addr, const char **why)
{
	*why = "a client that reached an address of another family";
	if (addr->family != p->remote.family)
		return PAIRING_FAILED;
	p->local = *addr;
	return PAIRING_WHOLE;
}

static enum pairing_state understand(struct pairing *p, const char **why)
{
	struct socks5_answer answer;
	ssize_t n = socks5_parse_reply(p->in, p->got, &answer);

	if (n == 0)
		return PAIRING_PART;
	*why = "malformed second reply";
	if (n == -1)
		return PAIRING_FAILED;
	*why = "the second reply is no success";
	if (answer.reply != SOCKS5_SUCCEEDED)
		return PAIRING_FAILED;
	ip_port_unmap(&answer.bound.addr);
	return p->remote.family == AF_UNSPEC
		       ? take_remote(p, &answer.bound.addr, why)
		       : take_local(p, &answer.bound.addr, why);
}

enum pairing_state pairing_read(struct pairing *p, int fd, const char **why)
{
	size_t want;

	while ((want = socks5_reply_need(p->in, p->got)) > 0) {
		ssize_t n = recv(fd, p->in + p->got, want, 0);
		enum pairing_state state;

		if (n == -1)
			return read_failed(why);
		if (n == 0) {
			*why = "closed by the host proxy";
			return PAIRING_FAILED;
		}
		p->got += (size_t)n;
		state = understand(p, why);
		if (state != PAIRING_PART)
			return state;
	}
	return PAIRING_PART; /* not reached: a whole reply is understood */
}

bool pairing_has_begun(const struct pairing *p)
{
	return p->got > 0 || p->remote.family != AF_UNSPEC;
}
