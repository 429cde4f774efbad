/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/resolv_plan.h"
#include "common/fd.h"
#include "common/log.h"
#include "resolv/lo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* Any address of 127.0.0.0/8 but one that a server could sensibly be on. */
#define PROBE_ADDRESS "127.199.53.53"

#define USE_VC "use-vc"
#define NEW_CONF                                       \
 "# written by proxify, as there was no resolv.conf\n" \
 "nameserver 127.0.0.1\n"                              \
 "options " USE_VC "\n"

static const struct ip_port loopback = {
	.family = AF_INET,
	.port = DNS_PORT,
	.ip = {127, 0, 0, 1},
};

static const struct ip_port loopback6 = {
	.family = AF_INET6,
	.port = DNS_PORT,
	.ip = {[15] = 1},
};

int resolv_mode_parse(const char *text, enum resolv_mode *out)
{
	static const char *const names[] = {
		[RESOLV_AUTO] = "auto",
		[RESOLV_STUB] = "stub",
		[RESOLV_USE_VC] = USE_VC,
		[RESOLV_KEEP] = "keep",
	};
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum resolv_mode)i;
			return 0;
		}
	}
	return -1;
}

/* The first message is the one that counts. Return: -1. */
__attribute__((format(printf, 2, 3))) static int say(
	struct resolv_plan *plan, const char *fmt, ...)
{
	va_list ap;

	if (plan->message[0] == '\0') {
		va_start(ap, fmt);
		vsnprintf(plan->message, sizeof(plan->message), fmt, ap);
		va_end(ap);
	}
	return -1;
}

/* ---- what this process may do ---- */

/*
 * may_bind() - may this process listen on port 53?
 *
 * Tried on an address where it cannot be in the way of a stub that is being
 * started at this moment. The kernel checks the right before it looks whether
 * the port is in use.
 */
static bool may_bind(void)
{
	struct ip_port addr = loopback;
	union sockaddr_any sa;
	socklen_t len;
	bool may;
	int fd;

	inet_pton(AF_INET, PROBE_ADDRESS, addr.ip);
	len = ip_port_to_sockaddr(&addr, &sa);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	may = bind(fd, &sa.sa, len) == 0 || errno != EACCES;
	closefd(&fd);
	return may;
}

/* Does somebody listen there? On this machine that is answered at once. */
static bool is_served(const struct ip_port *addr)
{
	union sockaddr_any sa;
	socklen_t len = ip_port_to_sockaddr(addr, &sa);
	int fd = socket(addr->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool served;

	if (fd == -1)
		return false;
	served = connect(fd, &sa.sa, len) == 0;
	closefd(&fd);
	return served;
}

/* May this process have a mount namespace? Found out by a child's trying. */
static bool may_unshare(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNS) == 0 ? 0 : 1);
	if (pid == -1)
		return false;
	while (waitpid(pid, &status, 0) == -1)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- the plan ---- */

static void plan_listen(struct resolv_plan *plan, const struct ip_port *addr)
{
	unsigned i;

	for (i = 0; i < plan->nr_listen; i++)
		if (ip_port_equal(&plan->listen[i], addr))
			return;
	if (plan->nr_listen < DNS_LISTEN_MAX)
		plan->listen[plan->nr_listen++] = *addr;
}

/* 0.0.0.0 and :: as a server mean this machine. */
static bool is_loopback(struct ip_port *server)
{
	if (ip_port_is_any(server)) {
		bool v4 = server->family == AF_INET;

		memset(server->ip, 0, sizeof(server->ip));
		server->ip[v4 ? 0 : 15] = v4 ? 127 : 1;
		server->ip[v4 ? 3 : 15] = 1;
	}
	return ip_port_is_loopback(server);
}

/* Whom to ask: --dns, else the file's own, else the host's resolver. */
static void choose_servers(struct resolv_plan *plan,
	const struct resolv_options *options, const struct resolv_conf *conf)
{
	unsigned i;

	plan->nr_servers = options->nr_servers;
	memcpy(plan->servers, options->servers, sizeof(plan->servers));
	for (i = 0; options->nr_servers == 0 && i < conf->nr_servers; i++) {
		struct ip_port server = conf->servers[i];

		if (is_loopback(&server) || plan->nr_servers == DNS_SERVERS_MAX)
			continue;
		plan->servers[plan->nr_servers++] =
			(struct socks5_addr){.addr = server};
	}
	if (plan->nr_servers == 0)
		dns_server_host_resolver(&plan->servers[plan->nr_servers++]);
}

/* Return: whether the stub can listen on a server's own address. */
static bool take_address(const struct ip_port *server)
{
	if (lo_is_local(server))
		return true;
	return !lo_leads_out(server) && lo_add_address(server) == 0;
}

/*
 * cover_servers() - be where resolv.conf says that servers are
 *
 * Return: 0, or -1 if the stub cannot be there.
 */
