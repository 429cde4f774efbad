/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/resolv_plan.h"
#include "common/fd.h"
#include "resolv/lo.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Each test runs in a network namespace of its own with `lo` up and nothing
 * else, as an enclave is, so it may put addresses on it. Where namespaces are
 * not allowed those tests are left out; check's fork for each test keeps the
 * namespaces apart.
 */

static char dir[64];
static char path[128];
static struct resolv_options options;
static struct resolv_plan plan;

/* Not where private addresses could lead to a network. */
static bool may_have_namespace(void)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 ? 0 : 1);
	waitpid(pid, &status, 0);
	return status == 0;
}

static void shell(const char *command)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0) {
		execl("/bin/sh", "sh", "-ec", command, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	ck_assert_int_eq(status, 0);
}

static void lo_up(void)
{
	struct ifreq req = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(ioctl(fd, SIOCGIFFLAGS, &req), 0);
	req.ifr_flags |= IFF_UP;
	ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &req), 0);
	closefd(&fd);
}

static void setup(void)
{
	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
	lo_up();
	snprintf(dir, sizeof(dir), "/tmp/test_resolv.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/resolv.conf", dir);
	memset(&options, 0, sizeof(options));
	options.path = path;
}

static void teardown(void)
{
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void put_file(const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void file_is(const char *text)
{
	char have[4096];
	FILE *f = fopen(path, "r");
	size_t n;

	ck_assert_ptr_nonnull(f);
	n = fread(have, 1, sizeof(have) - 1, f);
	have[n] = '\0';
	fclose(f);
	ck_assert_str_eq(have, text);
}

static struct ip_port address(const char *text)
{
	struct ip_port addr = {
		.family = strchr(text, ':') ? AF_INET6 : AF_INET};

	ck_assert_int_eq(inet_pton(addr.family, text, addr.ip), 1);
	return addr;
}

/* And on ::1, if this kernel has it. */
static void listens(const char *expected)
{
	const struct ip_port loopback6 = address("::1");
	bool more = lo_is_local(&loopback6) && !strstr(expected, "[::1]");
	char text[RESOLV_LIST_MAX];
	char both[1024];

	snprintf(both, sizeof(both), "%s%s", expected, more ? ",[::1]:53" : "");
	ck_assert_str_eq(resolv_plan_listen(&plan, text, sizeof(text)), both);
}

static void asks(const char *expected)
{
	char text[RESOLV_LIST_MAX];

	ck_assert_str_eq(
		resolv_plan_servers(&plan, text, sizeof(text)), expected);
}

/* ---- lo ---- */

START_TEST(add_addresses)
{
	static const char *const texts[] = {
		"10.0.0.2", "2001:db8::53", LO_DUMMY_V4, LO_DUMMY_V6};
	struct ip_port addr = address(texts[_i]);
	union sockaddr_any sa;
	socklen_t len;
	int fd;

	ck_assert(!lo_is_local(&addr));
	ck_assert_int_eq(lo_add_address(&addr), 0);
	ck_assert(lo_is_local(&addr));
	ck_assert_int_eq(lo_add_address(&addr), 0); /* again */
	/* its neighbour still leads nowhere */
	addr.ip[addr.family == AF_INET ? 3 : 15] ^= 1;
	addr.port = 9;
	len = ip_port_to_sockaddr(&addr, &sa);
	fd = socket(addr.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, &sa.sa, len), -1);
	ck_assert_int_eq(errno, ENETUNREACH);
	closefd(&fd);
}
END_TEST

START_TEST(add_without_right)
{
	struct ip_port addr = address("10.0.0.2");

	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(lo_add_address(&addr), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* What AI_ADDRCONFIG does with loopback alone, and with the dummies. */
static int look_up(const char *text, int family)
{
	struct addrinfo hints = {
		.ai_family = family,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_ADDRCONFIG,
	};
	struct addrinfo *result;
	int err = getaddrinfo(text, "80", &hints, &result);

	if (err == 0)
		freeaddrinfo(result);
	return err;
}

START_TEST(addrconfig)
{
	ck_assert_int_eq(lo_add_dummies(), 0);
	ck_assert_int_eq(look_up("127.0.0.1", AF_INET), 0);
	ck_assert_int_eq(look_up("::1", AF_INET6), 0);
	ck_assert_int_eq(lo_add_dummies(), 0); /* again */
}
END_TEST

START_TEST(no_way_out)
{
	struct ip_port addr = address("10.0.0.2");

	ck_assert(!lo_has_way_out());
	ck_assert(!lo_leads_out(&addr));
	ck_assert_int_eq(lo_add_dummies(), 0);
	ck_assert_int_eq(lo_add_address(&addr), 0);
	/* reached, but not by going out */
	ck_assert(!lo_leads_out(&addr));
	/* as where iptables redirects what goes out */
	shell("ip route add default dev lo");
	ck_assert(!lo_has_way_out());
}
END_TEST

#define VETH                                 \
 "ip link add v0 type veth peer name v1 && " \
 "ip addr add 10.99.0.1/24 dev v0 && "       \
 "ip link set v0 up && ip link set v1 up"

/* A machine with a network that leads to its servers is left alone. */
START_TEST(own_network)
{
	struct ip_port addr = address("10.99.0.2");

	shell(VETH);
	ck_assert(lo_leads_out(&addr));
	ck_assert(!lo_has_way_out());
	put_file("nameserver 10.99.0.2\n");
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(!plan.stub && !plan.use_vc && !plan.private_conf);
	/* one that it does not lead to is as good as none */
	put_file("nameserver 10.0.0.2\n");
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.stub);
	listens("127.0.0.1:53,10.0.0.2:53");
	/* a local resolver works if it can reach others */
	put_file("nameserver 127.0.0.53\n");
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.stub);
	shell("ip route add default via 10.99.0.2");
	ck_assert(lo_has_way_out());
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(!plan.stub);
	/* asked for, the servers' addresses stay where they are */
	put_file("nameserver 10.99.0.2\n");
	options.mode = RESOLV_STUB;
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.stub && plan.private_conf);
	ck_assert(!lo_is_local(&addr));
	listens("127.0.0.1:53");
	asks("10.99.0.2:53");
}
END_TEST

