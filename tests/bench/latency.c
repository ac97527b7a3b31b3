/* SPDX-License-Identifier: Apache-2.0 */
/* Measures how long a mail server takes to answer the end of a message: from the last byte of the
 * final dot to the last byte of the 250.  Each session is a thread with a blocking socket, so that
 * nothing but the kernel stands between the answer and the clock.
 *
 *   latency ADDRESS PORT SESSIONS MESSAGES SIZE PAUSE_MS
 *
 * MESSAGES in each session, over one connection, with PAUSE_MS between them (0: none).  Prints one
 * line for each message: the microseconds. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS_MAX 1000
#define REPLY_MAX    4096
#define PATIENCE     60 /* seconds for one answer */

static struct {
	struct sockaddr_in to;
	unsigned sessions, messages, pause_ms;
	char *body; /* header, content, final dot */
	size_t body_len;
} load;

typedef struct Session {
	pthread_t thread;
	int fd;
	bool failed;
	uint32_t *usecs; /* load.messages */
} Session;

static int64_t
now_usec(void)
{
	struct timespec at;
	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

static bool
put(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		data += sent;
		len -= (size_t)sent;
	}
	return true;
}

/* Reads one reply, however many lines; true when its code begins with `first`. */
static bool
expect(int fd, char first)
{
	char text[REPLY_MAX];
	size_t len = 0, line = 0;
	for (;;) {
		ssize_t got = recv(fd, text + len, sizeof(text) - len, 0);
		if (got <= 0)
			return false;
		len += (size_t)got;
		for (char *lf; (lf = memchr(text + line, '\n', len - line)) != NULL;) {
			if (lf - (text + line) >= 4 && text[line + 3] != '-')
				return text[line] == first;
			line = (size_t)(lf - text) + 1;
		}
		if (len == sizeof(text))
			return false;
	}
}

static bool
say(int fd, const char *command, char first)
{
	return put(fd, command, strlen(command)) && expect(fd, first);
}

static int
open_session(void)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval patience = {.tv_sec = PATIENCE};
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&load.to, sizeof(load.to)) == 0 && expect(fd, '2') &&
	    say(fd, "EHLO localhost\r\n", '2'))
		return fd;
	(void)close(fd);
	return -1;
}

static bool
send_message(int fd, uint32_t *ret_usec)
{
	if (!say(fd, "MAIL FROM:<alice@example.com>\r\n", '2') ||
	    !say(fd, "RCPT TO:<bob@example.com>\r\n", '2') || !say(fd, "DATA\r\n", '3') ||
	    !put(fd, load.body, load.body_len))
		return false;
	int64_t begin = now_usec();
	bool ok = expect(fd, '2');
	*ret_usec = (uint32_t)(now_usec() - begin);
	return ok;
}

static void *
run_session(void *arg)
{
	Session *session = arg;
	session->fd = open_session();
	session->failed = session->fd < 0;
	/* not all at the same moment */
	(void)usleep(load.pause_ms * 1000 * (unsigned)(session->fd % 16) / 16);
	for (unsigned i = 0; i < load.messages && !session->failed; i++) {
		session->failed = !send_message(session->fd, &session->usecs[i]);
		(void)usleep(load.pause_ms * 1000);
	}
	if (session->fd >= 0) {
		(void)say(session->fd, "QUIT\r\n", '2');
		(void)close(session->fd);
	}
	return NULL;
}

static void
make_body(size_t size)
{
	static const char head[] = "From: <alice@example.com>\r\nTo: <bob@example.com>\r\n"
				   "Subject: latency\r\n\r\n";
	static const char line[] = "The quick brown fox jumps over the lazy dog, again.\r\n";
	const size_t room = sizeof(head) + size + sizeof(line) + 8;
	load.body = calloc(1, room);
	FILE *out = fmemopen(load.body, room, "w");
	(void)fputs(head, out);
	for (size_t len = sizeof(head); len < size; len += sizeof(line) - 1)
		(void)fputs(line, out);
	(void)fputs(".\r\n", out);
	(void)fclose(out);
	load.body_len = strlen(load.body);
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
	if (argc != 7 || inet_pton(AF_INET, argv[1], &load.to.sin_addr) != 1 ||
	    number(argv[3]) > SESSIONS_MAX) {
		(void)fputs("latency ADDRESS PORT SESSIONS MESSAGES SIZE PAUSE_MS\n", stderr);
		return 2;
	}
	load.to.sin_port = htons((uint16_t)number(argv[2]));
	load.sessions = number(argv[3]);
	load.messages = number(argv[4]);
	load.pause_ms = number(argv[6]);
	make_body(number(argv[5]));
	Session *sessions = calloc(load.sessions, sizeof(Session));
	for (unsigned i = 0; i < load.sessions; i++) {
		sessions[i].usecs = calloc(load.messages, sizeof(uint32_t));
		(void)pthread_create(&sessions[i].thread, NULL, run_session, &sessions[i]);
	}
	int failed = 0;
	for (unsigned i = 0; i < load.sessions; i++) {
		(void)pthread_join(sessions[i].thread, NULL);
		failed += sessions[i].failed;
		for (unsigned m = 0; m < load.messages && !sessions[i].failed; m++)
			printf("%u\n", sessions[i].usecs[m]);
		free(sessions[i].usecs);
	}
	free(sessions);
	free(load.body);
	return failed == 0 ? 0 : 1;
}
