/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of the SMTP client: client.c has the connection and its states, delivery.c one
 * transaction over it, client_pool.c who gets which connection.  Private to smtp/; own worker.
 *
 * Owners: the pool owns destinations, a destination its clients; a delivery belongs to the user
 * of the TxPort and borrows a client, which points back to it while it is borrowed.
 * Rules: only client_set_state and delivery_set_state write the states; a client is closed only by
 * client_close; after client_release and client_close the caller no longer has it. */
#include "smtp/client_pool.h"
#include "smtp/data.h"
#include "smtp/envelope.h"
#include "smtp/pipeline.h"
#include "smtp/reply.h"

typedef struct SmtpClient SmtpClient;
typedef struct SmtpDelivery SmtpDelivery;
typedef struct SmtpDest SmtpDest;

/* CONNECT > BANNER > EHLO > (HELO) > BUSY > BODY > BUSY > IDLE > BUSY
 *                            BUSY > RSET > IDLE     any > CLOSED */
typedef enum ClientState {
	CLIENT_CONNECT,
	CLIENT_BANNER,
	CLIENT_EHLO,
	CLIENT_HELO,
	CLIENT_BUSY, /* borrowed */
	CLIENT_BODY, /* borrowed, and between 354 and the final dot */
	CLIENT_RSET, /* cleaning up behind a failed transaction */
	CLIENT_IDLE,
	CLIENT_CLOSED,
	CLIENT_STATES
} ClientState;

struct SmtpClient {
	SmtpDest *dest;
	const SmtpOutputConf *conf;
	Conn *conn;
	ClientState state;
	SmtpDelivery *delivery; /* the borrower; NULL in RSET, IDLE */
	Pipeline pipeline;
	SmtpReply *reply; /* being read */
	SmtpCaps caps;
	unsigned uses;   /* transactions begun on it */
	GList all_link;  /* in dest->clients */
	GList idle_link; /* in dest->idle */
};

typedef struct SmtpDestKey {
	const SmtpOutputConf *conf;
	uint16_t family, port;
	uint8_t addr[16];
} SmtpDestKey;

struct SmtpDest {
	SmtpDestKey key;
	SmtpClientPool *pool;
	NetAddr addr;
	GQueue clients; /* all of them */
	GQueue idle;    /* the last one used first */
	GQueue waiting; /* deliveries without a client */
};

struct SmtpClientPool {
	Worker *worker;
	GHashTable *dests;
	GQueue deliveries; /* all of them */
	unsigned count;    /* clients */
};

typedef enum DeliveryState {
	DELIVERY_NEW,     /* no MAIL yet */
	DELIVERY_WAITING, /* for a connection */
	DELIVERY_RUNNING, /* envelope commands, DATA */
	DELIVERY_BODY,    /* 354 came: the message */
	DELIVERY_EMPTY,   /* 354 came without a recipient: a lone dot was sent */
	DELIVERY_DOT,     /* the final dot was sent */
	DELIVERY_FAILED,  /* MAIL was refused */
	DELIVERY_DEAD,    /* `dead` answers all that comes */
	DELIVERY_DONE,    /* answered or cancelled */
	DELIVERY_STATES
} DeliveryState;

struct SmtpDelivery {
	TxPort port;          /* first */
	SmtpClientPool *pool; /* NULL after it was freed */
	const SmtpOutputConf *conf;
	Tx *tx;
	TxWatch watch;
	Defer start;
	DeliveryState state;
	SmtpDest *dest; /* while waiting */
	Timer wait;     /* for a connection of a full destination */
	SmtpClient *client;
	GList pool_link, wait_link;
	NetAddr addr;
	bool retried; /* a dead reused connection was replaced once */
	bool replied; /* something came back in this transaction */
	bool mail_pushed, data_pushed, utf8;
	unsigned rcpts_pushed; /* seen; those that could not be sent are answered already */
	uint64_t offset;       /* of the message, given to the connection */
	SmtpDataWriter writer;
	Response *dead;
};

/* ---- client.c ---- */
SmtpClient *client_new(SmtpDest *dest, SmtpDelivery *delivery);
void client_close(SmtpClient *client);
/* Closes it, politely when it is idle. */
void client_leave(SmtpClient *client);
/* Lends an idle client. */
void client_borrow(SmtpClient *client, SmtpDelivery *delivery);
typedef enum ClientAfter {
	CLIENT_CLEAN,  /* no transaction is open */
	CLIENT_RESET,  /* one is */
	CLIENT_BROKEN, /* close it */
} ClientAfter;
/* Gives it back; nothing is told to the delivery any more. */
void client_release(SmtpClient *client, ClientAfter after);
/* Sends what the pipeline allows. */
void client_pump(SmtpClient *client);
/* The delivery feeds the message by conn_write and calls client_body_progress after each helping.
 */
void client_begin_body(SmtpClient *client);
void client_body_progress(SmtpClient *client);
void client_end_body(SmtpClient *client);

/* ---- delivery.c: told by the client ---- */
void delivery_on_ready(SmtpDelivery *delivery);
void delivery_on_reply(SmtpDelivery *delivery, PipeKind kind, unsigned index,
		       const SmtpReply *reply);
void delivery_on_drained(SmtpDelivery *delivery);
typedef struct ClientLoss {
	int code; /* what to answer instead */
	const char *text;
	bool is_reply; /* the hop said so; otherwise our words */
	bool reused;   /* the connection had served others before: its end may have nothing to do
			  with this transaction */
} ClientLoss;
/* The client is gone. */
void delivery_on_lost(SmtpDelivery *delivery, const ClientLoss *loss);
/* By the pool: it is freed. */
void delivery_on_pool_free(SmtpDelivery *delivery);

/* ---- client_pool.c ---- */
typedef enum PoolWant { POOL_ANY, POOL_FRESH } PoolWant;
/* A client, lent or connecting, or the delivery is put on the waiting list. */
void pool_acquire(SmtpDelivery *delivery, PoolWant want);
void pool_leave_waiting(SmtpDelivery *delivery);
void pool_client_idle(SmtpClient *client);   /* it became free */
void pool_client_closed(SmtpClient *client); /* it is no more */
