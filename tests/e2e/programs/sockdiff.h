/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOCKDIFF_H
#define SOCKDIFF_H

/*
 * A script of socket calls that prints what each returned. It runs twice, over
 * plain TCP and through the proxy, and the two outputs must be equal. So it
 * prints nothing that two runs over plain TCP would not agree on: no ports that
 * the kernel chose, no times, no fd numbers.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range /* glibc 2.31's list is older than Linux 5.9 */
# define SYS_close_range 436
#endif

/* Print the text of a call, its value, and its errno if it is -1. */
#define T(call) show(#call, (errno = 0, (long)(call)))

long show(const char *text, long value);
void note(const char *text);

/* Where the world's servers are; set by main() from the command line. */
extern struct sockaddr_in echo_addr;    /* sends back what it gets */
extern struct sockaddr_in refused_addr; /* nobody listens */
extern struct sockaddr_in slow_addr;    /* the echo server, 300 ms away */
extern struct sockaddr_in silent_addr;  /* never answers */
extern struct sockaddr_in6 echo_addr6;

#define SA(addr) ((struct sockaddr *)&(addr)), sizeof(addr)

int tcp(int flags);  /* an AF_INET stream socket; exits when it cannot */
int connected(void); /* one connected to echo_addr */
void set_int(int fd, int level, int name, int value, const char *text);
void get_int(int fd, int level, int name, const char *text);
void show_name(const char *text,
	int (*call)(int, struct sockaddr *, socklen_t *), int fd,
	bool with_port);
void show_poll(int fd, short events, int ms);
bool echoes(int fd, const char *text); /* blocking; sends and reads back */
void alarm_ms(int ms, int flags);      /* SIGALRM with a handler that returns */
void read_all(int fd, size_t len);     /* wait (peeking) until so much came */

/* The groups, each in its file. */
void diff_states(void);
void diff_nonblock(void);
void diff_refused(void);
void diff_reconnect(void);
void diff_bad_arguments(void);
void diff_options(void);
void diff_options_survive(void);
void diff_flags(void);
void diff_data(void);
void diff_addresses(void);
void diff_fastopen(void);
void diff_shutdown(void);
void diff_eintr(void);
void diff_eintr_restart(void);
void diff_timeouts(void);
void diff_epoll_level(void);
void diff_epoll_edge(void);
void diff_epoll_oneshot(void);
void diff_epoll_before(void);
void diff_dup_after(void);
void diff_dup_before(void);
void diff_fork(void);
void diff_vfork_exec(void);
void diff_exec_inherited(void);
void diff_close_connecting(void);
void diff_fd_reuse(void);
void diff_rlimit(void);
void diff_threads(void);
void diff_break_off(void);
void diff_v6(void);

#endif