START_TEST(served)
{
	int fds[DNS_LISTEN_MAX];
	struct ip_port missing;

	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	for (unsigned i = 0; i < plan.nr_listen; i++) {
		union sockaddr_any sa;
		socklen_t len = ip_port_to_sockaddr(&plan.listen[i], &sa);

		ck_assert(!resolv_served(&plan, &missing));
		ck_assert(ip_port_equal(&missing, &plan.listen[i]));
		fds[i] = socket(sa.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(fds[i], &sa.sa, len), 0);
		ck_assert_int_eq(listen(fds[i], 1), 0);
	}
	ck_assert(resolv_served(&plan, &missing));
	for (unsigned i = 0; i < plan.nr_listen; i++)
		closefd(&fds[i]);
}
END_TEST

/* What cannot be read is a warning, or an error for who insists. */
START_TEST(unreadable)
{
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.stub);
	ck_assert_str_ne(plan.message, "");
	options.mode = RESOLV_STUB;
	ck_assert_int_eq(resolv_prepare(&plan, &options), -1);
	ck_assert(!plan.stub);
	ck_assert_str_ne(plan.message, "");
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* ---- the plan ---- */

static const char made[] = "# written by proxify, as there was no resolv.conf\n"
			   "nameserver 127.0.0.1\noptions use-vc\n";

START_TEST(missing)
{
	if (_i == 1)
		ck_assert_int_eq(symlink("/nonexistent/dir/x", path), 0);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert_str_eq(plan.message, "");
	ck_assert(plan.stub && plan.use_vc && !plan.private_conf);
	listens("127.0.0.1:53");
	asks("resolver.proxy.internal:53");
	file_is(made);
	/* and the next time it is a file like any other */
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	listens("127.0.0.1:53");
	asks("resolver.proxy.internal:53");
	file_is(made);
}
END_TEST

