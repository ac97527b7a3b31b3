/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* libpq, loaded when a PostgreSQL store is opened for the first time: it brings a dozen other
 * libraries, whose memory and start-up time a server on SQLite need not pay.  The functions keep
 * their names.  Loaded by main before other threads use it; never unloaded. */
#include <glib.h>
#include <libpq-fe.h>
#include <stdbool.h>

#include "base/check.h"

#define PG_LIB_FUNCTIONS(X)                                                                        \
	X(PQbackendPID)                                                                            \
	X(PQclear)                                                                                 \
	X(PQcmdStatus)                                                                             \
	X(PQconnectPoll)                                                                           \
	X(PQconnectStartParams)                                                                    \
	X(PQconninfoFree)                                                                          \
	X(PQconninfoParse)                                                                         \
	X(PQconsumeInput)                                                                          \
	X(PQenterPipelineMode)                                                                     \
	X(PQerrorMessage)                                                                          \
	X(PQexecParams)                                                                            \
	X(PQfinish)                                                                                \
	X(PQflush)                                                                                 \
	X(PQfreemem)                                                                               \
	X(PQgetResult)                                                                             \
	X(PQgetisnull)                                                                             \
	X(PQgetlength)                                                                             \
	X(PQgetvalue)                                                                              \
	X(PQisBusy)                                                                                \
	X(PQnotifies)                                                                              \
	X(PQntuples)                                                                               \
	X(PQpipelineSync)                                                                          \
	X(PQresultErrorField)                                                                      \
	X(PQresultStatus)                                                                          \
	X(PQsendFlushRequest)                                                                      \
	X(PQsendPrepare)                                                                           \
	X(PQsendQuery)                                                                             \
	X(PQsendQueryPrepared)                                                                     \
	X(PQsetNoticeReceiver)                                                                     \
	X(PQsetnonblocking)                                                                        \
	X(PQsocket)                                                                                \
	X(PQstatus)                                                                                \
	X(PQtransactionStatus)

typedef struct PgLib {
#define X(name) __typeof__(name) *name;
	PG_LIB_FUNCTIONS(X)
#undef X
} PgLib;

extern PgLib pg_lib;
/* K_ERROR_STORE when the library is not installed.  Again: nothing happens. */
K_MUST_CHECK bool pg_lib_load(GError **ret_error);

#define PQbackendPID         (pg_lib.PQbackendPID)
#define PQclear              (pg_lib.PQclear)
#define PQcmdStatus          (pg_lib.PQcmdStatus)
#define PQconnectPoll        (pg_lib.PQconnectPoll)
#define PQconnectStartParams (pg_lib.PQconnectStartParams)
#define PQconninfoFree       (pg_lib.PQconninfoFree)
#define PQconninfoParse      (pg_lib.PQconninfoParse)
#define PQconsumeInput       (pg_lib.PQconsumeInput)
#define PQenterPipelineMode  (pg_lib.PQenterPipelineMode)
#define PQerrorMessage       (pg_lib.PQerrorMessage)
#define PQexecParams         (pg_lib.PQexecParams)
#define PQfinish             (pg_lib.PQfinish)
#define PQflush              (pg_lib.PQflush)
#define PQfreemem            (pg_lib.PQfreemem)
#define PQgetResult          (pg_lib.PQgetResult)
#define PQgetisnull          (pg_lib.PQgetisnull)
#define PQgetlength          (pg_lib.PQgetlength)
#define PQgetvalue           (pg_lib.PQgetvalue)
#define PQisBusy             (pg_lib.PQisBusy)
#define PQnotifies           (pg_lib.PQnotifies)
#define PQntuples            (pg_lib.PQntuples)
#define PQpipelineSync       (pg_lib.PQpipelineSync)
#define PQresultErrorField   (pg_lib.PQresultErrorField)
#define PQresultStatus       (pg_lib.PQresultStatus)
#define PQsendFlushRequest   (pg_lib.PQsendFlushRequest)
#define PQsendPrepare        (pg_lib.PQsendPrepare)
#define PQsendQuery          (pg_lib.PQsendQuery)
#define PQsendQueryPrepared  (pg_lib.PQsendQueryPrepared)
#define PQsetNoticeReceiver  (pg_lib.PQsetNoticeReceiver)
#define PQsetnonblocking     (pg_lib.PQsetnonblocking)
#define PQsocket             (pg_lib.PQsocket)
#define PQstatus             (pg_lib.PQstatus)
#define PQtransactionStatus  (pg_lib.PQtransactionStatus)
