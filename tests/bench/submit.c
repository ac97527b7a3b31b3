/* SPDX-License-Identifier: Apache-2.0 */
/* Submits messages by REST, inline, and measures each from the request's first byte to the last of
 * its 201.  One thread with epoll, and requests that are made once: the client must not be what is
 * measured.
 *
 *   submit ADDRESS PORT CONNECTIONS MESSAGES SIZE
 *
 * MESSAGES in all, over connections that stay open, each with one request at a time.  Prints one
 * line for each message: the microseconds.  Ends at the first answer that is no 201. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1000
#define ANSWER_MAX      8192
#define PATIENCE_MS     60000 /* for one answer, whosever */

static struct {
	struct sockaddr_in to;
	unsigned connections, messages;
	char *request;
	size_t request_len;
	unsigned begun, done;
	uint32_t *usecs; /* messages */
	int epoll;
} load;

typedef struct Conn {
	int fd;
	int64_t begin;
	size_t sent, len;
	char answer[ANSWER_MAX + 1];
} Conn;

static int64_t
now_usec(void)
{
	struct timespec at;
	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

static void
watch(Conn *conn, int how, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = conn};
	(void)epoll_ctl(load.epoll, how, conn->fd, &event);
}

/* Sends what is left of the request; false: the connection is broken. */
static bool
push(Conn *conn)
{
	while (conn->sent < load.request_len) {
		ssize_t sent = send(conn->fd, load.request + conn->sent,
				    load.request_len - conn->sent, MSG_NOSIGNAL);
		if (sent <= 0) {
			watch(conn, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
			return sent < 0;
		}
		conn->sent += (size_t)sent;
	}
	return true;
}

static bool
begin(Conn *conn)
{
	if (load.begun == load.messages)
		return true;
	load.begun++;
	conn->begin = now_usec();
	conn->sent = conn->len = 0;
	return push(conn);
}

/* The length of a whole answer at the start of the text; 0: not yet. */
static size_t
answer_len(const char *text, size_t len)
{
	const char *end = strstr(text, "\r\n\r\n");
	const char *field = strcasestr(text, "\r\ncontent-length:");
	if (end == NULL || field == NULL || field > end)
		return 0;
	size_t whole = (size_t)(end - text) + 4 + strtoul(field + 17, NULL, 10);
	return whole <= len ? whole : 0;
}

static bool
pull(Conn *conn)
{
	ssize_t got = recv(conn->fd, conn->answer + conn->len, ANSWER_MAX - conn->len, 0);
	if (got <= 0)
		return false;
	conn->len += (size_t)got;
	conn->answer[conn->len] = '\0';
	if (answer_len(conn->answer, conn->len) == 0)
		return conn->len < ANSWER_MAX;
	if (strncmp(conn->answer, "HTTP/1.1 201 ", 13) != 0) {
		(void)fprintf(stderr, "%s\n", conn->answer);
		return false;
	}
	load.usecs[load.done++] = (uint32_t)(now_usec() - conn->begin);
	return begin(conn);
}

static bool
open_conn(Conn *conn)
{
	int on = 1;
	conn->fd = socket(AF_INET, SOCK_STREAM, 0);
	(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(conn->fd, (struct sockaddr *)&load.to, sizeof(load.to)) != 0)
		return false;
	watch(conn, EPOLL_CTL_ADD, EPOLLIN);
	return true;
}

static bool
run(Conn *conns)
{
	struct epoll_event events[64];
	for (unsigned i = 0; i < load.connections; i++)
		if (!open_conn(&conns[i]))
			return false;
	for (unsigned i = 0; i < load.connections; i++)
		if (!begin(&conns[i]))
			return false;
	while (load.done < load.messages) {
		int n = epoll_wait(load.epoll, events, 64, PATIENCE_MS);
		if (n <= 0)
			return false;
		for (int i = 0; i < n; i++) {
			Conn *conn = events[i].data.ptr;
			if ((events[i].events & EPOLLOUT) != 0) {
				watch(conn, EPOLL_CTL_MOD, EPOLLIN);
				if (!push(conn))
					return false;
			}
			if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0 && !pull(conn))
				return false;
		}
	}
	return true;
}

static void
make_request(size_t size)
{
	static const char head[] = "From: <alice@example.com>\\r\\nTo: <bob@example.com>\\r\\n"
				   "Subject: submit\\r\\n\\r\\n";
	static const char line[] = "The quick brown fox jumps over the lazy dog, again.\\r\\n";
	static const char envelope[] = "{\"mail_from\":{\"m\":\"alice@example.com\"},"
				       "\"rcpt_to\":[{\"m\":\"bob@example.com\"}],"
				       "\"body\":{\"inline\":\"";
	char *body = calloc(1, 2 * size + 1024);
	FILE *out = fmemopen(body, 2 * size + 1024, "w");
	(void)fprintf(out, "%s%s", envelope, head);
	/* each escape stands for one byte of the message */
	for (size_t len = sizeof(head) - 9; len < size; len += sizeof(line) - 3)
		(void)fputs(line, out);
	(void)fputs("\"}}", out);
	(void)fclose(out);
	load.request = calloc(1, strlen(body) + 1024);
	load.request_len = (size_t)snprintf(load.request, strlen(body) + 1024,
					    "POST /senders/submission/transactions HTTP/1.1\r\n"
					    "Host: localhost\r\n"
					    "Content-Type: application/json\r\n"
					    "Content-Length: %zu\r\n\r\n%s",
					    strlen(body), body);
	free(body);
}

static unsigned
number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 10);
}

int
main(int argc, char **argv)
{
	load.to.sin_family = AF_INET;
	if (argc != 6 || inet_pton(AF_INET, argv[1], &load.to.sin_addr) != 1 ||
	    number(argv[3]) > CONNECTIONS_MAX) {
		(void)fputs("submit ADDRESS PORT CONNECTIONS MESSAGES SIZE\n", stderr);
		return 2;
	}
	load.to.sin_port = htons((uint16_t)number(argv[2]));
	load.connections = number(argv[3]);
	load.messages = number(argv[4]);
	load.epoll = epoll_create1(0);
	load.usecs = calloc(load.messages, sizeof(uint32_t));
	make_request(number(argv[5]));
	Conn *conns = calloc(load.connections, sizeof(Conn));
	bool ok = run(conns);
	for (unsigned i = 0; i < load.done; i++)
		printf("%u\n", load.usecs[i]);
	free(conns);
	free(load.usecs);
	free(load.request);
	return ok ? 0 : 1;
}