START_TEST(only_loopback)
{
	static const struct {
		const char *text, *listen;
	} table[] = {
		{"", "127.0.0.1:53"},
		{"search example\n", "127.0.0.1:53"},
		{"nameserver 127.0.0.1\n", "127.0.0.1:53"},
		{"nameserver 127.0.0.53\n", "127.0.0.1:53,127.0.0.53:53"},
		{"nameserver ::1\n", "127.0.0.1:53,[::1]:53"},
		{"nameserver 0.0.0.0\nnameserver ::\n",
			"127.0.0.1:53,[::1]:53"},
	};

	put_file(table[_i].text);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert_str_eq(plan.message, "");
	ck_assert(plan.stub);
	listens(table[_i].listen);
	asks("resolver.proxy.internal:53");
	file_is(table[_i].text);
}
END_TEST

/* A user's own file: its servers' addresses are taken, and they are asked. */
START_TEST(real_servers)
{
	static const char text[] = "nameserver 10.0.0.2\nnameserver 127.0.0.1\n"
				   "nameserver 2001:db8::53\n";
	struct ip_port v4 = address("10.0.0.2");
	struct ip_port v6 = address("2001:db8::53");

	put_file(text);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert_str_eq(plan.message, "");
	ck_assert(plan.stub && !plan.private_conf);
	listens("127.0.0.1:53,10.0.0.2:53,[2001:db8::53]:53");
	asks("10.0.0.2:53,[2001:db8::53]:53");
	ck_assert(lo_is_local(&v4) && lo_is_local(&v6));
	file_is(text);
}
END_TEST

START_TEST(dns_option)
{
	unsigned nr;

	put_file("nameserver 10.0.0.2\n");
	ck_assert_ptr_null(dns_servers_parse(options.servers, DNS_SERVERS_MAX,
		&nr, "192.0.2.1:5353,ns.example"));
	options.nr_servers = nr;
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	listens("127.0.0.1:53,10.0.0.2:53");
	asks("192.0.2.1:5353,ns.example:53");
}
END_TEST

START_TEST(keep)
{
	options.mode = RESOLV_KEEP;
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(!plan.stub && !plan.use_vc && !plan.private_conf);
	ck_assert_str_eq(plan.message, "");
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(use_vc)
{
	unsigned nr;

	options.mode = RESOLV_USE_VC;
	ck_assert_int_eq(resolv_prepare(&plan, &options), -1);
	ck_assert_ptr_nonnull(strstr(plan.message, "--dns"));
	ck_assert_ptr_null(dns_servers_parse(
		options.servers, DNS_SERVERS_MAX, &nr, "192.0.2.1"));
	options.nr_servers = nr;
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.use_vc && !plan.stub);
	file_is("nameserver 192.0.2.1\noptions use-vc\n");
}
END_TEST

