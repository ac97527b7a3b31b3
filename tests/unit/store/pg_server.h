/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The server behind backend_pg.c. */
#include <libpq-fe.h>

#include "store_fixture.h"

char *pg_server_url(const char *database); /* caller frees */
PGconn *pg_server_connect(void);
void pg_server_start(void);
/* SIGINT: in good order; SIGQUIT: as in a crash. */
void pg_server_stop(int signum);