static int cover_servers(struct resolv_plan *plan,
	const struct resolv_options *options, const struct resolv_conf *conf)
{
	char text[IP_PORT_STRLEN];
	unsigned i;

	for (i = 0; i < conf->nr_servers; i++) {
		struct ip_port server = conf->servers[i];

		if (is_loopback(&server) || take_address(&server)) {
			plan_listen(plan, &server);
			continue;
		}
		plan->private_conf = may_unshare();
		if (plan->private_conf)
			continue;
		ip_port_format(&server, text, sizeof(text));
		return say(plan,
			"names: %s names the server %s, where the DNS stub "
			"can only listen with CAP_NET_ADMIN (to put the "
			"address on lo, where no route leads to it) or "
			"CAP_SYS_ADMIN (to give the program its own copy of "
			"the file)",
			options->path, text);
	}
	return 0;
}

/* Return: 0; a file that cannot be made is only worth a warning. */
static void create_conf(
	struct resolv_plan *plan, enum resolv_file state, const char *text)
{
	if (state != RESOLV_MISSING && state != RESOLV_DANGLING)
		return;
	if (resolv_conf_create(plan->path, state, text) == -1)
		say(plan,
			"names: cannot create %s: %s (most programs will ask "
			"127.0.0.1 all the same)",
			plan->path, log_strerror(errno));
}

static int prepare_stub(struct resolv_plan *plan,
	const struct resolv_options *options, const struct resolv_conf *conf,
	enum resolv_file state)
{
	/* Or another user's vendor does it for us. */
	if (!may_bind() && !is_served(&loopback))
		return say(plan,
			"names: no right to listen on port 53 (needs "
			"CAP_NET_BIND_SERVICE, or sysctl "
			"net.ipv4.ip_unprivileged_port_start=53), so names "
			"work only in programs whose libc lets the preloaded "
			"library have its calls (glibc before 2.34)");
	plan_listen(plan, &loopback);
	choose_servers(plan, options, conf);
	if (cover_servers(plan, options, conf) == -1)
		return -1;
	/* Without a nameserver line dig and its kin try both loopbacks. */
	if (lo_is_local(&loopback6))
		plan_listen(plan, &loopback6);
	create_conf(plan, state, NEW_CONF);
	/* Without the right it stays as it is: most programs do not care. */
	if (!lo_has_way_out())
		(void)lo_add_dummies();
	plan->stub = true;
	return 0;
}

/*
 * prepare_use_vc() - the libc asks over TCP, the preloaded library carries it
 *
 * A loopback address would stay in the enclave, so a missing file is a
 * question to the user: public servers are asked only by those who want it.
 */
static int prepare_use_vc(struct resolv_plan *plan,
	const struct resolv_options *options, enum resolv_file state)
{
	struct ip_port servers[DNS_SERVERS_MAX];
	static const char end[] = "options " USE_VC "\n";
	char text[RESOLV_LIST_MAX];
	unsigned nr = 0;
	unsigned i;
	size_t len;

	plan->use_vc = true;
	if (state == RESOLV_PRESENT || state == RESOLV_UNREADABLE)
		return 0;
	for (i = 0; i < options->nr_servers; i++)
		if (options->servers[i].addr.family != AF_UNSPEC)
			servers[nr++] = options->servers[i].addr;
	if (nr == 0)
		return say(plan,
			"names: there is no %s, and --resolv=" USE_VC
			" needs to know a server: give --dns ADDRESS",
			plan->path);
	len = resolv_conf_rewrite(
		text, sizeof(text) - 1, end, sizeof(end) - 1, servers, nr);
	text[len] = '\0';
	create_conf(plan, state, text);
	return 0;
}

/* A machine whose names work by themselves is left alone. */
static bool needs_nothing(
	const struct resolv_options *options, const struct resolv_conf *conf)
{
	bool loopback_only = true;
	unsigned i;

	if (options->mode != RESOLV_AUTO || options->nr_servers > 0)
		return false;
	for (i = 0; i < conf->nr_servers; i++) {
		struct ip_port server = conf->servers[i];

		if (is_loopback(&server))
			continue;
		loopback_only = false;
		if (lo_leads_out(&server))
			return true;
	}
	return loopback_only && conf->nr_servers > 0 && lo_has_way_out();
}

