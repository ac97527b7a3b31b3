/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who may use a REST listener: API keys and client certificates, as `koukan.rest.access` names
 * them.  Immutable; any thread.  Owner: service/node. */
#include "conf/config.h"
#include "http/server.h"
#include "rest/principal.h"

typedef struct Access Access;

/* NULL when there are no entries: no authentication.  `conf` outlives it. */
Access *access_new(const RestOwnConf *conf);
void access_free(Access *access); /* NULL is fine */
/* Who makes the request: by `Authorization: Bearer KEY` (RFC 6750 2.1), or, without that header,
 * by the client certificate.  NULL: nobody that we know. */
const RestPrincipal *access_find(const Access *access, HttpRequest *request);
/* The same by values, for tests: `authorization` may be NULL. */
const RestPrincipal *access_match(const Access *access, const char *authorization,
				  const HttpPeer *peer);
/* "sha256:HEX" of a key, as the configuration has it.  Caller frees. */
char *access_hash(const char *key);
