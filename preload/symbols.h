/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The one list of hooked symbols. It makes the struct of pointers to the real
 * functions (real.h), binds them (real.c), and is what the exported-symbol
 * test compares the library with. HOOK(name): every libc has it;
 * HOOK_OPT(name): only some have (fortified variants, 64-bit aliases), and the
 * hook falls back to the plain function where the real one is missing.
 */

/* connecting and addresses: connect.c, address.c */
HOOK(connect)
HOOK(shutdown)
HOOK(getpeername)
HOOK(getsockname)

/* serving: listen.c, accept.c */
HOOK(bind)
HOOK(listen)
HOOK(accept)
HOOK(accept4)

/* options: options.c */
HOOK(getsockopt)
HOOK(setsockopt)
HOOK(ioctl)

/* fds: descriptors.c */
HOOK(dup)
HOOK(dup2)
HOOK(dup3)
HOOK(fcntl)
HOOK_OPT(fcntl64)
HOOK(epoll_ctl)

/* names: resolver.c */
HOOK(getaddrinfo)
HOOK_OPT(__res_init)
HOOK_OPT(__res_ninit)

/* data, only to settle a connection that is still in progress: data.c */
HOOK(read)
HOOK(readv)
HOOK(recv)
HOOK(recvfrom)
HOOK(recvmsg)
HOOK_OPT(recvmmsg)
HOOK_OPT(__read_chk)
HOOK_OPT(__recv_chk)
HOOK_OPT(__recvfrom_chk)
HOOK(write)
HOOK(writev)
HOOK(send)
HOOK(sendto)
HOOK(sendmsg)
HOOK_OPT(sendmmsg)
HOOK(sendfile)
HOOK_OPT(sendfile64)
HOOK(splice)