int resolv_prepare(struct resolv_plan *plan, const struct resolv_options *user)
{
	struct resolv_options options = *user;
	struct resolv_conf conf;
	enum resolv_file state;

	if (!options.path)
		options.path = RESOLV_CONF_PATH;
	memset(plan, 0, sizeof(*plan));
	plan->path = options.path;
	plan->kept = options.mode == RESOLV_KEEP;
	if (plan->kept)
		return 0;
	state = resolv_conf_read(&conf, options.path);
	if (state == RESOLV_UNREADABLE) {
		say(plan, "names: %s: %s", options.path, log_strerror(errno));
		if (options.mode == RESOLV_STUB)
			return -1;
	}
	if (options.mode == RESOLV_USE_VC)
		return prepare_use_vc(plan, &options, state);
	if (needs_nothing(&options, &conf))
		return 0;
	plan->use_vc = true;
	if (prepare_stub(plan, &options, &conf, state) == 0)
		return 0;
	return options.mode == RESOLV_STUB ? -1 : 0;
}

bool resolv_served(const struct resolv_plan *plan, struct ip_port *missing)
{
	unsigned i;

	for (i = 0; plan->stub && i < plan->nr_listen; i++) {
		if (!is_served(&plan->listen[i])) {
			*missing = plan->listen[i];
			return false;
		}
	}
	return true;
}

/* ---- the copy of resolv.conf ---- */

/* Return: the new text in @buf, its length; 0 and errno on failure. */
static size_t private_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *old = malloc(RESOLV_SIZE_MAX);
	size_t len = 0;
	ssize_t n = -1;

	if (fd >= 0 && old)
		n = read(fd, old, RESOLV_SIZE_MAX);
	if (n >= 0) {
		len = resolv_conf_rewrite(
			buf, size, old, (size_t)n, &loopback, 1);
		errno = EFBIG; /* if 0 */
	}
	closefd_if(&fd);
	free(old);
	return len;
}

/* Return: 0, or -1 and errno. */
static int mount_text(const char *path, const char *text, size_t len)
{
	static const char *const places[] = {"/run/resolv.XXXXXX",
		"/tmp/resolv.XXXXXX", "/dev/shm/resolv.XXXXXX"};
	char temp[32];
	int ret = -1;
	int fd = -1;
	int err;
	unsigned i;

	for (i = 0; fd == -1 && i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(temp, sizeof(temp), "%s", places[i]);
		fd = mkostemp(temp, O_CLOEXEC);
	}
	if (fd == -1)
		return -1;
	if (write(fd, text, len) == (ssize_t)len && fchmod(fd, 0644) == 0)
		ret = mount(temp, path, NULL, MS_BIND, NULL);
	closefd(&fd);
	err = errno;
	unlink(temp); /* the mount keeps the file */
	errno = err;
	return ret;
}

int resolv_enter(const struct resolv_plan *plan)
{
	char *text;
	size_t len;
	int ret;

	if (!plan->private_conf)
		return 0;
	text = malloc(2 * RESOLV_SIZE_MAX);
	if (!text)
		return -1;
	len = private_text(plan->path, text, 2 * RESOLV_SIZE_MAX);
	/* A slave: mounts of the machine arrive here, ours do not get out. */
	ret = len > 0 && unshare(CLONE_NEWNS) == 0 &&
			      mount("none", "/", NULL, MS_REC | MS_SLAVE,
				      NULL) == 0
		      ? mount_text(plan->path, text, len)
		      : -1;
	free(text);
	return ret;
}

/* ---- for the vendor's command line, and the environment ---- */

/* What the stub listens on, each as @format writes it. */
static const char *listen_list(const struct resolv_plan *plan, char *buf,
	size_t size,
	const char *(*format)(const struct ip_port *at, char *buf, size_t size))
{
	char one[IP_PORT_STRLEN];
	size_t len = 0;
	unsigned i;

	buf[0] = '\0';
	for (i = 0; i < plan->nr_listen && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s",
			i ? "," : "",
			format(&plan->listen[i], one, sizeof(one)));
	return buf;
}

static const char *format_address(
	const struct ip_port *at, char *buf, size_t size)
{
	return inet_ntop(at->family, at->ip, buf, (socklen_t)size);
}

const char *resolv_plan_listen(
	const struct resolv_plan *plan, char *buf, size_t size)
{
	return listen_list(plan, buf, size, ip_port_format);
}

const char *resolv_plan_addresses(
	const struct resolv_plan *plan, char *buf, size_t size)
{
	return listen_list(plan, buf, size, format_address);
}

const char *resolv_plan_servers(
	const struct resolv_plan *plan, char *buf, size_t size)
{
	char one[DNS_SERVER_STRLEN];
	size_t len = 0;
	unsigned i;

	buf[0] = '\0';
	for (i = 0; i < plan->nr_servers && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s",
			i ? "," : "",
			dns_server_format(&plan->servers[i], one, sizeof(one)));
	return buf;
}

const char *resolv_env(const char *old, char *buf, size_t size)
{
	int n;

	if (!old || old[0] == '\0')
		n = snprintf(buf, size, USE_VC);
	else if (strstr(old, USE_VC))
		return old;
	else
		n = snprintf(buf, size, "%s " USE_VC, old);
	return n >= 0 && (size_t)n < size ? buf : NULL;
}