/* Nothing but a warning, and use-vc; or an error if the stub was asked for. */
START_TEST(no_right_to_bind)
{
	put_file("nameserver 10.0.0.2\n");
	ck_assert_int_eq(chmod(dir, 0777), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(!plan.stub && plan.use_vc);
	ck_assert_ptr_nonnull(strstr(plan.message, "CAP_NET_BIND_SERVICE"));
	options.mode = RESOLV_STUB;
	ck_assert_int_eq(resolv_prepare(&plan, &options), -1);
	ck_assert_ptr_nonnull(strstr(plan.message, "CAP_NET_BIND_SERVICE"));
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* May listen on port 53, but may neither change lo nor mount. */
START_TEST(no_right_to_add)
{
	int fd = open("/proc/sys/net/ipv4/ip_unprivileged_port_start",
		O_WRONLY | O_CLOEXEC);

	ck_assert_int_eq(write(fd, "53", 2), 2);
	closefd(&fd);
	put_file("nameserver 10.0.0.2\n");
	ck_assert_int_eq(chmod(dir, 0755), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(!plan.stub && plan.use_vc);
	ck_assert_ptr_nonnull(strstr(plan.message, "10.0.0.2"));
	ck_assert_ptr_nonnull(strstr(plan.message, "CAP_NET_ADMIN"));
	/* with nothing to add there is nothing missing */
	ck_assert_int_eq(seteuid(0), 0);
	put_file("nameserver 127.0.0.1\n");
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert(plan.stub);
	ck_assert_str_eq(plan.message, "");
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* Mounted over the path for this process, not changed in the file. */
START_TEST(private_copy)
{
	static const char text[] = "search a.example\nnameserver 10.0.0.2\n";
	struct stat before, after;

	put_file(text);
	ck_assert_int_eq(resolv_prepare(&plan, &options), 0);
	ck_assert_int_eq(resolv_enter(&plan), 0); /* nothing to do */
	file_is(text);
	ck_assert_int_eq(stat(path, &before), 0);
	plan.private_conf = true;
	ck_assert_int_eq(resolv_enter(&plan), 0);
	file_is("nameserver 127.0.0.1\nsearch a.example\n");
	ck_assert_int_eq(umount(path), 0);
	file_is(text);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
}
END_TEST

START_TEST(env)
{
	char buf[32];

	ck_assert_str_eq(resolv_env(NULL, buf, sizeof(buf)), "use-vc");
	ck_assert_str_eq(resolv_env("", buf, sizeof(buf)), "use-vc");
	ck_assert_str_eq(
		resolv_env("ndots:2", buf, sizeof(buf)), "ndots:2 use-vc");
	ck_assert_str_eq(
		resolv_env("use-vc rotate", buf, sizeof(buf)), "use-vc rotate");
	ck_assert_ptr_null(resolv_env("ndots:2", buf, 14));
}
END_TEST

START_TEST(modes)
{
	enum resolv_mode mode;

	ck_assert_int_eq(resolv_mode_parse("auto", &mode), 0);
	ck_assert_int_eq(mode, RESOLV_AUTO);
	ck_assert_int_eq(resolv_mode_parse("stub", &mode), 0);
	ck_assert_int_eq(mode, RESOLV_STUB);
	ck_assert_int_eq(resolv_mode_parse("use-vc", &mode), 0);
	ck_assert_int_eq(mode, RESOLV_USE_VC);
	ck_assert_int_eq(resolv_mode_parse("keep", &mode), 0);
	ck_assert_int_eq(mode, RESOLV_KEEP);
	ck_assert_int_eq(resolv_mode_parse("Auto", &mode), -1);
	ck_assert_int_eq(resolv_mode_parse("", &mode), -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("resolv_plan");
	TCase *tc = tcase_create("text");

	tcase_add_test(tc, env);
	tcase_add_test(tc, modes);
	suite_add_tcase(s, tc);
	if (!may_have_namespace())
		goto run;
	tc = tcase_create("machine");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, add_addresses, 0, 4);
	tcase_add_test(tc, add_without_right);
	tcase_add_test(tc, addrconfig);
	tcase_add_test(tc, no_way_out);
	tcase_add_test(tc, own_network);
	tcase_add_test(tc, served);
	tcase_add_test(tc, unreadable);
	tcase_add_loop_test(tc, missing, 0, 2);
	tcase_add_loop_test(tc, only_loopback, 0, 6);
	tcase_add_test(tc, real_servers);
	tcase_add_test(tc, dns_option);
	tcase_add_test(tc, keep);
	tcase_add_test(tc, use_vc);
	tcase_add_test(tc, no_right_to_bind);
	tcase_add_test(tc, no_right_to_add);
	tcase_add_test(tc, private_copy);
	suite_add_tcase(s, tc);
run:
	return suite_run(s);
}
