/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery against a server that answers with the fuzzer's bytes.  Success comes only from a
 * 2xx reply to the very command; every delivery gets its answers once the connection has ended;
 * nothing is left behind. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp/client_pool.h"

#define TURNS 400

typedef struct World {
	Workers *workers;
	Worker *worker;
	SmtpClientPool *pool;
	SmtpOutputConf conf;
	int listener;
	uint16_t port;
} World;

static void
world_open(World *world)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	world->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	k_assert(world->listener >= 0);
	k_assert(bind(world->listener, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	k_assert(listen(world->listener, 4) == 0);
	k_assert(getsockname(world->listener, (struct sockaddr *)&sin, &len) == 0);
	world->port = ntohs(sin.sin_port);
	world->workers = workers_new(1, NULL);
	k_assert(world->workers != NULL);
	world->worker = workers_get(world->workers, 0);
	world->pool = smtp_client_pool_new(world->worker);
	smtp_output_conf_init(&world->conf);
}

static void
world_close(World *world)
{
	smtp_client_pool_free(world->pool);
	worker_test_turn(world->worker, 0);
	workers_free(world->workers);
	(void)close(world->listener);
}

static Tx *
make_tx(World *world)
{
	Tx *tx = tx_new(worker_defers(world->worker));
	g_autoptr(HostPort) to = host_port_new("127.0.0.1", world->port);
	g_autoptr(Mailbox) from = mailbox_new("a@b", NULL, 0);
	g_autoptr(Blob) blob = blob_new_bytes("x\r\n.y\r\n", 7);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	(void)tx_set_hosts(tx, to, NULL);
	(void)tx_set_mail_from(tx, from);
	for (unsigned i = 0; i < 2; i++) {
		g_autoptr(Mailbox) rcpt = mailbox_new("c@d", NULL, 0);
		(void)tx_add_rcpt(tx, rcpt);
	}
	(void)tx_set_body(tx, body);
	return tx;
}

/* How many reply lines with a final 2xx there are at most. */
static unsigned
count_ok(const uint8_t *data, size_t size)
{
	unsigned ok = 0;
	for (size_t i = 0; i + 3 <= size; i++) {
		if (data[i] == '2' && (i == 0 || data[i - 1] == '\n'))
			ok++;
	}
	return ok;
}

static unsigned
count_accepted(const Tx *tx)
{
	unsigned ok = response_ok(tx->mail_response) ? 1 : 0;
	return ok + (unsigned)tx_rcpts_accepted(tx) + (response_ok(tx->data_response) ? 1 : 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	World world;
	size_t piece = 1 + fuzz_take_byte(&data, &size) % 128;
	size_t done = 0;
	int fd = -1;
	if (size > 16384)
		size = 16384;
	world_open(&world);
	Tx *tx = make_tx(&world);
	TxPort *port = smtp_delivery_start(world.pool, &world.conf, tx);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++) {
		char sink[4096];
		worker_test_turn(world.worker, 0);
		if (fd < 0)
			fd = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		while (recv(fd, sink, sizeof(sink), 0) > 0)
			;
		size_t len = MIN(piece, size - done);
		if (len == 0)
			break;
		(void)send(fd, data + done, len, MSG_NOSIGNAL);
		done += len;
	}
	if (fd >= 0)
		(void)close(fd);
	/* with the connection gone everything gets an answer; a listener that is gone refuses */
	(void)shutdown(world.listener, SHUT_RDWR);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++)
		worker_test_turn(world.worker, USEC_PER_MS);
	k_assert(tx->mail_response != NULL && tx->data_response != NULL);
	k_assert(tx->rcpt_answers == tx_rcpt_count(tx));
	/* the greeting and EHLO or HELO take one each */
	k_assert(count_accepted(tx) == 0 || count_accepted(tx) + 2 <= count_ok(data, size));
	tx_port_stop(port);
	tx_unref(tx);
	world_close(&world);
	return 0;
}
