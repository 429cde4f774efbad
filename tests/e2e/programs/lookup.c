/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* Print a name's addresses, or what getaddrinfo() says. */
int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int err;

	if (argc < 2)
		return 2;
	err = getaddrinfo(argv[1], NULL, &hints, &list);
	if (err != 0) {
		puts(err == EAI_NONAME ? "unknown" : gai_strerror(err));
		return 0;
	}
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		char text[INET6_ADDRSTRLEN];

		getnameinfo(ai->ai_addr, ai->ai_addrlen, text, sizeof(text),
			NULL, 0, NI_NUMERICHOST);
		puts(text);
	}
	freeaddrinfo(list);
	return 0;
}
